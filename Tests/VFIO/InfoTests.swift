// Answers of the kernel as bytes, right and wrong.

import CRingway
import Testing

@testable import VFIO

/// Puts an answer together.
struct Answer {
  var bytes: [UInt8]
  init(_ count: Int) { bytes = [UInt8](structure: count) }
  mutating func append(id: UInt16, version: UInt16 = 1, next: UInt32, _ words: [UInt32]) {
    let at = bytes.count
    bytes += [UInt8](repeating: 0, count: 8 + words.count * 4)
    bytes.set(id, at: at)
    bytes.set(version, at: at + 2)
    bytes.set(next, at: at + 4)
    for (index, word) in words.enumerated() { bytes.set(word, at: at + 8 + index * 4) }
    bytes.set(UInt32(bytes.count), at: 0)
  }

  /// struct vfio_region_info of region 0.
  static func region(flags: UInt32, chain: UInt32 = 0, size: UInt64, offset: UInt64 = 0) -> Answer {
    var answer = Answer(VFIORegion.size)
    answer.bytes.set(flags, at: 4)
    answer.bytes.set(chain, at: 12)
    answer.bytes.set(size, at: 16)
    answer.bytes.set(offset, at: 24)
    return answer
  }

  /// struct vfio_iommu_type1_info.
  static func iommu(flags: UInt32, sizes: UInt64, chain: UInt32 = 0) -> Answer {
    var answer = Answer(IOMMUInfo.size)
    answer.bytes.set(flags, at: 4)
    answer.bytes.set(sizes, at: 8)
    answer.bytes.set(chain, at: 16)
    return answer
  }
}

@Suite struct InfoTests {
  @Test func sizesAndFieldsAreTheKernels() {
    #expect(MemoryLayout<vfio_region_info>.size == VFIORegion.size)
    #expect(MemoryLayout<vfio_region_info>.offset(of: \.offset) == 24)
    #expect(MemoryLayout<vfio_device_info>.size >= 16)
    #expect(MemoryLayout<vfio_device_info>.offset(of: \.num_irqs) == 12)
    #expect(MemoryLayout<vfio_irq_info>.size == VFIOInterrupt.size)
    #expect(MemoryLayout<vfio_irq_set>.size == 20)
    #expect(MemoryLayout<vfio_irq_set>.offset(of: \.count) == 16)
    #expect(MemoryLayout<vfio_iommu_type1_info>.offset(of: \.cap_offset) == 16)
    #expect(MemoryLayout<vfio_iommu_type1_dma_map>.size == 32)
    #expect(MemoryLayout<vfio_iommu_type1_dma_map>.offset(of: \.iova) == 16)
    #expect(MemoryLayout<vfio_iommu_type1_dma_unmap>.size == 24)
    #expect(MemoryLayout<vfio_info_cap_header>.size == 8)
    #expect(MemoryLayout<vfio_group_status>.size == 8)
  }

  @Test func fieldsStayInside() {
    var bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    #expect(bytes.field(UInt32.self, at: 4) == 0x0807_0605)
    #expect(bytes.field(UInt32.self, at: 5) == nil)
    #expect(bytes.field(UInt32.self, at: -1) == nil)
    #expect(bytes.field(UInt64.self, at: Int.max) == nil)
    bytes.set(UInt16(0xBEEF), at: 6)
    #expect(bytes.field(UInt64.self, at: 0) == 0xBEEF_0605_0403_0201)
    #expect(bytes.field(Int16.self, at: 6) == Int16(bitPattern: 0xBEEF))
  }

  @Test func deviceInformation() throws {
    var bytes = [UInt8](structure: VFIODeviceInfo.size)
    bytes.set(UInt32(3), at: 4)
    bytes.set(UInt32(9), at: 8)
    bytes.set(UInt32(5), at: 12)
    let info = try VFIODeviceInfo(bytes)
    #expect(info.canReset && info.isPCI && info.regions == 9 && info.interrupts == 5)
    #expect(throws: VFIOMalformed.self) { try VFIODeviceInfo(Array(bytes[..<15])) }
  }

  @Test func aRegionWithoutCapabilitiesIsMappedWhole() throws {
    let region = try VFIORegion(Answer.region(flags: 7, size: 0x20000, offset: 1 << 40).bytes, index: 0, pageSize: 4096)
    #expect(region.areas == [0..<0x20000] && region.fileOffset == 1 << 40 && region.isReadable && region.isWritable)
    let ports = try VFIORegion(Answer.region(flags: 3, size: 32).bytes, index: 0, pageSize: 4096)
    #expect(ports.areas.isEmpty && ports.count == 32)
  }

  @Test func sparseAreasLeaveTheVectorTableOut() throws {
    var answer = Answer.region(flags: 15, chain: 32, size: 0x8000)
    answer.append(id: 9, next: 48, [0, 0])
    answer.append(id: 1, next: 0, [3, 0, 0x4000, 0, 0x4000, 0, 0, 0, 0x3000, 0, 0x1000, 0, 0, 0])
    let region = try VFIORegion(answer.bytes, index: 0, pageSize: 4096)
    #expect(region.areas == [0..<0x3000, 0x4000..<0x8000])
  }

  @Test(arguments: [
    [UInt32(1), 0, 0x7000, 0, 0x2000, 0],  // beyond the end
    [1, 0, 0x9000, 0, 0x1000, 0],  // outside
    [1, 0, 0x1000, 0, 0xFFFF_F000, 0xFFFF_FFFF],  // overflow
    [1, 0, 0x800, 0, 0x1000, 0],  // not on a page
    [2, 0, 0, 0, 0x2000, 0, 0x1000, 0, 0x2000, 0],  // overlap
    [0xFFFF_FFFF, 0, 0, 0, 0x1000, 0],  // more than there are
    [],  // nothing
  ])
  func sparseAreasThatLie(words: [UInt32]) {
    var answer = Answer.region(flags: 15, chain: 32, size: 0x8000)
    answer.append(id: 1, next: 0, words)
    #expect(throws: VFIOMalformed.self) { try VFIORegion(answer.bytes, index: 0, pageSize: 4096) }
  }

  @Test func regionsThatLie() {
    for answer in [
      Answer.region(flags: 7, size: .max), Answer.region(flags: 7, size: 0x1000, offset: .max - 0xFFF),
      Answer.region(flags: 7, size: 0x1000, offset: 1 << 63), Answer.region(flags: 7, size: 0x1000, offset: 0x800),
    ] {
      #expect(throws: VFIOMalformed.self) { try VFIORegion(answer.bytes, index: 0, pageSize: 4096) }
    }
    #expect(throws: VFIOMalformed.self) {
      try VFIORegion(Answer.region(flags: 7, size: 0x1000).bytes, index: 1, pageSize: 4096)
    }
  }

  @Test func chains() throws {
    var answer = Answer(20)
    answer.append(id: 3, next: 32, [1])
    answer.append(id: 4, version: 2, next: 0, [])
    let found = try capabilities(in: answer.bytes, first: 20, fixed: 20)
    #expect(found.map(\.id) == [3, 4] && found.map(\.offset) == [20, 32] && found[1].version == 2)
    #expect(try capabilities(in: answer.bytes, first: 0, fixed: 20).isEmpty)
    // Into the fixed part, beyond the end, cut short, in a circle.
    for first: UInt32 in [4, 1000, 36, .max] {
      #expect(throws: VFIOMalformed.self) { try capabilities(in: answer.bytes, first: first, fixed: 20) }
    }
    answer.bytes.set(UInt32(20), at: 36)
    #expect(throws: VFIOMalformed("the capability chain runs in a circle")) {
      try capabilities(in: answer.bytes, first: 20, fixed: 20)
    }
  }

  @Test func interruptInformation() throws {
    var bytes = [UInt8](structure: 16)
    bytes.set(UInt32(1), at: 4)
    bytes.set(UInt32(5), at: 12)
    #expect(try VFIOInterrupt(bytes).count == 5)
    bytes.set(UInt32(2049), at: 12)
    #expect(throws: VFIOMalformed.self) { try VFIOInterrupt(bytes) }
  }

  @Test func addressRanges() throws {
    var answer = Answer.iommu(flags: 3, sizes: 0x4020_1000, chain: 24)
    answer.append(id: 1, next: 72, [2, 0, 0xFEF0_0000, 0, 0xFFFF_FFFF, 0x7F, 0, 0, 0xFEDF_FFFF, 0])
    answer.append(id: 3, next: 0, [65535])
    let info = try IOMMUInfo(answer.bytes)
    #expect(info.ranges == [0...0xFEDF_FFFF, 0xFEF0_0000...0x7F_FFFF_FFFF])
    #expect(info.pageSize == 4096 && info.mappingsLeft == 65535)
  }

  @Test func anOldKernelNamesNoRanges() throws {
    let info = try IOMMUInfo(Answer.iommu(flags: 1, sizes: 0x1_0000).bytes)
    #expect(info.ranges == IOMMUInfo.conservative && info.pageSize == 0x1_0000 && info.mappingsLeft == nil)
    #expect(try IOMMUInfo(Answer.iommu(flags: 0, sizes: 0).bytes).pageSize == 4096)
    #expect(throws: VFIOMalformed.self) { try IOMMUInfo(Answer.iommu(flags: 1, sizes: 1 << 40).bytes) }
  }

  @Test(arguments: [
    [UInt32(0), 0], [1, 0, 5, 0, 4, 0], [2, 0, 0, 0, 9, 0, 9, 0, 20, 0], [2, 0, 0, 0, 9, 0], [],
  ])
  func addressRangesThatLie(words: [UInt32]) {
    var answer = Answer.iommu(flags: 3, sizes: 0x1000, chain: 24)
    answer.append(id: 1, next: 0, words)
    #expect(throws: VFIOMalformed.self) { try IOMMUInfo(answer.bytes) }
  }

  /// Random changes to right answers: whatever comes out keeps its promises, and nothing traps.
  @Test func changedAnswersAreRefusedOrKeepTheirPromises() {
    var random = Seeded(state: 0x5EED)
    var region = Answer.region(flags: 15, chain: 32, size: 0x8000)
    region.append(id: 1, next: 72, [2, 0, 0, 0, 0x3000, 0, 0x4000, 0, 0x4000, 0])
    region.append(id: 3, next: 0, [])
    var iommu = Answer.iommu(flags: 3, sizes: 0x4020_1000, chain: 24)
    iommu.append(id: 1, next: 48, [1, 0, 0, 0, 0xFEDF_FFFF, 0])
    iommu.append(id: 3, next: 0, [7])
    var accepted = 0
    for _ in 0..<20_000 {
      var bytes = region.bytes
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) { bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random))) }
      if let found = try? VFIORegion(bytes, index: 0, pageSize: 4096) {
        accepted += 1
        #expect(found.areas.allSatisfy { $0.lowerBound % 4096 == 0 && $0.upperBound <= found.count && !$0.isEmpty })
        #expect(zip(found.areas, found.areas.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
      }
      bytes = iommu.bytes
      bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      if let found = try? IOMMUInfo(bytes) {
        #expect(!found.ranges.isEmpty && found.pageSize > 0)
        #expect(zip(found.ranges, found.ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
      }
    }
    #expect(accepted > 1000 && accepted < 20_000)
  }
}

/// A generator whose numbers repeat (splitmix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
