// Bridges: what is learned, flooded, passed on and kept.

import Ifnet
import Netisr
import Packet
import Testing
import Wire

@testable import Clones

private func address(_ last: UInt8) -> MACAddress { MACAddress(0x52, 0x54, 0, 0, 0, last) }
private let (alice, bob, carol) = (MACAddress(2, 0, 0, 0, 0, 0xa), MACAddress(2, 0, 0, 0, 0, 0xb), MACAddress(2, 0, 0, 0, 0, 0xc))

@Suite struct BridgeTests {
  /// A bridge over three cards.
  private struct Lab {
    let stack: Stack
    let bridge: Interface
    let driver: BridgeDriver
    let ports: [Interface]
    let cards: [FakeCard]

    init(workers: Int = 1, _ parameters: [String: String] = [:]) throws {
      stack = try Stack(workers: workers)
      var made: [(Interface, FakeCard)] = []
      for n in 0..<3 as Range<UInt8> { made.append(try stack.attach("em\(["a", "b", "c"][Int(n)])", address(n + 1))) }
      ports = made.map { $0.0 }
      cards = made.map { $0.1 }
      var all = parameters
      all["members"] = ports.map(\.name).joined(separator: ",")
      bridge = try stack.make("bridge", all)
      driver = try #require(bridge.driver as? BridgeDriver)
    }

    /// A station behind a port sends; which ports send it on.
    func send(_ port: Int, _ source: MACAddress, to target: MACAddress, _ payload: [UInt8] = [0x45]) -> [Int] {
      stack.receive(frame(to: target, from: source, payload), on: ports[port])
      return cards.indices.flatMap { n in cards[n].take().map { _ in n } }
    }
    func checkConservation() { for interface in ports + [bridge] { check(stack.isConserved(interface)) } }
  }

  @Test("unknown targets go everywhere else, known ones to their member, and a frame whose target heard it itself stops")
  func learning() throws {
    let lab = try Lab()
    #expect(lab.send(0, alice, to: bob) == [1, 2])
    #expect(lab.send(1, bob, to: alice) == [0])
    #expect(lab.send(0, alice, to: bob) == [1])
    #expect(lab.send(2, carol, to: alice) == [0])
    // Alice's neighbour on the same port.
    #expect(lab.send(0, MACAddress(2, 0, 0, 0, 0, 0xd), to: alice) == [])
    #expect(lab.stack.drops(.bridgeFiltered, lab.ports[0]) == 1)
    #expect(lab.driver.knownAddresses.map(\.member) == ["ema0", "emb0", "emc0", "ema0"])
    // Alice moves.
    #expect(lab.send(2, alice, to: bob) == [1])
    #expect(lab.send(1, bob, to: alice) == [2])
    #expect(lab.stack.take().isEmpty)
    #expect(lab.driver.statistics.forwarded == 5 && lab.driver.statistics.flooded == 1)
    #expect(lab.ports.allSatisfy { $0.promiscuousCount == 1 })
    lab.checkConservation()
  }

  @Test("broadcasts go to every other member and to this machine; its own address is kept, also a member's")
  func local() throws {
    let lab = try Lab()
    let own = try #require(lab.bridge.linkAddress)
    #expect(lab.send(0, alice, to: .broadcast) == [1, 2])
    #expect(lab.stack.take().map(\.interface) == [lab.bridge.index.index])
    #expect(lab.send(0, alice, to: own) == [])
    #expect(lab.stack.take().map(\.interface) == [lab.bridge.index.index])
    #expect(lab.send(0, alice, to: address(1)) == [])
    #expect(lab.stack.take().map(\.interface) == [lab.ports[0].index.index])
    #expect(lab.send(0, alice, to: address(2)) == [])
    #expect(lab.stack.take().map(\.interface) == [lab.ports[1].index.index])
    // A link-local group stays on its link.
    #expect(lab.send(0, alice, to: MACAddress(1, 0x80, 0xc2, 0, 0, 0xe)) == [])
    #expect(lab.stack.drops(.bridgeFiltered, lab.ports[0]) == 1)
    lab.checkConservation()
  }

  @Test("this machine sends through the bridge: to a known station's member, else to all")
  func output() throws {
    let lab = try Lab()
    let own = try #require(lab.bridge.linkAddress)
    func sent() -> [Int] { lab.cards.indices.flatMap { n in lab.cards[n].take().map { _ in n } } }
    lab.stack.send(frame(to: alice, from: own), on: lab.bridge)
    #expect(sent() == [0, 1, 2])
    _ = lab.send(1, alice, to: own)
    lab.stack.send(frame(to: alice, from: own), on: lab.bridge)
    #expect(sent() == [1])
    lab.stack.send(frame(to: .broadcast, from: own), on: lab.bridge)
    #expect(sent() == [0, 1, 2])
    #expect(lab.bridge.counters.opackets == 3)
  }

  @Test("a frame with a source of our own means a loop, and is dropped")
  func loop() throws {
    let lab = try Lab()
    #expect(lab.send(0, address(2), to: bob) == [])
    #expect(lab.send(0, try #require(lab.bridge.linkAddress), to: .broadcast) == [])
    #expect(lab.stack.drops(.bridgeLoop, lab.ports[0]) == 2)
    #expect(lab.driver.knownAddresses.isEmpty)
    lab.checkConservation()
  }

  @Test("private members hear nothing from each other; one without discover gets no unknown targets; one without learn teaches nothing")
  func flags() throws {
    let lab = try Lab()
    func ask(_ name: String, _ value: String) throws(InterfaceError) {
      try lab.driver.handle(.generic(name: name, value: value), on: lab.bridge)
    }
    try ask("private", "ema0")
    try ask("private", "emb0")
    #expect(lab.send(0, alice, to: .broadcast) == [2])
    _ = lab.send(1, bob, to: .broadcast)
    #expect(lab.send(0, alice, to: bob) == [])
    try ask("-private", "emb0")
    #expect(lab.send(0, alice, to: bob) == [1])
    try ask("-discover", "emc0")
    #expect(lab.send(0, alice, to: carol) == [1])
    #expect(lab.send(0, alice, to: .broadcast) == [1, 2])
    try ask("-learn", "emc0")
    _ = lab.send(2, carol, to: .broadcast)
    #expect(!lab.driver.knownAddresses.contains { $0.address == carol })
    #expect(refusal { () throws(InterfaceError) in try ask("private", "lo0") } == .ENOENT)
    #expect(refusal { () throws(InterfaceError) in try ask("sticky", "ema0") } == .EOPNOTSUPP)
    _ = lab.stack.take()
    lab.checkConservation()
  }

  @Test("stations are forgotten after 1200 seconds without a frame; static ones are not, and cannot be claimed elsewhere")
  func expiry() throws {
    let lab = try Lab()
    try lab.driver.addStatic(bob, on: lab.ports[1])
    _ = lab.send(0, alice, to: bob)
    #expect(lab.driver.knownAddresses.map(\.expires) == [1200, nil])
    func advance(_ seconds: UInt64) {
      lab.stack.clock.advance(seconds * 1_000_000_000)
      lab.stack.netisr.settle()
    }
    advance(1000)
    _ = lab.send(0, alice, to: bob)
    advance(1199)
    #expect(lab.send(1, bob, to: alice) == [0])
    advance(1)
    #expect(lab.driver.knownAddresses.map(\.address) == [bob])
    #expect(lab.send(1, bob, to: alice) == [0, 2])
    // Somebody else claims bob's address.
    #expect(lab.send(2, bob, to: alice) == [])
    #expect(lab.stack.drops(.bridgeFiltered, lab.ports[2]) == 1)
    lab.driver.flush()
    #expect(lab.driver.knownAddresses.map(\.address) == [bob])
    lab.driver.flush(statics: true)
    #expect(lab.driver.knownAddresses.isEmpty)
    #expect(refusal { () throws(InterfaceError) in try lab.driver.forget(bob) } == .ENOENT)
  }

  @Test("the table of stations has a limit: what is not learned is flooded, and counted")
  func limit() throws {
    let lab = try Lab(["maxaddr": "10"])
    for n in 0..<30 as Range<UInt8> { _ = lab.send(0, MACAddress(2, 0, 0, 0, 1, n), to: .broadcast) }
    #expect(lab.driver.knownAddresses.count == 10 && lab.driver.statistics.unlearned == 20)
    #expect(lab.send(1, bob, to: MACAddress(2, 0, 0, 0, 1, 3)) == [0])
    #expect(lab.send(1, bob, to: MACAddress(2, 0, 0, 0, 1, 29)) == [0, 2])
  }

  @Test("rules for members: Ethernet, once, in one bridge, one MTU; a member that is down joins all the same")
  func members() throws {
    let lab = try Lab()
    let (big, _) = try lab.stack.attach("ix", address(9), mtu: 9000)
    let (down, _) = try lab.stack.attach("sk", address(8), up: false)
    func add(_ interface: Interface, _ driver: BridgeDriver) -> InterfaceErrno? {
      refusal { () throws(InterfaceError) in try driver.add(interface) }
    }
    #expect(add(big, lab.driver) == .EINVAL && add(lab.ports[0], lab.driver) == .EEXIST && add(lab.bridge, lab.driver) == .EINVAL)
    #expect(add(try #require(lab.stack.table.interface(named: "lo0")), lab.driver) == .EINVAL)
    let other = try lab.stack.make("bridge")
    let second = try #require(other.driver as? BridgeDriver)
    #expect(add(lab.ports[0], second) == .EBUSY && add(lab.bridge, second) == .EINVAL)
    // The first member gives the bridge its MTU.
    #expect(add(big, second) == nil && other.mtu == 9000)
    #expect(add(down, lab.driver) == nil && down.promiscuousCount == 0)
    try down.bringUp()
    #expect(down.promiscuousCount == 1)
    try lab.driver.remove(down)
    #expect(down.promiscuousCount == 0)
    #expect(refusal { () throws(InterfaceError) in try lab.driver.remove(down) } == .ENOENT)
    #expect(refusal { () throws(InterfaceError) in try lab.stack.table.perform(.on("bridge0", .setMTU(1400)), by: .system) } == .EINVAL)
  }

  @Test("a member that goes takes its stations along; a bridge that goes lets its members be")
  func going() throws {
    let lab = try Lab(workers: 2)
    _ = lab.send(0, alice, to: .broadcast)
    _ = lab.send(1, bob, to: .broadcast)
    lab.stack.table.detach(lab.ports[0])
    lab.stack.netisr.settle()
    #expect(lab.driver.members.map(\.interface.name) == ["emb0", "emc0"] && lab.driver.knownAddresses.map(\.address) == [bob])
    #expect(lab.send(1, bob, to: alice) == [2])
    try lab.stack.table.destroy("bridge0")
    lab.stack.netisr.settle()
    #expect(lab.ports[1].promiscuousCount == 0)
    _ = lab.stack.take()
    // An ordinary interface again.
    #expect(lab.send(1, bob, to: address(2)) == [])
    #expect(lab.stack.take().map(\.interface) == [lab.ports[1].index.index])
    #expect(lab.stack.buffers.pool.available == lab.stack.buffers.pool.capacity)
  }

  @Test("a tag beside a frame goes into it for a member whose card inserts none")
  func tags() throws {
    let lab = try Lab()
    lab.stack.receive(frame(to: bob, from: alice), on: lab.ports[0], vlan: 5)
    let sent = lab.cards[1].take()
    #expect(sent.count == 1 && Array(sent[0][12..<16]) == [0x81, 0, 0, 5])
  }

  @Test("what ifconfig shows: members with their flags, stations with their seconds")
  func shown() throws {
    let lab = try Lab()
    _ = lab.send(0, alice, to: .broadcast)
    guard case .text(let status) = try lab.driver.answer(.status, on: lab.bridge),
      case .text(let addresses) = try lab.driver.answer(.generic(name: "addresses"), on: lab.bridge)
    else {
      Issue.record("no text")
      return
    }
    #expect(status.contains("member: ema0 flags=3<LEARNING,DISCOVER>") && status.contains("maxaddr 2000 timeout 1200"))
    #expect(addresses == "02:00:00:00:00:0a ema0 1200 DYNAMIC")
  }
}
