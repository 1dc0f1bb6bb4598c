// lo, epair and vlan.

import Ifnet
import Netisr
import Packet
import Testing
import Wire

@testable import Clones

private let cardAddress = MACAddress(0x52, 0x54, 0, 0, 0, 1)
private let station = MACAddress(0x52, 0x54, 0, 0, 9, 9)

@Suite struct CloneTests {
  @Test("lo0 is there, stays there, and gives both families back to themselves")
  func loopback() throws {
    let stack = try Stack()
    let lo = try #require(stack.table.interface(named: "lo0"))
    try lo.bringUp()
    #expect(lo.flags.isSuperset(of: [.loopback, .running, .up]) && lo.mtu == 16384 && lo.linkStatus == .up)
    #expect(refusal { () throws(InterfaceError) in try stack.table.destroy("lo0") } == .EINVAL)
    stack.send([0x45] + [UInt8](repeating: 0, count: 39), on: lo)
    stack.send([0x60] + [UInt8](repeating: 0, count: 39), on: lo)
    #expect(stack.take().map(\.proto) == [.ip, .ipv6])
    stack.send([0x15] + [UInt8](repeating: 0, count: 39), on: lo)
    #expect(stack.take().isEmpty && stack.drops(.unknownEtherType, lo) == 1)
    #expect(lo.counters.ipackets == 3 && lo.counters.opackets == 3)
    // A second one comes and goes.
    _ = try stack.make("lo")
    try stack.table.destroy("lo1")
    #expect(stack.table.interface(named: "lo1") == nil)
  }

  @Test("parameters are checked: unknown ones, wrong numbers and wrong addresses are EINVAL, and nothing is left behind")
  func parameters() throws {
    let stack = try Stack()
    for (name, parameters) in [
      ("lo", ["colour": "red"]), ("epair", ["mac": "ff:ff:ff:ff:ff:ff"]), ("vlan", [:]), ("vlan", ["parent": "em0", "tag": "4095"]),
      ("vlan", ["parent": "em0", "tag": "0"]), ("bridge", ["timeout": "-1"]), ("bridge", ["maxaddr": "0"]), ("tap", ["worker": "99"]),
    ] {
      #expect(refusal { () throws(InterfaceError) in try stack.table.create(name, parameters: parameters) } == .EINVAL, "\(name) \(parameters)")
    }
    #expect(refusal { () throws(InterfaceError) in try stack.table.create("vlan", parameters: ["parent": "em7", "tag": "5"]) } == .ENXIO)
    #expect(refusal { () throws(InterfaceError) in try stack.table.create("bridge", parameters: ["members": "em7"]) } == .ENXIO)
    #expect(stack.table.interfaces.map(\.name) == ["lo0"])
    #expect(try stack.table.clonerNames().names == ["lo", "tap", "epair", "vlan", "bridge"])
  }

  @Test("epair: frames come out of the other end in order, on the worker of that end's index")
  func pair() throws {
    let stack = try Stack(workers: 4)
    let a = try stack.make("epair", up: false)
    let b = try #require(stack.table.interface(named: "epair0b"))
    #expect(a.name == "epair0a")
    try a.bringUp()
    #expect(a.linkStatus == .down && b.linkStatus != .up)
    try b.bringUp()
    #expect(a.linkStatus == .up && b.linkStatus == .up)
    let (own, peer) = (try #require(a.linkAddress), try #require(b.linkAddress))
    for n in 0..<40 as Range<UInt8> { stack.send(frame(to: peer, from: own, [0x45, n]), on: a) }
    let got = stack.take()
    #expect(got.map { $0.bytes[1] } == Array(0..<40))
    #expect(got.allSatisfy { $0.interface == b.index.index && $0.worker == Int(b.index.index) % 4 })
    #expect(a.counters.opackets == 40 && b.counters.ipackets == 40 && stack.isConserved(b))
    // The other way, and a frame for somebody else.
    stack.send(frame(to: own, from: peer, [0x45, 1]), on: b)
    stack.send(frame(to: station, from: peer), on: b)
    #expect(stack.take().map(\.interface) == [a.index.index])
    #expect(stack.drops(.notForUs, a) == 1 && stack.isConserved(a))
    // Down: nothing crosses.
    try b.takeDown()
    #expect(a.linkStatus == .down)
    stack.send(frame(to: peer, from: own), on: a)
    #expect(stack.take().isEmpty && stack.isConserved(b))
  }

  @Test("epair: a full queue drops what is too much, with netisr's reason")
  func pairLimit() throws {
    let stack = try Stack(workers: 2, queueLimit: 8)
    let a = try stack.make("epair")
    let b = try #require(stack.table.interface(named: "epair0b"))
    try b.bringUp()
    let (own, peer) = (try #require(a.linkAddress), try #require(b.linkAddress))
    let sent = frame(to: peer, from: own)
    stack.netisr.worker(0).perform {
      for _ in 0..<20 { if let packet = stack.packet(sent) { a.subqueues[0].send(packet) } }
    }
    stack.netisr.settle()
    let got = stack.take().count
    #expect(got >= 8 && got < 20)
    #expect(UInt64(got) + stack.drops(.netisrQueueFull) == 20)
    #expect(stack.buffers.pool.available == stack.buffers.pool.capacity)
  }

  @Test("epair: destroying one end destroys both", arguments: ["epair0a", "epair0b"])
  func pairGoes(name: String) throws {
    let stack = try Stack(workers: 2)
    let a = try stack.make("epair")
    let b = try #require(stack.table.interface(named: "epair0b"))
    let sent = frame(to: try #require(b.linkAddress), from: try #require(a.linkAddress))
    // Frames on their way when the pair goes are dropped, and counted.
    stack.netisr.worker(0).perform { if let packet = stack.packet(sent) { a.subqueues[0].send(packet) } }
    try stack.table.destroy(name)
    stack.netisr.settle()
    #expect(stack.table.interfaces.map(\.name) == ["lo0"])
    #expect(stack.buffers.pool.available == stack.buffers.pool.capacity)
    let again = try stack.make("epair")
    #expect(again.name == "epair0a")
  }

  @Test("vlan: frames with the tag come in, in the frame or beside it; the tag goes in on the way out")
  func vlanFrames() throws {
    let stack = try Stack()
    let (em, card) = try stack.attach("em", cardAddress)
    let five = try stack.make("vlan", ["parent": "em0", "tag": "5"]), six = try stack.make("vlan", ["parent": "em0", "tag": "6"])
    #expect(five.linkAddress == cardAddress && five.mtu == 1500 && five.linkStatus == .up)
    let inner = frame(to: cardAddress, from: station, [0x45, 5])
    let tagged = Array(inner[..<12]) + [0x81, 0, 0xe0, 5] + Array(inner[12...])
    stack.receive(tagged, on: em)
    stack.receive(frame(to: cardAddress, from: station, [0x45, 6]), on: em, vlan: 6)
    stack.receive(frame(to: cardAddress, from: station, [0x45, 7]), on: em, vlan: 7)
    stack.receive(frame(to: cardAddress, from: station, [0x45, 1]), on: em)
    #expect(stack.take().map(\.interface) == [five.index.index, six.index.index, em.index.index])
    #expect(stack.drops(.unknownVLAN, em) == 1)
    for interface in [em, five, six] { check(stack.isConserved(interface)) }
    stack.send(frame(to: station, from: cardAddress, [0x45]), on: five)
    let out = card.take()
    #expect(out.count == 1 && Array(out[0][12..<16]) == [0x81, 0, 0, 5] && out[0][16...17] == [8, 0])
    #expect(five.counters.opackets == 1 && em.counters.opackets == 1)
    try stack.table.destroy("vlan0")
    stack.receive(tagged, on: em)
    #expect(stack.take().isEmpty && stack.drops(.unknownVLAN, em) == 2)
  }

  @Test("vlan: a card that inserts tags gets it beside the frame")
  func vlanHardware() throws {
    let stack = try Stack()
    let (_, card) = try stack.attach("ix", cardAddress, [.vlanMTU, .vlanHardwareTagging])
    let vlan = try stack.make("vlan", ["parent": "ix0", "tag": "4094"])
    let sent = frame(to: station, from: cardAddress)
    stack.send(sent, on: vlan)
    #expect(card.take() == [sent] && card.takeTags() == [4094])
  }

  @Test("vlan: rules for parent, tag and MTU")
  func vlanRules() throws {
    let stack = try Stack()
    let (em, _) = try stack.attach("em", cardAddress)
    _ = try stack.attach("sk", MACAddress(0x52, 0x54, 0, 0, 0, 2), [])
    let vlan = try stack.make("vlan", ["parent": "em0", "tag": "5"])
    #expect(refusal { () throws(InterfaceError) in try stack.table.create("vlan", parameters: ["parent": "em0", "tag": "5"]) } == .EEXIST)
    #expect(refusal { () throws(InterfaceError) in try stack.table.create("vlan", parameters: ["parent": "lo0", "tag": "5"]) } == .EPROTONOSUPPORT)
    // A card that counts the tag into its MTU leaves four bytes less.
    let small = try stack.make("vlan", ["parent": "sk0", "tag": "5"])
    #expect(small.mtu == 1496)
    func setMTU(_ interface: Interface, _ mtu: Int) -> InterfaceErrno? {
      refusal { () throws(InterfaceError) in try stack.table.perform(.on(interface.name, .setMTU(mtu)), by: .system) }
    }
    #expect(setMTU(small, 1497) == .EINVAL && setMTU(small, 1400) == nil && setMTU(vlan, 1500) == nil)
    // The parent's MTU goes below the VLAN's: the VLAN follows.
    #expect(setMTU(em, 1280) == nil && vlan.mtu == 1280)
  }

  @Test("vlan: the parent's address and link are followed; promiscuous mode and groups are asked of the parent and given back")
  func vlanFollows() throws {
    let stack = try Stack()
    let (em, card) = try stack.attach("em", cardAddress)
    let vlan = try stack.make("vlan", ["parent": "em0", "tag": "5"])
    let other = MACAddress(0x52, 0x54, 0, 0, 0, 0x77)
    try em.setLinkAddress(other.bytes)
    #expect(vlan.linkAddress == other)
    em.setLink(.down)
    #expect(vlan.linkStatus == .down)
    em.setLink(.up)
    try vlan.setPromiscuous(true)
    #expect(em.promiscuousCount == 1 && em.flags.contains(.promisc))
    let group = SocketAddress.link(vlan.index.index, MACAddress(1, 0, 0x5e, 0, 0, 5))
    try vlan.addMulticast(group)
    #expect(card.requests.withLock { $0.contains(.addMulticast(MACAddress(1, 0, 0x5e, 0, 0, 5))) })
    try vlan.deleteMulticast(group)
    #expect(card.requests.withLock { $0.contains(.deleteMulticast(MACAddress(1, 0, 0x5e, 0, 0, 5))) })
    // An own address is heard by a promiscuous parent alone.
    try vlan.setLinkAddress(station.bytes)
    #expect(em.promiscuousCount == 2)
    try stack.table.destroy("vlan0")
    #expect(em.promiscuousCount == 0 && !em.flags.contains(.promisc))
  }

  @Test("vlan: a parent that goes leaves it without one")
  func vlanOrphan() throws {
    let stack = try Stack()
    let (em, _) = try stack.attach("em", cardAddress)
    let vlan = try stack.make("vlan", ["parent": "em0", "tag": "5"])
    stack.table.detach(em)
    stack.netisr.settle()
    #expect(vlan.linkStatus == .down && !vlan.flags.contains(.running))
    stack.send(frame(to: station, from: cardAddress), on: vlan)
    #expect(refusal { () throws(InterfaceError) in try vlan.setLinkAddress(station.bytes) } == .ENXIO)
    try stack.table.destroy("vlan0")
    #expect(stack.buffers.pool.available == stack.buffers.pool.capacity)
  }
}
