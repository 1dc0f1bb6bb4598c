import DMAMemory
import Testing

@testable import Packet

/// Buffers in ordinary memory, at bus addresses that are not pointers.
@safe final class Buffers {
  let base = UnsafeMutableRawPointer.allocate(byteCount: 16 * 2048, alignment: 4096)
  deinit { unsafe base.deallocate() }
  func pool(_ indices: [UInt32] = Array(2..<16)) -> PacketPool {
    unsafe PacketPool(unsafe: base, stride: 2048, iova: IOVA(rawValue: 0x10_0000), indices: indices)
  }
}

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

struct Empty: Error {}

func take(_ pool: PacketPool) throws -> Packet {
  guard let packet = pool.allocate() else { throw Empty() }
  return packet
}

func add(_ packet: consuming Packet, to batch: inout PacketBatch) {
  if let refused = batch.append(packet) {
    _ = consume refused
    Issue.record("a batch with room refused a packet")
  }
}

@Suite struct PacketTests {
  let buffers = Buffers()

  @Test func recordIsOneCacheLine() {
    #expect(MemoryLayout<PacketRecord>.size == 64)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.length) == 32)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.hash) == 40)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.flags) == 48)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.timestamp) == 56)
  }

  @Test func droppingAPacketGivesItsBufferBack() throws {
    let pool = buffers.pool()
    #expect(pool.available == 14)
    do {
      let packet = try take(pool)
      #expect(pool.available == 13)
      check(packet.count == 0)
    }
    #expect(pool.available == 14)
  }

  @Test func recordsKnowWhereTheirBufferIs() throws {
    let pool = buffers.pool([5, 3])
    let first = try take(pool)
    let second = try take(pool)
    check(unsafe first.record.pointee.buffer == buffers.base + 5 * 2048)
    check(unsafe first.record.pointee.iova == 0x10_0000 + 5 * 2048)
    check(unsafe second.record.pointee.iova == 0x10_0000 + 3 * 2048)
    #expect(throws: Empty.self) { _ = try take(pool) }
    #expect(pool.exhausted == 1)
  }

  @Test func bytesAreChecked() throws {
    let pool = buffers.pool()
    let packet = try take(pool)
    check(packet.byte(at: 0) == nil)
    check(packet.fill(with: [1, 2, 3]))
    check(packet.byte(at: 2) == 3)
    check(packet.byte(at: 3) == nil)
    check(packet.byte(at: -1) == nil)
    check(!packet.setByte(9, at: 3))
    check(packet.setByte(9, at: 1))
    check(packet.bytes() == [1, 9, 3])
    check(!packet.setCount(2049))
    check(packet.count == 3)
    check(packet.setCount(2048))
  }

  @Test func chainsAreOneFrameAndFreeTogether() throws {
    let pool = buffers.pool()
    do {
      let head = try take(pool)
      check(head.fill(with: [1, 2]))
      let tail = try take(pool)
      check(tail.fill(with: [3]))
      head.append(tail)
      check(head.count == 3)
      check(head.segmentCount == 2)
      check(head.bytes() == [1, 2, 3])
      check(!head.setCount(1))
      #expect(pool.available == 12)
    }
    #expect(pool.available == 14)
    let again = try take(pool)
    check(again.segmentCount == 1)
  }

  @Test func batchKeepsOrderAndOwnership() throws {
    let pool = buffers.pool()
    var batch = PacketBatch(capacity: 4)
    for i in 0..<4 {
      let packet = try take(pool)
      check(packet.fill(with: [UInt8(i)]))
      add(packet, to: &batch)
    }
    let fifth = try take(pool)
    if let refused = batch.append(fifth) { _ = consume refused } else { Issue.record("a full batch took a packet") }
    #expect(batch.count == 4)
    #expect(pool.available == 10)
    var seen: [UInt8] = []
    batch.forEach { seen.append($0.byte(at: 0)!) }
    #expect(seen == [0, 1, 2, 3])
    let drained = unsafe batch.drain { slots, n in
      for i in 0..<2 { unsafe PoolState.put(slots[i]) }
      return min(2, n)
    }
    #expect(drained == 2)
    seen = []
    batch.forEach { seen.append($0.byte(at: 0)!) }
    #expect(seen == [2, 3])
    #expect(pool.available == 12)
    batch.removeAll()
    #expect(pool.available == 14)
  }

  @Test func aDroppedBatchFreesItsPackets() throws {
    let pool = buffers.pool()
    do {
      var batch = PacketBatch(capacity: 8)
      for _ in 0..<3 {
        let packet = try take(pool)
        add(packet, to: &batch)
      }
      #expect(pool.available == 11)
    }
    #expect(pool.available == 14)
  }

}
