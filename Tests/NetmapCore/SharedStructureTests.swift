import CRingway
import Testing

@testable import NetmapCore

/// The binary interface is checked against numbers written here, not against the offsets that the
/// code uses: a wrong number on one side cannot hide the same wrong number on the other.
@Suite struct SharedStructureTests {
  @Test func `a slot has the layout of struct netmap_slot`() {
    #expect(MemoryLayout<NetmapSlot>.size == 16 && MemoryLayout<NetmapSlot>.stride == 16)
    #expect(MemoryLayout<NetmapSlot>.offset(of: \.bufferIndex) == 0)
    #expect(MemoryLayout<NetmapSlot>.offset(of: \.length) == 4)
    #expect(MemoryLayout<NetmapSlot>.offset(of: \.flags) == 6)
    #expect(MemoryLayout<NetmapSlot>.offset(of: \.pointer) == 8)
    #expect(
      [SlotFlags.bufferChanged, .report, .forward, .noLearn, .indirect, .moreFragments, .transmitMonitor].map(\.rawValue)
        == [1, 2, 4, 8, 0x10, 0x20, 0x40])
    #expect(SlotFlags(rawValue: 0x3f21).high == 0x3f)
    #expect(RingFlags.timestamp.rawValue == 2 && RingFlags.forward.rawValue == 4)
  }

  @Test func `a fresh transmit ring, byte by byte`() throws {
    let allocator = try makeAllocator()
    let memory = try allocator.allocateRing(slots: 48, id: 0x4003, direction: .transmit)
    let base = unsafe memory.ring.base
    #expect(unsafe base == allocator.sharedBase + memory.offset)
    let bufferOffset = Int64(bitPattern: unsafe rw_read64(base + 0))
    #expect(unsafe base + Int(bufferOffset) == allocator.bufferBase)
    #expect(unsafe rw_read32(base + 8) == 48)
    #expect(unsafe rw_read32(base + 12) == 2048)
    #expect(unsafe rw_read16(base + 16) == 0x4003)
    #expect(unsafe rw_read16(base + 18) == 0)
    #expect(unsafe rw_read32(base + 20) == 0 && rw_read32(base + 24) == 0)
    #expect(unsafe rw_read32(base + 28) == 47, "one slot stays empty")
    for offset in stride(from: 32, to: 1024, by: 8) { #expect(unsafe rw_read64(base + offset) == 0) }
  }

  @Test func `a fresh receive ring, and what the views read and write`() throws {
    let allocator = try makeAllocator()
    let ring = try allocator.allocateRing(slots: 48, id: 1, direction: .receive).ring
    let base = unsafe ring.base
    #expect(unsafe rw_read16(base + 18) == 1 && rw_read32(base + 28) == 0)
    unsafe rw_write32(base + 20, 5)
    unsafe rw_write32(base + 24, 7)
    unsafe rw_write32(base + 28, 9)
    unsafe rw_write32(base + 32, 6)
    #expect(ring.loadHead() == 5 && ring.loadCur() == 7 && ring.loadTail() == 9)
    #expect(ring.loadFlags() == [.timestamp, .forward])
    ring.storeHead(10)
    ring.storeCur(11)
    ring.storeTail(12)
    ring.storeFlags([])
    ring.storeTimestamp(seconds: 77, microseconds: 999_999)
    #expect(unsafe rw_read32(base + 20) == 10 && rw_read32(base + 24) == 11 && rw_read32(base + 28) == 12)
    #expect(unsafe rw_read32(base + 32) == 0 && rw_read64(base + 40) == 77 && rw_read64(base + 48) == 999_999)
  }

  @Test func `slots start at byte 256, and one that does not exist is slot 0`() throws {
    let allocator = try makeAllocator()
    let ring = try allocator.allocateRing(slots: 48, id: 1, direction: .receive).ring
    let slot = NetmapSlot(bufferIndex: 0x0102_0304, length: 0x0506, flags: [.moreFragments], pointer: 0x1122_3344_5566_7788)
    ring.setSlot(47, slot)
    let at = unsafe ring.base + 256 + 47 * 16
    #expect(unsafe rw_read32(at) == 0x0102_0304 && rw_read16(at + 4) == 0x0506 && rw_read16(at + 6) == 0x20)
    #expect(unsafe rw_read64(at + 8) == 0x1122_3344_5566_7788)
    #expect(ring.slot(47) == slot)
    ring.setSlot(47, bufferIndex: 9, length: 60, flags: [])
    #expect(ring.slot(47) == NetmapSlot(bufferIndex: 9, length: 60, flags: [], pointer: 0x1122_3344_5566_7788))
    // Past the end: neither the next ring nor anything else is touched.
    for bad in [48, 49, UInt32.max] {
      ring.setSlot(bad, NetmapSlot(bufferIndex: bad, length: 1))
      #expect(ring.slot(0).bufferIndex == bad && ring.slot(bad) == ring.slot(0))
    }
    #expect(unsafe rw_read64(ring.base + 256 + 48 * 16 - 8) == 0x1122_3344_5566_7788)
  }

  @Test func `an interface, byte by byte`() throws {
    let allocator = try makeAllocator()
    let counts = RingCounts(transmit: 2, receive: 3)
    let memory = try allocator.allocateInterface(name: "netmap:a-very-long-name", counts: counts, privateMemory: true)
    let base = unsafe memory.interface.base
    let name = (0..<16).map { unsafe rw_read8(base + $0) }
    #expect(String(decoding: name, as: UTF8.self) == "netmap:a-very-l\0")
    #expect(unsafe rw_read32(base + 16) == 14 && rw_read32(base + 20) == 1)
    #expect(unsafe rw_read32(base + 24) == 2 && rw_read32(base + 28) == 3)
    #expect(unsafe rw_read32(base + 32) == 0 && rw_read32(base + 36) == 1 && rw_read32(base + 40) == 1)
    for place in 0..<7 { #expect(memory.interface.ringOffset(at: place) == 0) }

    let ring = try allocator.allocateRing(slots: 16, id: 0, direction: .receive)
    #expect(memory.list(ring, at: counts.place(of: .receive, 1, host: false)))
    // Two transmit rings, one host transmit ring, then receive ring 1.
    let written = Int(Int64(bitPattern: unsafe rw_read64(base + 56 + 8 * 4)))
    #expect(unsafe base + written == ring.ring.base)
    #expect(counts.place(of: .receive, 0, host: true) == 6 && counts.place(of: .transmit, 0, host: true) == 2)
    #expect(!memory.interface.setRingOffset(1, at: 7) && !memory.interface.setRingOffset(1, at: -1))
    memory.interface.extraBuffers = 77
    #expect(unsafe rw_read32(base + 32) == 77 && memory.interface.extraBuffers == 77)
  }

  @Test func `objects come back clean`() throws {
    let allocator = try makeAllocator()
    let first = try allocator.allocateRing(slots: 48, id: 1, direction: .transmit)
    first.ring.setSlot(3, NetmapSlot(bufferIndex: 5, length: 6))
    unsafe rw_write64(first.ring.base + 128, 0xffff)
    #expect(allocator.freeRing(first.index) == .freed)
    let second = try allocator.allocateRing(slots: 20, id: 1, direction: .receive)
    #expect(second.offset == first.offset)
    #expect(unsafe rw_read64(second.ring.base + 128) == 0)
    #expect(second.ring.slot(3) == NetmapSlot(bufferIndex: 0, length: 0))
  }

  @Test func `what does not fit an object is refused, and nothing is taken`() throws {
    let allocator = try makeAllocator()
    for slots in [49, Int.max, 1, 0, -1, Int.min] {
      #expect(throws: NetmapAllocatorError.self) { try allocator.allocateRing(slots: slots, id: 0, direction: .transmit) }
    }
    for counts in [
      RingCounts(transmit: 24, receive: 0), RingCounts(transmit: -1, receive: 1), RingCounts(transmit: Int.max, receive: Int.max),
    ] {
      #expect(throws: NetmapAllocatorError.self) { try allocator.allocateInterface(name: "x", counts: counts) }
    }
    #expect(allocator.leakReport().isEmpty)
    #expect(try allocator.allocateInterface(name: "x", counts: RingCounts(transmit: 23, receive: 0)).index == 0)
  }
}
