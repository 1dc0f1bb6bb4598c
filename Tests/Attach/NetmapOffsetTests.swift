import Ifnet
import NetmapAPI
import NetmapCore
import NetmapPorts
import Packet
import Testing

@testable import Attach

/// Frames that start somewhere in their buffers (option OFFSETS), and interfaces as ports by name.
@Suite struct NetmapOffsetTests {
  @Test("Frames are sent from their offset, and received at the slot's", arguments: NetmapModel.allCases)
  func offsets(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let system = NetmapSystem(lab.netisr, memory: lab.memory)
    let wanted = OffsetsOption(largest: 256, initial: 64, bits: 16)
    let port = try system.onControl { () throws(NetmapError) in
      try system.open(lab.card, PortRequest("em0", RingSelection(.nicAndSoftware), offsets: wanted))
    }
    let sent = try #require(port.transmitRings.first), received = try #require(port.receiveRings.first)
    for (k, offset) in [0, 13, 64, 256, 9999].enumerated() {
      let frame = NetmapLab.frame(k, count: 200 + k), at = min(offset, 256)
      var slot = sent.slot(sent.head)
      unsafe sent.withBuffer(slot.bufferIndex) { bytes in
        for i in 0..<bytes.count { unsafe bytes[i] = 0xee }
        for (i, byte) in frame.enumerated() { unsafe bytes[at + i] = byte }
      }
      slot.length = UInt16(frame.count)
      slot.pointer = 0xabcd_0000_0000_0000 | UInt64(offset)
      let index = slot.bufferIndex
      sent.setSlot(sent.head, slot)
      sent.advance()
      port.sync(.transmit)
      lab.poll(2)
      #expect(lab.wire.sent.last?.bytes == frame)
      let isKept = unsafe sent.withBuffer(index) { bytes in
        bytes.indices.allSatisfy { unsafe bytes[$0] == ((at..<at + frame.count).contains($0) ? frame[$0 - at] : 0xee) }
      }
      #expect(isKept, "nothing in front of the frame was written")
    }
    for i in 0..<10 { lab.wire.send(NetmapLab.frame(i, count: 100 + i * 100)) }
    lab.poll(2)
    port.sync(.receive)
    #expect(received.space == 10)
    for i in 0..<10 {
      let slot = received.slot(UInt32(i)), frame = NetmapLab.frame(i, count: 100 + i * 100)
      let bytes = unsafe received.withBuffer(slot.bufferIndex) { unsafe [UInt8]($0[64..<64 + Int(slot.length)]) }
      #expect(slot.pointer & 0xffff == 64 && bytes == frame)
    }
    let host = try #require(port.hostReceiveRings.first)
    check(lab.stackSends(NetmapLab.frame(77)))
    lab.netisr.settle()
    port.sync(.receive)
    let slot = host.slot(host.head)
    let bytes = unsafe host.withBuffer(slot.bufferIndex) { unsafe [UInt8]($0[64..<64 + Int(slot.length)]) }
    #expect(bytes == NetmapLab.frame(77))
    port.close()
    lab.driver.stop()
    lab.poll()
    #expect(lab.allocator.statistics[2].inUse == 0)
  }

  @Test("An interface without a card is EINVAL, a name that is none is ENXIO")
  func names() throws {
    let lab = try NetmapLab(.ixgbe)
    let system = NetmapSystem(lab.netisr, memory: lab.memory)
    system.add(CardPorts(lab.table))
    func code(_ name: String) -> NetmapError.Code? {
      do throws(NetmapError) { try system.register(PortRequest(name, RingSelection(.allNIC))).close() } catch { return error.code }
      return nil
    }
    // The lab's interface has a driver that is no attachment.
    #expect(code("em0") == .EINVAL && code("em1") == .ENXIO)
  }
}
