import CRingway
import Control
import ControlClient
import Ifnet
import Netisr
import Packet
import Platform
import Testing
import Wire

@testable import Ringway

/// What is below a test's interface: takes everything, sends nothing.
private final class NullDriver: InterfaceDriver {
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    if case .setMTU(let mtu) = request, mtu > 9000 { throw InterfaceError(.EINVAL, "\(interface.name) takes 9000 bytes at most") }
  }
  func start(_ subqueue: Subqueue) {}
}

/// A stack behind a control server, without cards; clients come over socket pairs.
private final class Served {
  let stack: Stack
  let server: ControlServer
  static let root = ControlPeer(pid: 1, uid: 0, groups: [0])
  static let nobody = ControlPeer(pid: 2, uid: 65534, groups: [65534])
  static let member = ControlPeer(pid: 3, uid: 1000, groups: [1000, 77])

  init(clients: Int = 64, path: String? = nil) throws {
    var options = StackOptions()
    options.memory.kind = .normal
    options.memory.buffers = 1024
    options.packetsPerWorker = 128
    stack = try Stack(options)
    try stack.start()
    var serving = ControlServerOptions()
    serving.maximumClients = clients
    serving.group = 77
    serving.path = path
    serving.version = "test"
    server = try ControlServer(serving)
    stack.serve(on: server)
    if path != nil { serving.group = nil }
    try server.start()
  }

  func interface(_ name: String, unit: Int) throws -> Interface {
    var options = InterfaceOptions(name, unit: unit)
    options.linkAddress = MACAddress(2, 0, 0, 0, 0, UInt8(unit + 1))
    return try stack.interfaces.attach(options, driver: NullDriver())
  }

  func socket(as peer: ControlPeer) -> Int32 {
    var ends: [Int32] = [-1, -1]
    // SAFETY: an array of two.
    let made = unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
    #expect(made == 0)
    server.adopt(OwnedDescriptor(taking: ends[1]), peer: peer)
    return ends[0]
  }
  func client(as peer: ControlPeer = Served.root) throws -> ControlClient {
    try ControlClient(taking: OwnedDescriptor(taking: socket(as: peer)), name: "test")
  }
  deinit {
    server.stop()
    _ = stack.stop()
  }
}

@Suite struct ControlServerTests {
  private func errno<T>(_ body: () throws -> T) -> String? {
    do { _ = try body() } catch { return (error as? ControlError)?.errno }
    return nil
  }

  @Test("Interfaces are listed, shown and changed")
  func interfaces() throws {
    let served = try Served()
    _ = try served.interface("em", unit: 0)
    let client = try served.client()
    #expect(client.hello.privileged && client.hello.calls.contains(InterfaceSet.call))
    #expect(try client.call(InterfaceList()).map(\.name) == ["lo0", "em0"])
    #expect(try client.call(InterfaceCloners()).sorted() == ["bridge", "epair", "lo", "tap", "vlan"])
    let before = try client.call(InterfaceGet("em0"))
    #expect(before.mtu == 1500 && before.ether == "02:00:00:00:00:01" && before.type == "ethernet" && !before.flags.contains("UP"))
    let after = try client.call(
      InterfaceSet("em0", [
        .mtu(bytes: 9000), .addAddress(address: "198.18.0.1/24", broadcast: nil, destination: nil),
        .flags(set: ["UP"], clear: []), .description(text: "left"), .addGroup(name: "lan"),
      ]))
    #expect(after.mtu == 9000 && after.flags.contains("UP") && after.description == "left" && after.groups.contains("lan"))
    #expect(after.addresses.contains { $0.address == "198.18.0.1" && $0.prefixLength == 24 && $0.broadcast == "198.18.0.255" })
    #expect(try client.call(GroupList("lan")) == ["em0"])
    #expect(try client.call(InterfaceSet("em0", [.name(new: "left0")])).name == "left0")
    #expect(errno { try client.call(InterfaceGet("em0")) } == "ENXIO")
    #expect(errno { try client.call(InterfaceSet("left0", [.mtu(bytes: 71)])) } == "EINVAL")
    #expect(errno { try client.call(InterfaceSet("left0", [.mtu(bytes: 9001)])) } == "EINVAL")
    #expect(errno { try client.call(InterfaceSet("left0", [.flags(set: ["UPP"], clear: [])])) } == "EINVAL")
    #expect(errno { try client.call(InterfaceSet("left0", [.addAddress(address: "300.1.1.1/24", broadcast: nil, destination: nil)])) } == "EINVAL")
  }

  @Test("Case 33, 34 over the socket: a missing interface is ENXIO, a known one EPERM, for whoever is not privileged")
  func privileges() throws {
    let served = try Served()
    _ = try served.interface("em", unit: 0)
    let nobody = try served.client(as: Served.nobody)
    #expect(!nobody.hello.privileged)
    #expect(errno { try nobody.call(InterfaceSet("em7", [.mtu(bytes: 1000)])) } == "ENXIO")
    #expect(errno { try nobody.call(InterfaceSet("em0", [.mtu(bytes: 1000)])) } == "EPERM")
    #expect(errno { try nobody.call(InterfaceCreate("nothing9")) } == "EPERM")
    #expect(errno { try nobody.call(RouteAdd(RouteTarget("default", gateway: "198.18.0.1"))) } == "EPERM")
    #expect(errno { try nobody.call(SysctlWrite("net.isr.dispatch", "direct")) } == "EPERM")
    #expect(errno { try nobody.call(CaptureStart()) } == "EPERM")
    #expect(try nobody.call(InterfaceGet("em0")).mtu == 1500)
    // A member of the configured group may.
    let member = try served.client(as: Served.member)
    #expect(member.hello.privileged)
    #expect(try member.call(InterfaceSet("em0", [.mtu(bytes: 1000)])).mtu == 1000)
  }

  @Test("The kernel says who is at the other end")
  func peer() throws {
    var ends: [Int32] = [-1, -1]
    // SAFETY: an array of two.
    #expect(unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    let (a, b) = (LocalSocket(taking: OwnedDescriptor(taking: ends[0])), LocalSocket(taking: OwnedDescriptor(taking: ends[1])))
    let peer = try #require(ControlPeer(of: b.descriptor))
    #expect(peer.uid == getuid() && peer.pid == getpid() && peer.groups.first == getgid())
    withExtendedLifetime(a) {}
    #expect(ControlPeer(of: -1) == nil)
  }

  @Test("Interfaces are made, wired and destroyed over the socket")
  func clones() throws {
    let served = try Served()
    let client = try served.client()
    #expect(try client.call(InterfaceCreate("epair")).name == "epair0a")
    #expect(try client.call(InterfaceList()).map(\.name).contains("epair0b"))
    let vlan = try client.call(InterfaceCreate("vlan7", options: ["parent": "epair0a", "tag": "7"])).name
    #expect(try client.call(InterfaceGet(vlan)).type == "vlan")
    #expect(errno { try client.call(InterfaceCreate("vlan7", options: ["parent": "epair0a", "tag": "8"])) } == "EEXIST")
    #expect(errno { try client.call(InterfaceCreate("vlan8", options: ["tag": "8"])) } == "EINVAL")
    #expect(errno { try client.call(InterfaceCreate("nothing0")) } == "EINVAL")
    _ = try client.call(InterfaceDestroy("vlan7"))
    _ = try client.call(InterfaceDestroy("epair0a"))
    #expect(try client.call(InterfaceList()).map(\.name) == ["lo0"])
    #expect(errno { try client.call(InterfaceDestroy("vlan7")) } == "ENXIO")
  }

  @Test("Routes come and go")
  func routes() throws {
    let served = try Served()
    _ = try served.interface("em", unit: 0)
    let client = try served.client()
    _ = try client.call(InterfaceSet("em0", [.addAddress(address: "198.18.0.1/24", broadcast: nil, destination: nil), .flags(set: ["UP"], clear: [])]))
    let added = try client.call(RouteAdd(RouteTarget("198.19.0.0/16", gateway: "198.18.0.9")))
    #expect(added.interface == "em0" && added.flags.contains("G") && added.flags.contains("S"))
    #expect(errno { try client.call(RouteAdd(RouteTarget("198.19.0.0/16", gateway: "198.18.0.9"))) } == "EEXIST")
    #expect(errno { try client.call(RouteAdd(RouteTarget("198.19.0.0/17", gateway: "192.0.2.1"))) } == "ENETUNREACH")
    #expect(errno { try client.call(RouteAdd(RouteTarget("2001:2::/48", gateway: "198.18.0.9"))) } == "EINVAL")
    #expect(errno { try client.call(RouteAdd(RouteTarget("nonsense", gateway: "198.18.0.9"))) } == "EINVAL")
    #expect(try client.call(RouteGet("198.19.7.7")).gateway == "198.18.0.9")
    #expect(try client.call(RouteChange(RouteTarget("198.19.0.0/16", gateway: "198.18.0.8"))).gateway == "198.18.0.8")
    #expect(errno { try client.call(RouteChange(RouteTarget("198.17.0.0/16", gateway: "198.18.0.8"))) } == "ESRCH")
    #expect(try client.call(RouteList(family: "inet")).contains { $0.prefix == "198.19.0.0/16" })
    #expect(try client.call(RouteFlush()).count == 1)
    #expect(errno { try client.call(RouteDelete("198.19.0.0/16")) } == "ESRCH")
  }

  @Test("Controls, statistics, drops and the tables of netisr are answered")
  func tables() throws {
    let served = try Served()
    _ = try served.interface("em", unit: 0)
    let client = try served.client()
    #expect(try client.call(SysctlList("net.inet.ip.ttl")).first?.integer == 64)
    #expect(try client.call(SysctlWrite("net.inet.ip.ttl", "32")) == SysctlWritten(old: "64", new: "32"))
    #expect(errno { try client.call(SysctlWrite("net.inet.ip.ttl", "0")) } == "EINVAL")
    #expect(errno { try client.call(SysctlList("no.such")) } == "ENOENT")
    #expect(try client.call(Statistics()).contains { $0.proto == "ip" && !$0.counters.isEmpty })
    #expect(errno { try client.call(Statistics(proto: "x25")) } == "ENOENT")
    #expect(try client.call(Drops()).isEmpty)
    #expect(try client.call(NetisrTables()).configuration.first?.current == "1")
    #expect(try client.call(TopSample()).interfaces.map(\.name) == ["lo0", "em0"])
    #expect(try client.call(NeighbourList()).isEmpty)
    #expect(errno { try client.call(DriverStatistics("em0")) } == "EOPNOTSUPP")
  }

  @Test("Subscribers see changes until they unsubscribe; a vanished client's subscription ends")
  func events() throws {
    let served = try Served()
    _ = try served.interface("em", unit: 0)
    let watcher = try served.client(as: Served.nobody)
    let subscription = try watcher.call(Subscribe([.interface], interface: "em0")).subscription
    let client = try served.client()
    _ = try client.call(InterfaceSet("em0", [.mtu(bytes: 1200)]))
    var seen: [String] = []
    while let (id, event) = try watcher.nextEvent(milliseconds: 500) {
      #expect(id == subscription)
      if case .change(let change) = event {
        seen.append(change.event)
        if change.event == "mtu" { break }
      }
    }
    #expect(seen.contains("mtu"))
    #expect(try watcher.call(Unsubscribe(subscription)) == ControlDone())
    #expect(errno { try watcher.call(Unsubscribe(subscription)) } == "ENOENT")
  }

  @Test("A reader that does not read loses its subscription with a notice; nobody waits for it")
  func slowReader() throws {
    let served = try Served()
    let watcher = try served.client()
    let subscription = try watcher.call(Subscribe([.daemon])).subscription
    let text = String(repeating: "x", count: 4000)
    for _ in 0..<20_000 { served.server.publish(.daemon) { ChangeRecord(time: 0, category: .daemon, event: "noise", detail: text) } }
    var ended: String?
    var lost: UInt64 = 0
    while ended == nil, let (id, event) = try watcher.nextEvent(milliseconds: 5000) {
      #expect(id == subscription)
      if case .lost(let count) = event { lost = count }
      if case .end(let reason) = event { ended = reason }
    }
    #expect(ended == "slow reader" && lost > 0)
    #expect(try watcher.call(InterfaceList()).map(\.name) == ["lo0"])
  }

  @Test("Hello comes first; wrong lines are answered, too long ones end the connection; clients are limited")
  func manners() throws {
    let served = try Served(clients: 2)
    let first = LocalSocket(taking: OwnedDescriptor(taking: served.socket(as: Served.root)))
    let deadline = MonotonicClock().now() + 5_000_000_000
    func answer(_ line: String) throws -> ControlMessage? {
      try first.send(Array(line.utf8), deadline: deadline)
      var lines = ControlLines(limit: Control.replyLimit)
      while let more = try first.receive(deadline: deadline) {
        lines.append(more)
        if let line = try lines.next() { return try ControlMessage(line: line) }
      }
      return nil
    }
    func errno(_ message: ControlMessage?) -> String? { if case .failure(_, let error) = message { error.errno } else { nil } }
    #expect(errno(try answer("{\"id\":1,\"call\":\"interface.list\"}\n")) == "EPROTO")
    #expect(errno(try answer("nonsense\n")) == "EBADMSG")
    #expect(errno(try answer("{\"id\":2,\"call\":\"hello\",\"arguments\":{\"versions\":[9],\"client\":\"t\"}}\n")) == "EPROTONOSUPPORT")
    #expect(errno(try answer("{\"id\":2,\"call\":\"hello\",\"arguments\":{\"versions\":[1],\"client\":\"t\"}}\n")) == nil)
    #expect(errno(try answer("{\"id\":3,\"call\":\"no.such\"}\n")) == "ENOSYS")
    #expect(errno(try answer("{\"id\":3,\"call\":\"interface.get\",\"arguments\":{}}\n")) == "EINVAL")
    let second = try served.client()
    #expect(self.errno { try served.client() } == "EBUSY")
    withExtendedLifetime(second) {}
    #expect(errno(try answer(String(repeating: "x", count: Control.requestLimit + 2) + "\n")) == "EMSGSIZE")
    #expect(throws: ControlError.self) { while try first.receive(deadline: deadline) != nil {} }
  }

  @Test("Random bytes never end the server")
  func random() throws {
    let served = try Served()
    for _ in 0..<200 {
      let socket = LocalSocket(taking: OwnedDescriptor(taking: served.socket(as: Served.nobody)))
      let bytes = (0..<Int.random(in: 1..<400)).map { _ in UInt8.random(in: 0...255) }
      try? socket.send(bytes + [0x0a], deadline: MonotonicClock().now() + 1_000_000_000)
    }
    #expect(try served.client().call(InterfaceList()).map(\.name) == ["lo0"])
  }

  @Test("A second server at the same path is EADDRINUSE; a stale socket is replaced; another file is left alone")
  func path() throws {
    let path = "/tmp/ringway-control-test-\(getpid())"
    defer { for suffix in ["", ".lock"] { _ = unsafe unlink(path + suffix) } }
    var options = ControlServerOptions()
    options.path = path
    let first = try ControlServer(options)
    try first.start()
    let second = try ControlServer(options)
    #expect(errno { try second.start() } == "EADDRINUSE")
    #expect(try ControlClient(path: path, name: "test").hello.program == "ringwayd")
    first.stop()
    #expect(!Files.exists(path))
    // What a killed daemon leaves behind.
    let stale = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    #expect(unsafe try LocalSocket.withAddress(path) { unsafe bind(stale, $0, $1) } == 0)
    _ = close(stale)
    try second.start()
    #expect(try ControlClient(path: path, name: "test").hello.program == "ringwayd")
    second.stop()
    try Files.write("mine", to: path, create: true)
    #expect(errno { try ControlServer(options).start() } == "EEXIST")
    #expect(try Files.read(path) == "mine")
  }

  @Test("Accounts come from the machine's files")
  func accounts() throws {
    let path = "/tmp/ringway-accounts-\(getpid())"
    defer { _ = unsafe unlink(path) }
    try Files.write("wheel:x:10:root,anna\nringway:x:77:anna\nbroken\n", to: path, create: true)
    #expect(Accounts.group("ringway", file: path) == 77)
    #expect(Accounts.group("12", file: path) == 12)
    #expect(Accounts.group("none", file: path) == nil)
    #expect(Accounts.groups(of: "anna", file: path) == [10, 77])
    #expect(Accounts.user("root")?.uid == 0)
  }

  @Test("Addresses and prefixes as people write them")
  func texts() {
    #expect(AddressText("198.18.0.1/24")?.length == 24)
    #expect(AddressText("2001:2::1/64")?.length == 64)
    for wrong in ["198.18.0.1/33", "1.2.3", "/24", "2001:2::1/129", "198.18.0.1/+4", "198.18.0.1/", "a/b/c", ""] { #expect(AddressText(wrong) == nil) }
    #expect(PrefixText("default", like: .ipv6) == .ipv6(.init(.any, 0)))
    #expect(PrefixText("198.18.0.7") == .ipv4(.init(IPv4Address(198, 18, 0, 7), 32)))
    for (flag, name) in InterfaceFlags.words { #expect(InterfaceFlags(named: name.lowercased()) == flag) }
  }
}
