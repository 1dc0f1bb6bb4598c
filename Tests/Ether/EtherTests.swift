import Ifnet
import Netisr
import Packet
import Platform
import Testing
import Wire

@testable import Ether

/// Remembers what a protocol was given.
final class Collector: Sendable {
  struct Item: Equatable {
    var bytes: [UInt8]
    var interface: UInt16
    var flags: UInt32
  }
  private let items = Guarded<[Item]>([])
  func take() -> [Item] {
    items.withLock { items in
      defer { items = [] }
      return items
    }
  }
  func register(_ ether: EtherLayer, type: UInt16, proto: NetisrProtocol) throws {
    try ether.netisr.register(
      NetisrHandler(name: "collector\(proto)", proto: proto, workersOnly: true) { [self, unowned ether] packet in
        let item = Item(bytes: packet.bytes(), interface: packet.interface.index, flags: packet.flags.rawValue)
        items.withLock { $0.append(item) }
        ether.deliver(packet)
      })
    ether.register(type: type, proto: proto)
  }
}

let own = MACAddress(2, 0, 0, 0, 0, 1)
let peer = MACAddress(2, 0, 0, 0, 0, 2)

func frame(_ target: MACAddress, _ source: MACAddress, _ type: UInt16, _ payload: [UInt8]) -> [UInt8] {
  Ethernet.header(to: target, from: source, type: type) + payload
}

@Suite struct EtherInputTests {
  let stack: Stack
  let em0: Interface
  let collector = Collector()

  init() throws {
    stack = try Stack()
    (em0, _) = try stack.attach("em", own)
    try collector.register(stack.ether, type: Ethernet.typeIPv4, proto: .ip)
  }

  @Test func ownAndBroadcastAndMulticastFramesArePassedWithoutHeader() {
    stack.receive(frame(own, peer, 0x800, [1, 2, 3]), on: em0)
    stack.receive(frame(.broadcast, peer, 0x800, [4]), on: em0)
    stack.receive(frame(MACAddress(1, 0, 0x5e, 0, 0, 1), peer, 0x800, [5]), on: em0)
    #expect(
      collector.take() == [
        .init(bytes: [1, 2, 3], interface: em0.index.index, flags: 0),
        .init(bytes: [4], interface: em0.index.index, flags: PacketFlags.linkBroadcast.rawValue),
        .init(bytes: [5], interface: em0.index.index, flags: PacketFlags.linkMulticast.rawValue),
      ])
    #expect(stack.ether.deliveries(of: em0.index) == 3)
    #expect(stack.netisr.drops.snapshot().isEmpty)
  }

  @Test(arguments: [
    (frame(peer, MACAddress(2, 0, 0, 0, 0, 3), 0x800, [1]), DropReason.notForUs),
    (frame(.broadcast, own, 0x800, [1]), .ownFrame),
    (frame(own, MACAddress(3, 0, 0, 0, 0, 2), 0x800, [1]), .badEthernetHeader),
    (frame(own, MACAddress(rawValue: 0), 0x800, [1]), .badEthernetHeader),
    (frame(own, peer, 0x88cc, [1]), .unknownEtherType),
    (frame(own, peer, 0x0040, [0xaa, 0xaa]), .unknownEtherType),
    (Array(frame(own, peer, 0x800, []).dropLast()), .tooShort),
    ([], .tooShort),
    (frame(own, peer, 0x8100, [0, 5, 8, 0]), .unknownVLAN),
    (frame(own, peer, 0x8100, [0, 5, 8]), .tooShort),
    (frame(own, peer, 0x8100, [0, 0, 0x81, 0, 0, 0, 8, 0]), .badEthernetHeader),
  ])
  func whatIsNotUsedIsDroppedWithAReason(bytes: [UInt8], reason: DropReason) {
    stack.receive(bytes, on: em0)
    #expect(collector.take() == [])
    #expect(stack.netisr.drops.snapshot().map(\.reason) == [reason])
    #expect(stack.buffers.pool.available == 512)
  }

  @Test func anInterfaceThatIsDownTakesNothing() {
    em0.setDriverFlags([], clear: .up)
    stack.receive(frame(own, peer, 0x800, [1]), on: em0)
    #expect(stack.drops(.interfaceDown) == 1)
  }

  @Test func aTagOfPriorityAloneIsNoVLAN() {
    stack.receive(frame(own, peer, 0x8100, [0xe0, 0, 8, 0, 7]), on: em0)
    stack.receive(frame(own, peer, 0x800, [8]), on: em0, vlan: 0xe000)
    #expect(collector.take().map(\.bytes) == [[7], [8]])
  }

  @Test func taggedFramesGoToTheirInterface() throws {
    let (vlan, _) = try stack.attach("vlan", own, type: .vlan)
    stack.ether.setVLAN(5, of: em0, to: vlan)
    stack.receive(frame(own, peer, 0x8100, [0x20, 5, 8, 0, 1, 2]), on: em0)
    stack.receive(frame(own, peer, 0x800, [3]), on: em0, vlan: 5)
    stack.receive(frame(own, peer, 0x800, [4]), on: em0, vlan: 6)
    #expect(
      collector.take() == [
        .init(bytes: [1, 2], interface: vlan.index.index, flags: 0), .init(bytes: [3], interface: vlan.index.index, flags: 0),
      ])
    #expect(vlan.counters.ipackets == 2)
    #expect(stack.ether.deliveries(of: em0.index) == 2)
    #expect(stack.drops(.unknownVLAN) == 1)
    stack.ether.setVLAN(5, of: em0, to: nil)
    stack.receive(frame(own, peer, 0x800, [3]), on: em0, vlan: 5)
    #expect(stack.drops(.unknownVLAN) == 2)
  }

  @Test func tagsNestThreeDeep() throws {
    let (outer, _) = try stack.attach("vlan", own, type: .vlan)
    stack.ether.setVLAN(5, of: em0, to: outer)
    stack.ether.setVLAN(6, of: outer, to: outer)
    let tags = { (n: Int) -> [UInt8] in (0..<n).flatMap { [0, $0 == 0 ? 5 : 6, 0x81, 0] as [UInt8] }.dropLast(2) + [8, 0, 9] }
    stack.receive(frame(own, peer, 0x8100, tags(3)), on: em0)
    #expect(collector.take().map(\.bytes) == [[9]])
    stack.receive(frame(own, peer, 0x8100, tags(4)), on: em0)
    #expect(collector.take() == [])
    #expect(stack.drops(.badEthernetHeader) == 1)
  }

  @Test func aBridgeSeesFramesFirstAndKeepsWhatItWants() {
    let seen = Guarded<[[UInt8]]>([])
    stack.ether.setBridge(em0) { packet, _ in
      let bytes = packet.bytes()
      seen.withLock { $0.append(bytes) }
      if bytes.last == 1 { return packet }
      return nil
    }
    stack.receive(frame(peer, MACAddress(2, 0, 0, 0, 0, 3), 0x800, [2]), on: em0)
    stack.receive(frame(own, peer, 0x800, [1]), on: em0)
    #expect(seen.withLock { $0.count } == 2)
    #expect(collector.take().map(\.bytes) == [[1]])
    #expect(stack.netisr.drops.snapshot().isEmpty)
  }

  @Test func aStaleIndexNamesNobody() {
    guard let packet = stack.buffers.pool.allocate() else {
      Issue.record("no buffer")
      return
    }
    packet.fill(with: frame(own, peer, 0x800, [1]))
    packet.interface = InterfaceIndex(em0.index.index, generation: em0.index.generation &+ 1)
    stack.netisr.dispatch(.ether, packet)
    stack.netisr.settle()
    #expect(stack.drops(.interfaceGone) == 1)
  }
}

@Suite struct EtherOutputTests {
  let stack: Stack
  let em0: Interface
  let driver: FakeDriver
  init() throws {
    stack = try Stack()
    (em0, driver) = try stack.attach("em", own)
  }

  func onWorker(_ body: @escaping @Sendable () -> Void) {
    stack.netisr.worker(0).perform(body)
    stack.netisr.settle()
  }

  @Test func sendPutsTheHeaderInFront() throws {
    let (ether, em0, pool) = (stack.ether, em0, stack.buffers)
    onWorker {
      guard let packet = pool.pool.allocate() else { return }
      packet.reserveHeadroom(64)
      packet.extend(2)
      packet.setByte(7, at: 0)
      packet.setByte(8, at: 1)
      ether.send(packet, to: peer, type: 0x86dd, on: em0)
    }
    #expect(driver.take() == [.init(bytes: frame(peer, own, 0x86dd, [7, 8]), vlan: nil)])
  }

  @Test func aFrameWithoutRoomGetsABufferInFront() throws {
    let (ether, em0, pool) = (stack.ether, em0, stack.buffers)
    onWorker {
      guard let packet = pool.pool.allocate() else { return }
      packet.fill(with: [7, 8])
      ether.send(packet, to: peer, type: 0x800, on: em0)
    }
    #expect(driver.take() == [.init(bytes: frame(peer, own, 0x800, [7, 8]), vlan: nil)])
    #expect(stack.buffers.pool.available == 512)
  }

  @Test func tagsGoIntoTheFrameOrTheRecord() throws {
    var options = InterfaceOptions("ix", unit: 0)
    options.linkAddress = own
    options.capabilities = .vlanHardwareTagging
    let (card, cardDriver) = try (stack.table.attach(options, driver: FakeDriver()), FakeDriver())
    _ = cardDriver
    let (ether, em0, pool) = (stack.ether, em0, stack.buffers)
    let results = Guarded<[[UInt8]]>([])
    onWorker {
      for parent in [em0, card] {
        guard let packet = pool.pool.allocate() else { return }
        packet.fill(with: frame(peer, own, 0x800, [9]))
        guard let tagged = ether.insertTag(0x2005, into: packet, for: parent) else { continue }
        var bytes = tagged.bytes()
        if tagged.flags.contains(.vlan) { bytes.append(UInt8(tagged.vlan & 0xff)) }
        results.withLock { [bytes] in $0.append(bytes) }
      }
    }
    #expect(
      results.withLock { $0 } == [
        Array(frame(peer, own, 0x8100, [0x20, 5, 8, 0, 9])), frame(peer, own, 0x800, [9, 5]),
      ])
  }

  @Test func groupsMapToStationGroups() throws {
    #expect(try stack.ether.resolveMulticast(.ipv4(IPv4Address(239, 129, 2, 3)), on: em0) == MACAddress(1, 0, 0x5e, 1, 2, 3))
    #expect(
      try stack.ether.resolveMulticast(.ipv6(.allNodes), on: em0) == MACAddress(0x33, 0x33, 0, 0, 0, 1))
    #expect(throws: InterfaceError.self) { try stack.ether.resolveMulticast(.ipv4(IPv4Address(10, 0, 0, 1)), on: em0) }
    #expect(throws: InterfaceError.self) { try stack.ether.resolveMulticast(.link(index: 1, bytes: [1]), on: em0) }
  }

  @Test func checksumsOverBuffersCutAnywhere() throws {
    let bytes: [UInt8] = (0..<61).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }
    let whole = InternetChecksum.sum(bytes[3..<58])
    for cut in 1..<60 {
      guard let a = stack.buffers.pool.allocate(), let b = stack.buffers.pool.allocate() else {
        Issue.record("no buffer")
        return
      }
      a.fill(with: Array(bytes[..<cut]))
      b.fill(with: Array(bytes[cut...]))
      a.append(b)
      check(a.checksum(from: 3, count: 55) == whole)
      check(a.pullUp(min(61, cut + 5)))
      check(a.bytes() == bytes)
      check(a.checksum(from: 3, count: 55) == whole)
      check(!a.pullUp(62))
    }
    #expect(stack.buffers.pool.available == 512)
  }
}
