// A multibit trie with its leaves pushed down: a lookup reads one entry a level and compares nothing.
//
//     root: 2^rootBits entries          node: 2^stride entries (a cache line for 4 bits)
//     ┌──────┬──────┬──────┬───        ┌──────┬──────┬───
//     │ leaf │ node ┼──────────────────> leaf │ leaf │ …
//
// An entry is a leaf (`Leaf`), or bit 31 and a node's number. Each entry holds the longest prefix that covers all of
// it; a node exists as long as it holds a prefix that is longer than its own depth.

@safe struct Trie<Key: TrieKey>: ~Copyable {
  static var nodeFlag: UInt32 { 0x8000_0000 }
  @inline(__always) static var fanout: Int { 1 << Key.stride }

  private let rootMemory: TableMemory
  private var nodeMemory: TableMemory
  private let root: UnsafeMutablePointer<UInt32>
  private var nodes: UnsafeMutablePointer<UInt32>
  /// Nodes that `nodes` has room for, and those that were ever used; node 0 is never used.
  private var capacity = 64
  private var used = 1
  /// Free nodes: the first one's number, the next in each's first entry; 0 ends the list.
  private var free = 0
  private var freeCount = 0
  /// Nodes that may exist: a typed error instead of a machine without memory.
  let limit: Int

  init(limit: Int) {
    self.limit = limit
    let rootMemory = TableMemory(necessary: 4 << Key.rootBits)
    let nodeMemory = TableMemory(necessary: capacity * Self.fanout * 4)
    // SAFETY: zeroed memory is a trie of no leaves.
    unsafe root = rootMemory.base.bindMemory(to: UInt32.self, capacity: 1 << Key.rootBits)
    unsafe nodes = nodeMemory.base.bindMemory(to: UInt32.self, capacity: capacity * Self.fanout)
    self.rootMemory = rootMemory
    self.nodeMemory = nodeMemory
  }

  /// Nodes in use.
  var nodeCount: Int { used - 1 - freeCount }
  /// Bytes.
  var size: Int { (4 << Key.rootBits) + capacity * Self.fanout * 4 }

  // MARK: Lookup

  /// The leaf of the longest prefix that covers `key`; 0: none.
  @inline(__always) func find(_ key: Key) -> UInt32 {
    // SAFETY: node numbers in entries are below `used`; the bits are below the fan-out. The last level holds leaves.
    var entry = unsafe root[key.bits(0, Key.rootBits)]
    var depth = Key.rootBits
    while entry & Self.nodeFlag != 0 {
      entry = unsafe nodes[Int(truncatingIfNeeded: entry ^ Self.nodeFlag) &* Self.fanout &+ key.bits(depth, Key.stride)]
      depth &+= Key.stride
    }
    return entry
  }

  /// The root's entry for a key, and the entry below an entry that names a node: for lookups in batches.
  @inline(__always) func rootEntry(_ key: Key) -> UInt32 { unsafe root[key.bits(0, Key.rootBits)] }
  @inline(__always) func below(_ entry: UInt32, _ key: Key, _ depth: Int) -> UInt32 {
    unsafe nodes[Int(truncatingIfNeeded: entry & ~Self.nodeFlag) &* Self.fanout &+ key.bits(depth, Key.stride)]
  }

  // MARK: Change

  /// Makes sure that a prefix of `length` bits can be set. Returns false when there is no room for its nodes.
  mutating func reserve(_ length: Int) -> Bool {
    let needed = max(0, length - Key.rootBits + Key.stride - 1) / Key.stride
    let fresh = max(0, needed - freeCount)
    guard nodeCount + needed <= limit else { return false }
    guard used + fresh > capacity else { return true }
    var wanted = capacity
    while wanted < used + fresh { wanted *= 2 }
    // SAFETY: the old nodes are copied whole, then given back.
    guard let larger = TableMemory(wanted * Self.fanout * 4) else { return false }
    unsafe larger.base.copyMemory(from: nodes, byteCount: used * Self.fanout * 4)
    unsafe nodes = larger.base.bindMemory(to: UInt32.self, capacity: wanted * Self.fanout)
    nodeMemory = larger
    capacity = wanted
    return true
  }

  private mutating func makeNode(filledWith entry: UInt32) -> Int {
    var node = free
    if node != 0 {
      free = unsafe Int(nodes[node * Self.fanout])
      freeCount -= 1
    } else {
      node = used
      used += 1
    }
    let first = node * Self.fanout
    for at in first..<(first + Self.fanout) { unsafe nodes[at] = entry }
    return node
  }

  /// Puts a leaf everywhere that its prefix covers and no longer one does. Its nodes are reserved.
  mutating func set(_ key: Key, _ leaf: UInt32) {
    let length = Leaf.length(leaf)
    if length <= Key.rootBits {
      let first = key.bits(0, Key.rootBits)
      for at in first..<(first + 1 << (Key.rootBits - length)) { unsafe cover(root + at, leaf, length) }
      return
    }
    var slot = unsafe root + key.bits(0, Key.rootBits)
    var depth = Key.rootBits
    while true {
      var entry = unsafe slot.pointee
      if entry & Self.nodeFlag == 0 {
        entry = Self.nodeFlag | UInt32(makeNode(filledWith: entry))
        unsafe slot.pointee = entry
      }
      let node = unsafe nodes + Int(entry ^ Self.nodeFlag) * Self.fanout
      let first = key.bits(depth, Key.stride)
      if length <= depth + Key.stride {
        for at in first..<(first + 1 << (depth + Key.stride - length)) { unsafe cover(node + at, leaf, length) }
        return
      }
      unsafe slot = node + first
      depth += Key.stride
    }
  }

  /// Writes a leaf over an entry, or into the node there, wherever a shorter or the same prefix was.
  private func cover(_ slot: UnsafeMutablePointer<UInt32>, _ leaf: UInt32, _ length: Int) {
    let entry = unsafe slot.pointee
    guard entry & Self.nodeFlag != 0 else {
      if Leaf.length(entry) <= length { unsafe slot.pointee = leaf }
      return
    }
    let node = unsafe nodes + Int(entry ^ Self.nodeFlag) * Self.fanout
    for at in 0..<Self.fanout { unsafe cover(node + at, leaf, length) }
  }

  /// Takes a prefix's leaves out, and puts `leaf` (that of the longest shorter prefix over it, or 0) in their place.
  mutating func remove(_ key: Key, _ length: Int, replacing leaf: UInt32) {
    if length <= Key.rootBits {
      let first = key.bits(0, Key.rootBits)
      for at in first..<(first + 1 << (Key.rootBits - length)) { unsafe uncover(root + at, leaf, length) }
      return
    }
    // Down to the node that holds the prefix …
    var depth = Key.rootBits
    var slot = unsafe root + key.bits(0, Key.rootBits)
    while true {
      let entry = unsafe slot.pointee
      guard entry & Self.nodeFlag != 0 else { return }
      let node = unsafe nodes + Int(entry ^ Self.nodeFlag) * Self.fanout
      let first = key.bits(depth, Key.stride)
      if length <= depth + Key.stride {
        for at in first..<(first + 1 << (depth + Key.stride - length)) { unsafe uncover(node + at, leaf, length) }
        break
      }
      unsafe slot = node + first
      depth += Key.stride
    }
    // … and up again past nodes that hold nothing of their own any more.
    while depth >= Key.rootBits, collapse(key, depth) { depth -= Key.stride }
  }

  private func uncover(_ slot: UnsafeMutablePointer<UInt32>, _ leaf: UInt32, _ length: Int) {
    let entry = unsafe slot.pointee
    guard entry & Self.nodeFlag != 0 else {
      if Leaf.length(entry) == length { unsafe slot.pointee = leaf }
      return
    }
    let node = unsafe nodes + Int(entry ^ Self.nodeFlag) * Self.fanout
    for at in 0..<Self.fanout { unsafe uncover(node + at, leaf, length) }
  }

  /// Frees the node at `depth` on the way to `key` when all its entries are one leaf from above.
  private mutating func collapse(_ key: Key, _ depth: Int) -> Bool {
    var slot = unsafe root + key.bits(0, Key.rootBits)
    var at = Key.rootBits
    while at < depth {
      let entry = unsafe slot.pointee
      guard entry & Self.nodeFlag != 0 else { return false }
      unsafe slot = nodes + Int(entry ^ Self.nodeFlag) * Self.fanout + key.bits(at, Key.stride)
      at += Key.stride
    }
    let entry = unsafe slot.pointee
    guard entry & Self.nodeFlag != 0 else { return false }
    let number = Int(entry ^ Self.nodeFlag)
    let node = unsafe nodes + number * Self.fanout
    let first = unsafe node[0]
    guard first & Self.nodeFlag == 0, Leaf.length(first) <= depth else { return false }
    for i in 1..<Self.fanout where unsafe node[i] != first { return false }
    unsafe slot.pointee = first
    unsafe node[0] = UInt32(free)
    free = number
    freeCount += 1
    return true
  }
}
