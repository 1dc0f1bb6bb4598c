import Testing

@testable import DMAMemory

/// An IOMMU that remembers, in the test's own process.
private final class Mapper: DMAMapper {
  var iovaRanges: [ClosedRange<UInt64>] = [0...(1 << 39) - 1]
  var iovaPageSize = 4096
  var mapped: [IOVA: Int] = [:]
  var unmapError: DMAError?
  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) { mapped[iova] = source.count }
  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    if let unmapError { throw unmapError }
    mapped[iova] = nil
  }
}

@Suite struct DMARegionTests {
  private let space = IOVAAllocator()
  private let bytes = 4 * basePageSize

  private func region(_ mappers: [any DMAMapper]) throws -> DMARegion {
    try DMARegion(try MemoryFile(name: "region", bytes: bytes, backing: .normalPages), reachable: mappers, space: space)
  }

  @Test func `several cards have the region at one bus address`() throws {
    let (one, two) = (Mapper(), Mapper())
    two.iovaRanges = [0x4000_0000...(1 << 48) - 1]
    let region = try region([one, two])
    #expect(region.iova.rawValue >= 0x4000_0000)
    #expect(unsafe region.iova.rawValue != UInt64(UInt(bitPattern: region.base)))
    try region.attach(one)
    try region.attach(two)
    #expect(one.mapped == [region.iova: bytes] && two.mapped == one.mapped)
    #expect(throws: DMAError.alreadyMapped(iova: region.iova)) { try region.attach(one) }
    try region.detach(one)
    #expect(one.mapped.isEmpty && region.attachmentCount == 1 && !region.isAttached(one))
    #expect(throws: DMAError.notMapped(iova: region.iova)) { try region.detach(one) }
  }

  @Test func `a card that does not reach the region, or maps larger pages, is refused`() throws {
    let region = try region([])
    let narrow = Mapper()
    narrow.iovaRanges = [0...0xffff]
    #expect(throws: DMAError.outOfRange(iova: region.iova, count: bytes)) { try region.attach(narrow) }
    let coarse = Mapper()
    coarse.iovaPageSize = 1 << 30
    #expect(throws: DMAError.pageSize(wanted: 1 << 30, have: basePageSize)) { try region.attach(coarse) }
    #expect(narrow.mapped.isEmpty && coarse.mapped.isEmpty)
  }

  @Test func `pointers, offsets and bus addresses go over into each other inside, and nowhere else`() throws {
    let region = try region([])
    for offset in [0, 1, 4095, bytes - 1] {
      let iova = try #require(region.iova(at: offset))
      let pointer = try unsafe #require(unsafe region.pointer(to: iova))
      #expect(unsafe region.iova(of: pointer) == iova)
      #expect(unsafe pointer == region.base + offset)
    }
    #expect(region.iova(at: bytes - 8, length: 8) != nil)
    for (offset, length) in [
      (-1, 1), (bytes, 1), (bytes - 7, 8), (0, bytes + 1), (0, 0), (0, -1), (Int.min, 1), (Int.max, Int.max), (1, Int.max),
    ] {
      #expect(region.iova(at: offset, length: length) == nil)
      #expect(unsafe region.pointer(at: offset, length: length) == nil)
    }
    #expect(unsafe region.iova(of: region.base + bytes) == nil)
    #expect(unsafe region.iova(of: region.base - 1) == nil)
    #expect(unsafe region.pointer(to: IOVA(rawValue: region.iova.rawValue - 1)) == nil)
    #expect(unsafe region.pointer(to: IOVA(rawValue: 0)) == nil)
    #expect(unsafe region.pointer(to: IOVA(rawValue: .max)) == nil)
  }

  @Test func `the end of a region unmaps it and gives its address back`() throws {
    let card = Mapper()
    do {
      let region = try region([card])
      try region.attach(card)
      #expect(space.bytesInUse == UInt64(bytes))
    }
    #expect(card.mapped.isEmpty)
    #expect(space.bytesInUse == 0)
  }

  @Test func `an address that could not be unmapped is never used again`() throws {
    let card = Mapper()
    do {
      let region = try region([card])
      try region.attach(card)
      card.unmapError = .unmap(errno: 5, count: bytes, iova: region.iova)
      #expect(throws: card.unmapError!) { try region.detach(card) }
      #expect(region.isAttached(card), "the card may still reach it")
    }
    #expect(space.bytesInUse == UInt64(bytes))
  }

  @Test func `a card that is gone is detached without a complaint`() throws {
    let card = Mapper()
    let region = try region([card])
    try region.attach(card)
    card.unmapError = .gone
    try region.detach(card)
    #expect(!region.isAttached(card))
  }
}
