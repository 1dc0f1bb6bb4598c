// The two programs of a netmap run: one that writes anything anywhere, and one that is not to notice.

import CRingway
import NetmapAPI
import NetmapCore
import NetmapPorts

/// Opens, registers, scribbles, syncs and closes as the input says.
@safe final class HostileProgram {
  private let system: NetmapSystem
  private var descriptors: [NetmapDescriptor] = []
  private static let most = 5
  private static let names = [
    "vale0:a", "vale0:b", "vale1:a", "p{1", "p}1", "p{2", "p}2", "ix0", "ix0{1", "ix0}1", "vale0:a{1", "vale0:a}1", "v0", "vale0:v0", "",
    "vale0:", "p{", "nobody0", "vale0:ix0",
  ]

  init(_ system: NetmapSystem) { self.system = system }

  /// Closes all that it has, and ends the persistent ports that it made: those outlive their makers.
  func closeAll() {
    for descriptor in descriptors { descriptor.close() }
    descriptors = []
    let last = NetmapDescriptor(system)
    for (kind, name) in [(.valeDetach, "vale0:v0"), (.valeDeleteInterface, "v0"), (.valeDeleteInterface, "nobody0")]
      as [(NetmapRequestType, String)]
    {
      // Fails where there is none.
      let body = [UInt8](repeating: 0, count: kind.bodySize)
      _ = last.ioctl(NetmapIoctl.control, FlatRequest(kind, name: name, body: body).encoded())
    }
    last.close()
  }

  func step(_ input: inout FuzzInput) {
    guard !descriptors.isEmpty, input.below(12) != 0 else { return open(&input) }
    let place = input.below(descriptors.count), descriptor = descriptors[place]
    switch input.below(16) {
    case 0: register(descriptor, &input)
    case 1:
      descriptor.close()
      descriptors.remove(at: place)
    case 2: request(descriptor, &input)
    case 3: scribbleAnywhere(descriptor, &input)
    case 4: _ = descriptor.wait(for: NetmapEvents(rawValue: input.byte() & 3), milliseconds: 0)
    case 5, 6: try? descriptor.sync(input.flag() ? .transmit : .receive)
    case 7: behave(descriptor, &input)
    case 8:
      // The list of extra buffers, which close believes.
      guard let port = descriptor.port else { return }
      unsafe rw_write32(port.memory.interface.base + InterfaceOffset.extraBuffers, index(port, &input))
    default: scribbleRing(descriptor, &input)
    }
  }

  private func open(_ input: inout FuzzInput) {
    guard descriptors.count < Self.most else { return }
    let descriptor = NetmapDescriptor(system)
    descriptors.append(descriptor)
    register(descriptor, &input)
  }

  private func register(_ descriptor: NetmapDescriptor, _ input: inout FuzzInput) {
    var body = RegisterRequest()
    body.mode = [1, 1, 1, 2, 3, 4, 7, 8, UInt32(input.below(12))][input.below(9)]
    body.ringID = UInt16(input.below(3))
    let flags: [UInt64] = [0, 0, 0, 0x100, 0x200, 0x300, 0x700, 0x800, 0x2000, 0x4000, 0x8000, UInt64(input.word16()) << 4]
    body.flags = flags[input.below(flags.count)]
    body.extraBuffers = input.below(4) == 0 ? UInt32(input.below(40)) : 0
    body.transmitSlots = [0, 0, 16, 64, 2, UInt32(input.byte())][input.below(6)]
    body.receiveSlots = [0, 0, 16, 64, 2, UInt32(input.byte())][input.below(6)]
    body.transmitRings = UInt16(input.below(3))
    body.receiveRings = UInt16(input.below(3))
    // Never the other program's region: who is let into that is trusted.
    body.memoryID = [0, 0, 0, 1, 999][input.below(5)]
    var request = FlatRequest(.register, name: Self.names[input.below(Self.names.count)], body: body)
    if input.below(5) == 0 {
      request.append(OffsetsOption(largest: UInt64(input.word16()), initial: UInt64(input.byte()), bits: UInt32(input.below(80))))
    }
    try? descriptor.handle(&request)
  }

  /// Any other request, legacy ones as well; bytes of it are the input's.
  private func request(_ descriptor: NetmapDescriptor, _ input: inout FuzzInput) {
    if input.below(3) == 0 {
      var bytes = input.take(60)
      bytes += [UInt8](repeating: 0, count: 60 - bytes.count)
      let name = Array(Self.names[input.below(Self.names.count)].utf8)
      for i in 0..<16 { bytes[i] = i < name.count ? name[i] : 0 }
      (bytes[16], bytes[17], bytes[18], bytes[19]) = (14, 0, 0, 0)
      // Sizes that would only take time.
      for at in [26, 27, 30, 31, 34, 35, 46, 47, 50, 51] { bytes[at] = 0 }
      _ = descriptor.ioctl(input.flag() ? NetmapIoctl.info : NetmapIoctl.register, bytes)
      return
    }
    let kind = NetmapRequestType(rawValue: UInt16(2 + input.below(14))) ?? .portInfo
    var body = input.take(kind.bodySize)
    body += [UInt8](repeating: 0, count: kind.bodySize - body.count)
    if kind == .valeNewInterface || kind == .valeAttach { for i in 0..<min(8, body.count) where i % 4 >= 2 { body[i] = 0 } }
    let region = kind == .valeNewInterface ? 12 : 32
    for i in [region, region + 1] where i < body.count && (kind == .valeNewInterface || kind == .valeAttach) { body[i] = 0 }
    let flat = FlatRequest(kind, name: Self.names[input.below(Self.names.count)], body: body)
    _ = descriptor.ioctl(NetmapIoctl.control, flat.encoded())
  }

  // MARK: What no program should write

  /// An index: of this region, of nothing, or a small one that is likely somebody else's.
  private func index(_ port: NetmapPort, _ input: inout FuzzInput) -> UInt32 {
    switch input.below(5) {
    case 0: [0, 1, 2, .max, 0x8000_0000, UInt32(port.region.allocator.bufferCount)][input.below(6)]
    case 1: input.word32()
    default: UInt32(input.word16()) % UInt32(max(1, port.region.allocator.bufferCount))
    }
  }

  private func scribbleRing(_ descriptor: NetmapDescriptor, _ input: inout FuzzInput) {
    guard let port = descriptor.port else { return register(descriptor, &input) }
    let rings = port.krings
    guard !rings.isEmpty else { return }
    let ring = rings[input.below(rings.count)].ring
    func place() -> UInt32 { input.below(4) == 0 ? input.word32() : UInt32(input.below(Int(ring.slotCount) + 2)) }
    switch input.below(10) {
    case 0: ring.storeHead(place())
    case 1: ring.storeCur(place())
    case 2:
      let both = place()
      ring.storeHead(both)
      ring.storeCur(both)
    case 3: ring.storeTail(place())
    case 4: ring.storeFlags(RingFlags(rawValue: UInt32(input.byte())))
    default:
      let at = UInt32(input.below(Int(ring.slotCount)))
      var slot = ring.slot(at)
      if input.flag() { slot.bufferIndex = input.flag() ? ring.slot(UInt32(input.below(Int(ring.slotCount)))).bufferIndex : index(port, &input) }
      if input.flag() { slot.length = input.flag() ? input.word16() : UInt16(input.below(200)) }
      if input.flag() { slot.flags = SlotFlags(rawValue: input.flag() ? input.word16() : UInt16(1 << input.below(8)) | 1) }
      if input.flag() { slot.pointer = input.flag() ? input.word64() : UInt64(input.word16()) }
      ring.setSlot(at, slot)
    }
  }

  /// Somewhere in the region: what a mapping lets it reach.
  private func scribbleAnywhere(_ descriptor: NetmapDescriptor, _ input: inout FuzzInput) {
    guard let port = descriptor.port else { return }
    let allocator = port.region.allocator
    // Interfaces and rings, mostly: behind them lie only buffers.
    let before = unsafe allocator.bufferBase - allocator.sharedBase
    let limit = input.below(4) == 0 ? allocator.sharedBytes : min(before, allocator.sharedBytes)
    guard limit >= 4 else { return }
    let at = (Int(input.word32()) % (limit / 4)) * 4
    // SAFETY: at + 4 is within the region.
    unsafe rw_write32(allocator.sharedBase + at, input.word32())
  }

  /// Some of what programs do when they behave: the rest is only reached by these.
  private func behave(_ descriptor: NetmapDescriptor, _ input: inout FuzzInput) {
    guard let port = descriptor.port else { return }
    for kring in port.krings where input.flag() {
      let ring = kring.ring
      let tail = ring.loadTail()
      var at = ring.loadHead()
      guard tail < ring.slotCount, at < ring.slotCount else { continue }
      for _ in 0..<(1 + input.below(20)) where at != tail {
        if kring.id.direction == .transmit {
          var slot = ring.slot(at)
          slot.length = UInt16(14 + input.below(200))
          slot.flags = input.below(5) == 0 ? .moreFragments : input.below(5) == 0 ? [.bufferChanged] : []
          ring.setSlot(at, slot)
        }
        at = at + 1 == ring.slotCount ? 0 : at + 1
      }
      ring.storeCur(at)
      ring.storeHead(at)
    }
    port.sync(.transmit)
    port.sync(.receive)
  }
}

/// Two ports of a pipe and two of a switch, in regions of their own; everything that it sends arrives.
@safe final class PlainProgram {
  private var ends: [NetmapPort] = []
  private var number: UInt32 = 0

  init(_ system: NetmapSystem) throws {
    let region = try system.memory.makePrivate(
      system.memory.options.privateSizes, name: "plain")
    for name in ["plain{1", "plain}1", "vale77:x", "vale77:y"] {
      var register = RegisterRequest()
      if name.hasPrefix("plain") { register.memoryID = region.id }
      register.transmitSlots = 32
      register.receiveSlots = 32
      ends.append(try system.register(PortRequest(name, RingSelection(.allNIC), register: register)))
    }
  }

  func close() {
    for end in ends { end.close() }
    ends = []
  }

  /// Sends a few frames each way.
  /// - Returns: what went wrong.
  func exchange(pass: () -> Void) -> String? {
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] where ends.count == 4 {
      guard let out = ends[from].transmitRings.first, let back = ends[to].receiveRings.first else { return "\(ends[from].adapter.name) has no rings" }
      var sent: [[UInt8]] = []
      for _ in 0..<3 {
        number &+= 1
        let frame = Self.frame(number)
        guard out.space > 0 else { return "\(ends[from].adapter.name) has no room for frame \(number)" }
        var slot = out.slot(out.head)
        unsafe out.withBuffer(slot.bufferIndex) { unsafe $0.copyBytes(from: frame) }
        slot.length = UInt16(frame.count)
        slot.flags = []
        out.setSlot(out.head, slot)
        out.advance()
        sent.append(frame)
      }
      ends[from].sync(.transmit)
      pass()
      ends[to].sync(.receive)
      for frame in sent {
        guard !back.isEmpty else { return "\(ends[to].adapter.name): a frame did not come" }
        let slot = back.slot(back.head)
        let came = unsafe back.withBuffer(slot.bufferIndex) { unsafe [UInt8]($0.prefix(Int(slot.length))) }
        if came != frame { return "\(ends[to].adapter.name): another frame came, of \(came.count) bytes" }
        back.advance()
      }
      ends[to].sync(.receive)
      ends[from].sync(.transmit)
      if !back.isEmpty { return "\(ends[to].adapter.name): more came than was sent" }
    }
    return nil
  }

  private static func frame(_ number: UInt32) -> [UInt8] {
    var bytes: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 7, 7, 0x88, 0xb5]
    for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: number >> shift)) }
    while bytes.count < 60 + Int(number % 500) { bytes.append(UInt8(truncatingIfNeeded: Int(number) &* 31 &+ bytes.count)) }
    return bytes
  }
}
