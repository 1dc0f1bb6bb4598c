// Cards as interfaces: names, up and down, traffic, requests.

import DriverKit
import Ether
import Ifnet
import ModelKit
import Models
import Netisr
import NetmapCore
import Packet
import Platform
import Testing
import Wire

@testable import Attach

@Suite struct AttachTests {
  @Test("A card is an interface with its driver's name, its address and a queue for each ring", arguments: CardKind.allCases)
  func appears(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    #expect(rig.interface.name == "\(kind.rawValue)0")
    #expect(rig.interface.linkAddress == rig.attachment.driver.macAddress)
    #expect(rig.interface.subqueues.count == 1)
    #expect(!rig.interface.flags.contains(.running))
    #expect(rig.attachment.health == .stopped)
    #expect(rig.interface.capabilities.contains(.polling))
    #expect(rig.interface.subqueues[0].limits.length == 64 + 4)
    rig.attachment.detach()
    #expect(rig.card.isClosed)
    #expect(rig.table.interface(named: "\(kind.rawValue)0") == nil)
    #expect(rig.attachment.health != .running)
    // Twice is once.
    rig.attachment.detach()
  }

  @Test("The lowest free unit is taken; a name of one's own is kept, and a taken one is refused")
  func units() throws {
    let rig = try CardRig(.em)
    func another(_ name: String? = nil) throws -> CardAttachment {
      let card = InProcessCard(try E1000eModel(wire: TestWire()), name: "0000:04:00.0", stepsByItself: true)
      var options = AttachOptions()
      options.port.receiveDescriptors = 64
      options.port.transmitDescriptors = 64
      options.name = name
      let clock = CardClock()
      clock.card = card
      return try CardAttachment(card, driver: CardKind.em.driver, table: rig.table, memory: rig.memory, options: options, clock: clock)
    }
    let second = try another(), third = try another()
    #expect([second, third].map(\.interface.name) == ["em1", "em2"])
    second.detach()
    #expect(try another().interface.name == "em1")
    #expect(try another("wan").interface.name == "wan")
    #expect(throws: AttachError.self) { try CardAttachment(
      InProcessCard(try E1000eModel(wire: TestWire()), name: "x", stepsByItself: true), driver: CardKind.vtnet.driver,
      table: rig.table, memory: rig.memory) }
    third.detach()
  }

  @Test("Frames from the wire go up on the owner, marked with the interface", arguments: CardKind.allCases)
  func receives(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    let frames = (0..<200).map { CardRig.frame($0) }
    for (n, frame) in frames.enumerated() {
      rig.wire.send(frame)
      if n % 20 == 19 { rig.pass(300_000) }
    }
    rig.finish()
    #expect(rig.catcher.frames == frames)
    #expect(rig.catcher.caught.withLock { $0.allSatisfy { $0.worker == 0 } })
    #expect(rig.interface.counters.ipackets == 200)
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("Frames go out through the send queue, four of a worker with one tail write", arguments: CardKind.allCases)
  func sends(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    _ = rig.wire.takeSent()
    rig.send(0..<4)
    rig.finish()
    #expect(rig.wire.takeSent().map(\.bytes) == (0..<4).map { CardRig.frame($0) })
    #expect(rig.attachment.figures[0] == QueueFigures(sends: 1, frames: 4, fullRings: 0))
    for round in 0..<50 {
      rig.send((round * 10)..<(round * 10 + 10))
      rig.finish()
    }
    #expect(rig.wire.takeSent().map(\.bytes) == (0..<500).map { CardRig.frame($0) })
    #expect(rig.interface.counters.opackets == 504)
    // 10 packets are two full stages, and the rest in the rollup.
    #expect(rig.attachment.figures[0].sends == 151)
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("A full ring is oactive; what waits goes on in order when the card has sent", arguments: CardKind.allCases)
  func fullRing(_ kind: CardKind) throws {
    let rig = try CardRig(kind, options: { $0.queueLength = 1000 })
    try rig.up()
    _ = rig.wire.takeSent()
    rig.card.stepsByItself = false
    rig.send(0..<400)
    #expect(rig.interface.subqueues[0].isActive)
    #expect(rig.attachment.figures[0].fullRings > 0)
    rig.card.stepsByItself = true
    for _ in 0..<40 { rig.finish() }
    #expect(rig.wire.takeSent().map(\.bytes) == (0..<400).map { CardRig.frame($0) })
    #expect(!rig.interface.subqueues[0].isActive)
    #expect(rig.interface.counters.opackets == 400)
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("Each queue has its owner; a worker sends on its own queue", arguments: [CardKind.ix, .vtnet])
  func queuesAndWorkers(_ kind: CardKind) throws {
    let rig = try CardRig(kind, workers: 3, queues: 2)
    try rig.up()
    #expect(rig.interface.subqueues.map(\.owner) == [0, 1])
    _ = rig.wire.takeSent()
    for worker in 0..<3 { rig.send((worker * 8)..<(worker * 8 + 8), on: worker) }
    rig.finish()
    let sent = rig.wire.takeSent()
    #expect(Set(sent.filter { $0.bytes[15] / 8 == 1 }.map(\.queue)) == [1])
    #expect(Set(sent.filter { $0.bytes[15] / 8 != 1 }.map(\.queue)) == [0])
    #expect(sent.count == 24)
    // Worker 2 owns no queue: the owner of queue 0 sent its packets.
    #expect(rig.interface.subqueues[0].counters.kicks > 0)
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("Down stops the card and gives every buffer back; up starts it again", arguments: CardKind.allCases)
  func downAndUp(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    for round in 0..<3 {
      try rig.up()
      #expect(rig.interface.flags.contains(.running))
      rig.wire.send(CardRig.frame(round))
      rig.send(0..<4)
      rig.finish()
      #expect(rig.catcher.frames.count == round + 1)
      try rig.down()
      #expect(!rig.interface.flags.contains(.running))
      #expect(rig.interface.linkStatus == .unknown)
      #expect(rig.attachment.stackPool(ofQueue: 0).available == rig.attachment.stackPool(ofQueue: 0).capacity)
      rig.send(0..<2)
      rig.finish()
      #expect(rig.interface.subqueues[0].count == 2)
      rig.interface.purgeSubqueues()
    }
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("Promiscuous, all groups and single groups reach the card", arguments: CardKind.allCases)
  func filters(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    let group = MACAddress(0x01, 0, 0x5e, 1, 2, 3)
    func heard(_ target: [UInt8]) -> Bool {
      let before = rig.catcher.frames.count
      rig.wire.send(target + CardRig.frame(7).dropFirst(6))
      rig.finish()
      return rig.catcher.frames.count > before
    }
    let stranger: [UInt8] = [2, 9, 9, 9, 9, 9]
    #expect(!heard(stranger))
    #expect(!heard(group.bytes))
    try rig.request(.addMulticast(group))
    #expect(heard(group.bytes))
    try rig.request(.deleteMulticast(group))
    #expect(!heard(group.bytes))
    let flags = rig.interface.flags
    try rig.request(.setFlags(old: flags, new: flags.union(.allMulti)))
    #expect(heard(group.bytes))
    #expect(!heard(stranger))
    try rig.request(.setFlags(old: flags, new: flags.union(.promisc)))
    #expect(heard(stranger))
    try rig.request(.setFlags(old: flags, new: flags))
    #expect(!heard(stranger))
    rig.attachment.detach()
  }

  @Test("An address that the card refuses changes nothing")
  func refusedGroup() throws {
    let rig = try CardRig(.em)
    try rig.up()
    let before = rig.attachment.filter
    #expect(throws: InterfaceError.self) { try rig.request(.addMulticast(MACAddress(2, 0, 0, 0, 0, 1))) }
    #expect(rig.attachment.filter == before)
    #expect(throws: InterfaceError.self) { try rig.request(.setLinkAddress(MACAddress(1, 0, 0, 0, 0, 1))) }
    #expect(throws: InterfaceError.self) { try rig.request(.generic(name: "x", value: "y")) }
    try rig.request(.setLinkAddress(MACAddress(2, 0, 0, 0, 0, 0x55)))
    #expect(rig.attachment.driver.macAddress == MACAddress(2, 0, 0, 0, 0, 0x55))
    rig.attachment.detach()
  }

  @Test("A larger MTU lays the rings out anew; one that the card cannot do leaves all as it was", arguments: [CardKind.em, .ix])
  func mtu(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    try rig.request(.setMTU(9000))
    for _ in 0..<20 where rig.interface.linkStatus != .up { rig.pass(1_000_000_000) }
    #expect(rig.attachment.driver.maximumFrame == 9018)
    rig.wire.send(CardRig.frame(3, length: 8000))
    rig.finish()
    #expect(rig.catcher.frames.last?.count == 8000)
    #expect(throws: InterfaceError.self) { try rig.request(.setMTU(60000)) }
    for _ in 0..<20 where rig.interface.linkStatus != .up { rig.pass(1_000_000_000) }
    #expect(rig.attachment.driver.maximumFrame == 9018)
    #expect(rig.interface.flags.contains(.running))
    try rig.request(.setMTU(1500))
    rig.wire.send(CardRig.frame(4))
    rig.finish()
    #expect(rig.catcher.frames.last == CardRig.frame(4))
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("Capabilities: VLAN tags by the card or in the frame; checksums told or not", arguments: [CardKind.em, .ix])
  func capabilities(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    let all = rig.interface.capabilities
    let tagged = Array(CardRig.frame(1).prefix(12)) + [0x81, 0, 0, 5] + CardRig.frame(1).dropFirst(12)
    try rig.request(.setCapabilities(all))
    for _ in 0..<20 where rig.interface.linkStatus != .up { rig.pass(1_000_000_000) }
    rig.wire.send(tagged)
    rig.finish()
    #expect(rig.catcher.caught.withLock { $0.last?.flags.contains(.vlan) } == true)
    try rig.request(.setCapabilities(all.subtracting([.vlanHardwareTagging, .rxcsum])))
    for _ in 0..<20 where rig.interface.linkStatus != .up { rig.pass(1_000_000_000) }
    rig.wire.send(tagged)
    rig.finish()
    #expect(rig.catcher.frames.last == tagged)
    #expect(rig.catcher.caught.withLock { $0.last?.flags.isDisjoint(with: [.vlan, .ipChecksum, .tcpChecksum]) } == true)
    rig.attachment.detach()
  }

  @Test("Through Ethernet and netisr: a protocol's handler on a worker gets what came in, and what it sends goes out", arguments: CardKind.allCases)
  func throughNetisr(_ kind: CardKind) throws {
    let proto = NetisrProtocol.ip
    var layer: EtherLayer?
    let rig = try CardRig(kind, link: { table in
      let ether = try EtherLayer(table)
      ether.register(type: 0x88b5, proto: proto)
      layer = ether
      return ether
    })
    let ether = try #require(layer)
    let interface = rig.interface
    let heard = Guarded<[[UInt8]]>([])
    try rig.netisr.register(
      NetisrHandler(name: "echo", proto: proto, dispatch: .deferred) { packet in
        let bytes = packet.bytes()
        heard.withLock { $0.append(bytes) }
        ether.send(packet, to: MACAddress(2, 0, 0, 0, 0, 9), type: 0x88b5, on: interface)
      })
    try rig.up()
    _ = rig.wire.takeSent()
    for n in 0..<100 {
      rig.wire.send(CardRig.frame(n))
      if n % 10 == 9 { rig.finish() }
    }
    rig.finish()
    #expect(heard.withLock { $0 } == (0..<100).map { Array(CardRig.frame($0).dropFirst(14)) })
    let own = try #require(interface.linkAddress)
    #expect(rig.wire.takeSent().map(\.bytes) == (0..<100).map { [2, 0, 0, 0, 0, 9] + own.bytes + CardRig.frame($0).dropFirst(12) })
    #expect(interface.counters.ipackets == 100)
    #expect(interface.counters.opackets == 100)
    #expect(rig.netisr.drops.snapshot().isEmpty)
    rig.attachment.detach()
    rig.expectNothingHeld()
  }
}
