import NetmapAPI
import Testing

/// Bytes that are all different, so that a field at a wrong offset has a wrong value.
func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) } }

/// The number that starts at an offset, put together another way than the module does.
func number(_ bytes: [UInt8], _ offset: Int, _ size: Int) -> UInt64 {
  bytes[offset..<(offset + size)].reversed().reduce(0) { $0 * 256 + UInt64($1) }
}

/// Offset, bytes, value.
struct Field {
  let offset: Int, size: Int, value: UInt64
  init(_ offset: Int, _ value: some FixedWidthInteger & UnsignedInteger) {
    self.offset = offset
    size = value.bitWidth / 8
    self.value = UInt64(value)
  }
}

@Suite("Layouts of netmap.h")
struct LayoutTests {
  /// A body's fields: offset, bytes, value. The rest is padding, which an answer leaves alone.
  private func check<B: NetmapBody>(_ type: B.Type, _ fields: (B) -> [Field]) throws {
    let bytes = pattern(B.size)
    let body = try B(decoding: bytes)
    var covered = Set<Int>()
    for field in fields(body) {
      #expect(field.value == number(bytes, field.offset, field.size), "\(B.self) at \(field.offset)")
      covered.formUnion(field.offset..<(field.offset + field.size))
    }
    #expect(covered.count == fields(body).reduce(0) { $0 + $1.size }, "no byte belongs to two fields")
    let written = body.encoded()
    #expect(written.count == B.size)
    for i in 0..<B.size { #expect(written[i] == (covered.contains(i) ? bytes[i] : 0), "\(B.self) byte \(i)") }
    var padded = [UInt8](repeating: 0xee, count: B.size)
    body.encode(into: &padded, at: 0)
    for i in 0..<B.size { #expect(padded[i] == (covered.contains(i) ? bytes[i] : 0xee), "\(B.self) byte \(i)") }
    for count in 0..<B.size { #expect(code { _ = try B(decoding: Array(bytes.prefix(count))) } == .EINVAL) }
    #expect(code { _ = try B(decoding: bytes + [0]) } == .EINVAL)
  }

  private func register(_ r: RegisterRequest) -> [Field] {
    [
      Field(0, r.offset), Field(8, r.memorySize), Field(16, r.transmitSlots), Field(20, r.receiveSlots),
      Field(24, r.transmitRings), Field(26, r.receiveRings), Field(28, r.hostTransmitRings),
      Field(30, r.hostReceiveRings), Field(32, r.memoryID), Field(34, r.ringID), Field(36, r.mode),
      Field(40, r.extraBuffers), Field(48, r.flags),
    ]
  }

  private func pools(_ p: PoolsInfo) -> [Field] {
    [Field(0, p.memorySize), Field(8, p.memoryID)]
      + zip([16, 32, 48], [p.interfaces, p.rings, p.buffers]).flatMap {
        [Field($0, $1.offset), Field($0 + 8, $1.objects), Field($0 + 12, $1.objectSize)]
      }
  }

  @Test("Bodies: every field at its offset, every length but the right one refused")
  func bodies() throws {
    try check(RegisterRequest.self, register)
    try check(PortInfo.self) {
      [
        Field(0, $0.memorySize), Field(8, $0.transmitSlots), Field(12, $0.receiveSlots), Field(16, $0.transmitRings),
        Field(18, $0.receiveRings), Field(20, $0.hostTransmitRings), Field(22, $0.hostReceiveRings),
        Field(24, $0.memoryID),
      ]
    }
    try check(ValeAttach.self) { register($0.register) + [Field(56, $0.portIndex)] }
    try check(ValeDetach.self) { [Field(0, $0.portIndex)] }
    try check(ValeList.self) { [Field(0, $0.bridgeIndex), Field(4, $0.portIndex)] }
    try check(PortHeader.self) { [Field(0, $0.length)] }
    try check(ValeNewInterface.self) {
      [
        Field(0, $0.transmitSlots), Field(4, $0.receiveSlots), Field(8, $0.transmitRings),
        Field(10, $0.receiveRings), Field(12, $0.memoryID),
      ]
    }
    try check(ValePolling.self) { [Field(0, $0.mode), Field(4, $0.firstCPU), Field(8, $0.cpus)] }
    try check(PoolsInfo.self, pools)
    try check(SyncLoopStart.self) { [Field(0, $0.sleep)] }
  }

  @Test("Sizes of the bodies, by request")
  func sizes() {
    let sizes: [NetmapRequestType: Int] = [
      .register: RegisterRequest.size, .portInfo: PortInfo.size, .valeAttach: ValeAttach.size, .valeDetach: ValeDetach.size,
      .valeList: ValeList.size, .portHeaderSet: PortHeader.size, .portHeaderGet: PortHeader.size, .valeNewInterface: ValeNewInterface.size,
      .valeDeleteInterface: 0, .valePollingEnable: ValePolling.size, .valePollingDisable: ValePolling.size, .poolsInfo: PoolsInfo.size,
      .syncLoopStart: SyncLoopStart.size, .syncLoopStop: 0, .csbEnable: 0,
    ]
    #expect(sizes.count == 15)
    for type in NetmapRequestType.allCases { #expect(type.bodySize == sizes[type], "\(type)") }
    #expect([56, 32, 64, 8, 8, 8, 8, 16, 0, 16, 16, 64, 8, 0, 0] == (1...15).map { NetmapRequestType(rawValue: $0)?.bodySize })
  }

  /// Options: sizes in the header file count the option's header of 24 bytes.
  @Test("Options: every field at its offset, every length but the right one refused")
  func options() throws {
    let bytes = pattern(96)
    func payload(_ size: Int) -> [UInt8] { Array(bytes[24..<size]) }
    let external = try ExternalMemoryOption(decoding: payload(96))
    #expect(external.start == number(bytes, 24, 8))
    for field in pools(external.pools) { #expect(field.value == number(bytes, 32 + field.offset, field.size)) }
    let blocks = try ControlBlocksOption(decoding: payload(40))
    #expect(blocks.toLoop == number(bytes, 24, 8) && blocks.toProgram == number(bytes, 32, 8))
    #expect(blocks.encoded() == payload(40))
    let mode = try LoopModeOption(decoding: payload(32))
    #expect(UInt64(mode.mode) == number(bytes, 24, 4) && mode.encoded() == Array(bytes[24..<28]) + [0, 0, 0, 0])
    let offsets = try OffsetsOption(decoding: payload(56))
    #expect(offsets.largest == number(bytes, 24, 8) && offsets.initial == number(bytes, 32, 8))
    #expect(UInt64(offsets.bits) == number(bytes, 40, 4) && UInt64(offsets.transmitAlignment) == number(bytes, 44, 4))
    #expect(offsets.smallestGap == number(bytes, 48, 8) && offsets.encoded() == payload(56))
    let events = try LoopEventsOption(decoding: [1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0])
    #expect(events.rings == [.init(toLoop: 1, toProgram: 2), .init(toLoop: -1, toProgram: 3)])
    #expect(events.encoded() == [1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0])
    #expect(try LoopEventsOption(decoding: []).rings.isEmpty)

    func refusals<O: NetmapOption>(_ type: O.Type, _ size: Int, _ number: UInt32) {
      #expect(O.type.rawValue == number)
      #expect(O.type.payloadSize == (size == 0 ? nil : size - 24))
      for count in 0...100 {
        let fits = size == 0 ? count % 8 == 0 : count == size - 24
        #expect((code { _ = try O(decoding: pattern(count)) } == nil) == fits, "\(O.self) \(count)")
      }
    }
    refusals(ExternalMemoryOption.self, 96, 1)
    refusals(LoopEventsOption.self, 0, 2)
    refusals(ControlBlocksOption.self, 40, 3)
    refusals(LoopModeOption.self, 32, 4)
    refusals(OffsetsOption.self, 56, 5)
    #expect(ControlBlock.size == 64)
    #expect([ControlBlock.head, ControlBlock.cur, ControlBlock.programNeedsKick, ControlBlock.syncFlags] == [0, 4, 8, 12])
    #expect([ControlBlock.hwcur, ControlBlock.hwtail, ControlBlock.loopNeedsKick] == [0, 4, 8])
  }

  @Test("Register modes and their numbers")
  func modes() throws {
    for (mode, number, ring) in [
      (.allNIC, 1, 0), (.software, 2, 0), (.nicAndSoftware, 3, 0), (.oneNIC(7), 4, 7), (.null, 7, 0), (.oneSoftware(2), 8, 2),
    ] as [(RegisterMode, UInt32, UInt16)] {
      var request = RegisterRequest()
      request.setMode(mode)
      #expect(request.mode == number && request.ringID == ring)
      #expect(try request.registerMode() == mode)
    }
    for number: UInt32 in [0, 5, 6, 9, 0x104, .max] {
      var request = RegisterRequest()
      request.mode = number
      #expect(code { _ = try request.registerMode() } == .EINVAL, "\(number)")
    }
    #expect(RegisterMode.oneNIC(1 << 20).numbers.ring == .max)
    #expect(RegisterMode.oneNIC(-1).numbers.ring == 0)
  }
}
