import DMAMemory

/// An IOMMU in the test's own process: remembers what is mapped where, and hands nothing to a card.
final class FakeMapper: DMAMapper {
  var iovaRanges: [ClosedRange<UInt64>] = [0...0xfedf_ffff, 0xfef0_0000...(1 << 39) - 1]
  var iovaPageSize = 4096
  private(set) var mapped: [IOVA: Int] = [:]
  private(set) var mapCalls = 0
  /// The next `map` that follows this many successful ones fails.
  var failAfter: Int?
  /// The `unmap` that follows this many successful ones fails.
  var unmapsBeforeRefusal: Int?

  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    if let left = failAfter {
      guard left > 0 else { throw .map(errno: 12, count: source.count, iova: iova) }
      failAfter = left - 1
    }
    guard mapped[iova] == nil else { throw .map(errno: 17, count: source.count, iova: iova) }
    mapped[iova] = source.count
    mapCalls += 1
  }

  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    if let left = unmapsBeforeRefusal {
      guard left > 0 else { throw .unmap(errno: 16, count: count, iova: iova) }
      unmapsBeforeRefusal = left - 1
    }
    guard mapped[iova] == count else { throw .unmap(errno: 22, count: count, iova: iova) }
    mapped[iova] = nil
  }
}
