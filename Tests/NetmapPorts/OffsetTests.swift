import NetmapAPI
import NetmapCore
import NetmapPorts
import Testing

@Suite("Offsets")
struct OffsetTests {
  private func register(_ descriptor: NetmapDescriptor, _ offsets: OffsetsOption, _ mode: RegisterMode = .allNIC) throws -> (NetmapError.Code?, UInt32, OffsetsOption) {
    var body = RegisterRequest()
    body.setMode(mode)
    var request = FlatRequest(.register, name: "t0", body: body)
    request.append(offsets)
    let code = errno { try descriptor.handle(&request) }
    return (code, request.options[0].status, try #require(try request.option(OffsetsOption.self)))
  }

  @Test("A port without offsets says EOPNOTSUPP, numbers that cannot be EINVAL; nothing is registered")
  func refused() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    #expect(try register(descriptor, OffsetsOption(largest: 64)).0 == .EOPNOTSUPP)
    #expect(try register(descriptor, OffsetsOption(largest: 64)).1 == 95)
    lab.t0.offsets = true
    for wrong in [
      OffsetsOption(largest: 64, bits: 65), OffsetsOption(largest: 2049), OffsetsOption(largest: .max), OffsetsOption(largest: 256, bits: 8),
      OffsetsOption(largest: 64, initial: 65), OffsetsOption(largest: 64, initial: .max),
    ] {
      let result = try register(descriptor, wrong)
      #expect(result.0 == .EINVAL && result.1 == 22, "\(wrong)")
    }
    #expect(try lab.inUse() == [0, 0, 0] && descriptor.port == nil)
  }

  @Test("Rings and slots have the offsets; who comes later gets what the ring has")
  func taken() throws {
    let lab = try NetmapTestSystem(), first = NetmapDescriptor(lab.system), second = NetmapDescriptor(lab.system)
    lab.t0.offsets = true
    let result = try register(first, OffsetsOption(largest: 128, initial: 14, bits: 16, smallestGap: 2))
    #expect(result.0 == nil && result.1 == 0 && result.2.largest == 128)
    for kring in try #require(first.port).krings {
      #expect(kring.offsetMask == 0xffff && kring.largestOffset == 128 && kring.smallestGap == 2)
      for i in 0..<kring.count { #expect(kring.ring.slot(i).pointer == 14 && kring.offset(of: kring.ring.slot(i)) == 14) }
      #expect(kring.offset(of: NetmapSlot(bufferIndex: 2, length: 0, pointer: 0xffff_0005)) == 5, "other bits are the program's")
      #expect(kring.offset(of: NetmapSlot(bufferIndex: 2, length: 0, pointer: 0xffff)) == 128, "and no offset is larger than agreed")
      #expect(kring.offset(of: NetmapSlot(bufferIndex: 2, length: 0, pointer: .max)) == 128)
    }
    #expect(try register(second, OffsetsOption(largest: 129, bits: 16)).0 == .EBUSY)
    #expect(try register(second, OffsetsOption(largest: 64, bits: 17)).0 == .EBUSY)
    let plain = NetmapDescriptor(lab.system)
    try plain.register("t0", RegisterModeNumber.software)
    #expect(try register(second, OffsetsOption(largest: 64, bits: 8), .software).0 == .EBUSY, "rings in use without offsets stay so")
    plain.close()
    let later = try register(second, OffsetsOption(largest: 64, initial: 10, bits: 8))
    #expect(later.0 == nil && later.2.largest == 128)
    #expect(try #require(second.port).krings.allSatisfy { $0.ring.slot(0).pointer == 14 }, "slots in use keep theirs")
    first.close()
    second.close()
    #expect(try register(first, OffsetsOption(largest: 1)).0 == .ENXIO)
    let last = NetmapDescriptor(lab.system)
    try last.register("t0")
    #expect(try #require(last.port).krings.allSatisfy { $0.offsetMask == 0 && $0.offset(of: NetmapSlot(bufferIndex: 2, length: 0, pointer: 9)) == 0 })
  }
}
