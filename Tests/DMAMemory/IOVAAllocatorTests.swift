import Testing

@testable import DMAMemory

@Suite struct IOVAAllocatorTests {
  private static let page = 4096
  /// What a 39-bit Intel IOMMU reports: everything but the interrupt window.
  private static let intel: [ClosedRange<UInt64>] = [0...0xfedf_ffff, 0xfef0_0000...(1 << 39) - 1]

  @Test func `zero, the first MiB and the interrupt window are never given out`() throws {
    let space = IOVAAllocator()
    // A card that claims to reach everything, and only 4 GiB to choose from.
    let all: [ClosedRange<UInt64>] = [0...0xffff_ffff]
    var taken: [IOVA] = []
    while let iova = try? space.allocate(count: 8 << 20, alignment: 2 << 20, within: all) { taken.append(iova) }
    #expect(taken.count > 400)
    for iova in taken {
      #expect(iova.rawValue >= 0x10_0000)
      #expect(iova.rawValue + (8 << 20) <= 0xfee0_0000 || iova.rawValue >= 0xfef0_0000)
    }
  }

  @Test func `an intersection holds exactly what every card reaches`() {
    let result = IOVAAllocator.intersection(of: [
      [0...0xfedf_ffff, 0xfef0_0000...0x7f_ffff_ffff],
      [0x1000...0x7fff_ffff, 0x9000_0000...0xffff_ffff_ffff],
      [0...UInt64.max],
    ])
    #expect(result == [0x1000...0x7fff_ffff, 0x9000_0000...0xfedf_ffff, 0xfef0_0000...0x7f_ffff_ffff])
    #expect(IOVAAllocator.intersection(of: []) == IOVAAllocator.narrowest)
    #expect(IOVAAllocator.intersection(of: [[0...9], [20...29]]) == [])
    #expect(IOVAAllocator.normalized([5...9, 0...4, 8...20, 22...UInt64.max, 30...40]) == [0...20, 22...UInt64.max])
  }

  @Test func `requests that cannot be are refused`() {
    let space = IOVAAllocator()
    for (count, alignment) in [(0, 4096), (-1, 4096), (4096, 0), (4096, 3000), (4096, -4096), (Int.max, 4096)] {
      #expect(throws: DMAError.noAddressSpace(count: count)) {
        try space.allocate(count: count, alignment: alignment, within: Self.intel)
      }
    }
    #expect(throws: DMAError.noAddressSpace(count: 4096)) { try space.allocate(count: 4096, alignment: 4096, within: []) }
    // The last page of the address space can be had, and nothing wraps behind it.
    let end: [ClosedRange<UInt64>] = [UInt64.max - 4095...UInt64.max]
    #expect(throws: Never.self) { try space.allocate(count: 4096, alignment: 4096, within: end) }
    #expect(throws: DMAError.noAddressSpace(count: 4096)) { try space.allocate(count: 4096, alignment: 4096, within: end) }
  }

  @Test func `only what was given out can be given back`() throws {
    let space = IOVAAllocator()
    let iova = try space.allocate(count: 8192, alignment: 4096, within: Self.intel)
    #expect(!space.release(iova, count: 4096))
    #expect(!space.release(iova.advanced(by: 4096), count: 4096))
    #expect(!space.release(iova, count: 0))
    #expect(!space.release(IOVA(rawValue: .max), count: 4096))
    #expect(space.bytesInUse == 8192)
    #expect(space.release(iova, count: 8192))
    #expect(!space.release(iova, count: 8192))
    #expect(space.bytesInUse == 0)
  }

  /// Random ranges, sizes and alignments against the rules that must hold after every step.
  @Test(arguments: [1, 2, 3, 42, 1977, 0xdead_beef] as [UInt64])
  func `any sequence keeps allocations apart, aligned and inside`(seed: UInt64) throws {
    var random = Seeded(seed)
    let space = IOVAAllocator()
    var ranges: [ClosedRange<UInt64>] = []
    for _ in 0..<Int.random(in: 1...5, using: &random) {
      let start = UInt64.random(in: 0...(1 << 33), using: &random)
      ranges.append(start...start + UInt64.random(in: 0...(1 << 28), using: &random))
    }
    var live: [(iova: IOVA, count: Int)] = []
    for _ in 0..<600 {
      if live.isEmpty || Int.random(in: 0..<3, using: &random) > 0 {
        let count = Int.random(in: 1...(1 << Int.random(in: 1...24, using: &random)), using: &random)
        let alignment = 1 << Int.random(in: 0...24, using: &random)
        guard let iova = try? space.allocate(count: count, alignment: alignment, within: ranges) else { continue }
        let last = iova.rawValue + UInt64(count) - 1
        #expect(iova.rawValue % UInt64(alignment) == 0)
        #expect(IOVAAllocator.contains(ranges, iova, count: count))
        for hole in IOVAAllocator.alwaysReserved { #expect(!hole.overlaps(iova.rawValue...last)) }
        for other in live {
          #expect(!(other.iova.rawValue...other.iova.rawValue + UInt64(other.count) - 1).overlaps(iova.rawValue...last))
        }
        live.append((iova, count))
      } else {
        let gone = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        #expect(space.release(gone.iova, count: gone.count))
      }
      #expect(space.bytesInUse == UInt64(live.reduce(0) { $0 + $1.count }))
    }
  }
}
