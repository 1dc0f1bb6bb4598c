// Descriptor rings: few, large, aligned. First fit over a private list of free ranges.

/// Which bytes of the descriptor region are given out. The caller serialises.
struct DescriptorPool {
  /// Bytes are handed out in multiples of a cache line, so two rings never share one.
  static let granule = 64

  struct Holding: Equatable {
    let count: Int
    let owner: ObjectIdentifier
  }

  let total: Int
  /// Sorted by offset; no two touch.
  private(set) var holes: [Range<Int>]
  /// What is given out, by offset.
  private(set) var held: [Int: Holding] = [:]
  private var refused = 0
  private var doubleFrees = 0

  init(total: Int) {
    self.total = total
    holes = total > 0 ? [0..<total] : []
  }

  var free: Int { holes.reduce(0) { $0 + $1.count } }

  var statistics: PoolStatistics {
    PoolStatistics(name: "descriptor", total: total, free: free, refused: refused, doubleFrees: doubleFrees)
  }

  /// - Returns: the offset and the bytes taken: `bytes`, rounded up to cache lines.
  mutating func allocate(bytes: Int, alignment: Int, owner: ObjectIdentifier) -> (offset: Int, count: Int)? {
    guard bytes > 0, bytes <= total else {
      refused += 1
      return nil
    }
    let count = (bytes + Self.granule - 1) & ~(Self.granule - 1)
    let step = max(alignment, Self.granule)
    for (index, hole) in holes.enumerated() {
      let start = (hole.lowerBound + step - 1) & ~(step - 1)
      guard start <= hole.upperBound, count <= hole.upperBound - start else { continue }
      let rest = [hole.lowerBound..<start, start + count..<hole.upperBound].filter { !$0.isEmpty }
      holes.replaceSubrange(index...index, with: rest)
      held[start] = Holding(count: count, owner: owner)
      return (start, count)
    }
    refused += 1
    return nil
  }

  /// Gives back what starts at `offset`. False, and counted, when nothing does.
  @discardableResult mutating func release(_ offset: Int) -> Bool {
    guard let holding = held.removeValue(forKey: offset) else {
      doubleFrees += 1
      return false
    }
    var range = offset..<offset + holding.count
    var at = holes.firstIndex { $0.lowerBound > offset } ?? holes.count
    if at > 0, holes[at - 1].upperBound == range.lowerBound {
      range = holes[at - 1].lowerBound..<range.upperBound
      at -= 1
      holes.remove(at: at)
    }
    if at < holes.count, holes[at].lowerBound == range.upperBound {
      range = range.lowerBound..<holes[at].upperBound
      holes.remove(at: at)
    }
    holes.insert(range, at: at)
    return true
  }

  /// Bytes held by one owner.
  func bytes(of owner: ObjectIdentifier) -> Int {
    held.values.reduce(0) { $1.owner == owner ? $0 + $1.count : $0 }
  }
}
