// One memory file, at one bus address, for any number of cards.

/// Memory that cards reach: the only place where bus addresses and pointers become each other.
///
/// The region lies at the same bus address for every card it is attached to, so that an address
/// computed once is right for all of them. Control path; the owner serialises the calls.
@safe public final class DMARegion {
  private let file: MemoryFile
  private let space: IOVAAllocator
  /// Where the region starts on the bus.
  public let iova: IOVA
  /// First byte in this process.
  public let base: UnsafeMutableRawPointer
  /// Bytes.
  public let count: Int
  /// Cards that reach the region; held, so that one cannot go away while it is mapped for.
  private var mappers: [any DMAMapper] = []

  /// Takes a bus address that all of `reachable` can use. Maps for none of them yet.
  /// - Parameters:
  ///   - file: owned by the region from now on.
  ///   - reachable: the cards open at present.
  ///   - space: shared by all regions of the process.
  public init(_ file: consuming MemoryFile, reachable: [any DMAMapper], space: IOVAAllocator) throws(DMAError) {
    let ranges = IOVAAllocator.intersection(of: reachable.map(\.iovaRanges))
    let alignment = reachable.reduce(file.pageSize) { max($0, $1.iovaPageSize) }
    iova = try space.allocate(count: file.count, alignment: alignment, within: ranges)
    unsafe base = file.base
    count = file.count
    self.space = space
    self.file = file
  }

  public var backing: MemoryBacking { file.backing }
  public var node: Int? { file.node }
  /// The memory file's descriptor, open for as long as the region lives.
  public var descriptor: Int32 { file.descriptor }
  public var isSealed: Bool { file.isSealed }
  /// Bytes from the start of the file to the region.
  public var fileOffset: Int { file.fileOffset }

  /// Maps the file anew where it was, with every page present: after others took pages away. No card may be attached.
  public func restore() throws(MemoryError) { try file.restore() }

  /// How many cards reach the region.
  public var attachmentCount: Int { mappers.count }

  public func isAttached(_ mapper: any DMAMapper) -> Bool { mappers.contains { $0 === mapper } }

  /// Makes the region reachable for a card. A card is attached once.
  public func attach(_ mapper: any DMAMapper) throws(DMAError) {
    guard !isAttached(mapper) else { throw .alreadyMapped(iova: iova) }
    guard IOVAAllocator.contains(mapper.iovaRanges, iova, count: count) else {
      throw .outOfRange(iova: iova, count: count)
    }
    let page = mapper.iovaPageSize
    guard page > 0, count % page == 0, iova.rawValue % UInt64(page) == 0 else {
      throw .pageSize(wanted: page, have: file.pageSize)
    }
    try mapper.map(file.source, at: iova)
    mappers.append(mapper)
  }

  /// Takes the region from a card again. Every ring of the card that names it must be quiet.
  ///
  /// When the card's IOMMU refuses, the region counts as attached still: the card may reach it.
  public func detach(_ mapper: any DMAMapper) throws(DMAError) {
    guard let index = mappers.firstIndex(where: { $0 === mapper }) else { throw .notMapped(iova: iova) }
    do { try mapper.unmap(iova, count: count) } catch {
      // A card that is gone reaches nothing any more.
      if error != .gone { throw error }
    }
    mappers.remove(at: index)
  }

  /// The bus address of `length` bytes at `offset`; nil when they do not lie inside.
  public func iova(at offset: Int, length: Int = 1) -> IOVA? {
    holds(offset, length) ? iova.advanced(by: offset) : nil
  }

  /// The bus address of a byte of this region; nil for any other.
  public func iova(of pointer: UnsafeRawPointer) -> IOVA? {
    let start = unsafe UInt(bitPattern: base)
    let address = UInt(bitPattern: pointer)
    guard address >= start, address - start < UInt(count) else { return nil }
    return iova.advanced(by: Int(address - start))
  }

  /// The pointer to `length` bytes at `offset`; nil when they do not lie inside.
  public func pointer(at offset: Int, length: Int = 1) -> UnsafeMutableRawPointer? {
    holds(offset, length) ? unsafe base + offset : nil
  }

  /// The pointer to `length` bytes at a bus address; nil when they do not lie inside.
  public func pointer(to iova: IOVA, length: Int = 1) -> UnsafeMutableRawPointer? {
    guard iova >= self.iova, iova.rawValue - self.iova.rawValue < UInt64(count) else { return nil }
    return unsafe pointer(at: Int(iova.rawValue - self.iova.rawValue), length: length)
  }

  private func holds(_ offset: Int, _ length: Int) -> Bool {
    offset >= 0 && length > 0 && offset < count && length <= count - offset
  }

  // The owner promises that no ring names the region any more. A bus address that could not be
  // unmapped is never given out again.
  deinit {
    var clean = true
    for mapper in mappers {
      do { try mapper.unmap(iova, count: count) } catch { clean = clean && error == .gone }
    }
    if clean { space.release(iova, count: count) }
  }
}
