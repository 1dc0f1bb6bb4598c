// The daemon's netmap socket: its table in the configuration, its life, what is told of it.

import CRingway
import Control
import Glibc
import NetmapAPI
import Platform
import Testing

@testable import ringwayd

@Suite struct NetmapConfigurationTests {
  func read(_ text: String) throws -> Configuration { try ConfigurationFile.read(text, file: "test.toml") }

  @Test("Every key of [netmap] arrives, and becomes what the server and the memory are made with")
  func keys() throws {
    let made = try read("""
      [netmap]
      enabled = false
      socket = "/tmp/n"
      mode = "0600"
      group = "net"
      clients = 7
      clients-per-user = 3
      interfaces = 10
      rings = 20
      ring-size = "8K"
      buffers = 1000
      buffer-size = 4096
      private-interfaces = 2
      private-rings = 4
      private-buffers = 500
      regions = 9
      region-bytes = "1G"
      spin = 5
      """)
    #expect(made.netmap == NetmapSection(
      enabled: false, socket: "/tmp/n", mode: 0o600, group: "net", clients: 7, clientsPerUser: 3, interfaces: 10, rings: 20, ringSize: 8192,
      buffers: 1000, bufferSize: 4096, privateInterfaces: 2, privateRings: 4, privateBuffers: 500, regions: 9, regionBytes: 1 << 30, spin: 5))
    let stack = made.stackOptions(cards: 0).netmap
    #expect(stack.sizes.buffers == 1000 && stack.sizes.bufferSize == 4096 && stack.sizes.rings == 20 && stack.sizes.ringSize == 8192)
    #expect(stack.privateSizes.buffers == 500 && stack.privateSizes.bufferSize == 4096 && stack.mostRegions == 9 && stack.mostBytes == 1 << 30)
    let server = made.netmapServerOptions(group: 12)
    #expect(server.path == "/tmp/n" && server.mode == 0o600 && server.group == 12 && server.maximumClients == 7)
    #expect(server.maximumPerUser == 3 && server.spinMicroseconds == 5)
  }

  @Test("Without a path the socket lies beside the control socket")
  func path() {
    #expect(NetmapSection().path(beside: "/run/ringway/control") == "/run/ringway/netmap.sock")
    #expect(NetmapSection().path(beside: "/control") == "/netmap.sock")
    #expect(NetmapSection(socket: "/a/b").path(beside: "/control") == "/a/b")
  }

  @Test("Looking longer is a step; everything else waits for a new start")
  func reload() throws {
    func diff(_ text: String) throws -> ConfigurationDiff { ConfigurationDiff(from: try read(""), to: try read(text), names: [:]) }
    #expect(try diff("[netmap]\nspin = 100").steps == [.sysctl(name: "netmap.spin_us", value: "100")])
    #expect(try diff("[netmap]\nspin = 100").warnings.isEmpty)
    let other = try diff("[netmap]\nclients = 5")
    #expect(other.steps.isEmpty && other.warnings.count == 1 && other.warnings[0].hasPrefix("[netmap]"))
    #expect(try diff("[netmap]\nenabled = false\nspin = 3").steps.isEmpty)
  }
}

@Suite(.serialized) struct NetmapDaemonTests {
  /// Asks the daemon what it knows of an interface.
  func query(_ path: String, _ name: String) -> (errno: Int32, reply: PortQueryReply?)? {
    let socket = OwnedDescriptor(taking: Glibc.socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0))
    guard unsafe rw_connect_path(socket.raw, path) == 0 else { return nil }
    var ends: [Int32] = [-1, -1]
    guard unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else { return nil }
    let mine = OwnedDescriptor(taking: ends[0])
    do {
      let theirs = OwnedDescriptor(taking: ends[1])
      let request = NetmapRequestHead(.query).packet(PortQuery(name: name).encoded()), list = [theirs.raw]
      guard unsafe request.withUnsafeBytes({ unsafe rw_send_packet(socket.raw, $0.baseAddress!, $0.count, list, 1) }) > 0 else { return nil }
    }
    var watched = pollfd(fd: mine.raw, events: Int16(POLLIN), revents: 0)
    guard unsafe poll(&watched, 1, 5000) == 1 else { return nil }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(mine.raw, $0.baseAddress!, $0.count, 0) }
    guard count > 0, let (head, payload, _) = try? NetmapReplyHead.read(packet: Array(bytes[..<count])) else { return nil }
    return (head.errno, try? PortQueryReply(decoding: payload))
  }

  @Test("The socket is there at READY=1, knows the interfaces, is listed, and goes with the daemon")
  func life() throws {
    let daemon = try Running("[netmap]\nspin = 3")
    #expect(daemon.told("READY=1") != nil, "\(daemon.log)")
    let path = daemon.directory + "/netmap.sock"
    let loopback = query(path, "lo0")
    #expect(loopback?.errno == 0 && (loopback?.reply?.mtu ?? 0) > 1000 && (loopback?.reply?.flags ?? 0) & 8 != 0)
    #expect(loopback?.reply?.transmitRings == 0, "no card is below it")
    #expect(query(path, "ix7")?.errno == NetmapError.Code.ENXIO.rawValue)
    let client = try daemon.client()
    let record = try client.call(NetmapListRequest())
    #expect(record.socket == path && record.ports.isEmpty && record.counters.first { $0.name == "requests" }?.value == 2)
    #expect(try client.call(SysctlList("netmap.spin_us")).first?.value == "3")
    #expect(try client.call(SysctlWrite("netmap.spin_us", "7")).new == "7")
    #expect(throws: ControlError.self) { try client.call(SysctlWrite("netmap.spin_us", "-1")) }
    #expect(try client.call(SysctlList("netmap.server.requests")).first?.value == "2")
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0, "\(daemon.log)")
    #expect(!Files.exists(path))
  }

  @Test("It can be left out")
  func disabled() throws {
    let daemon = try Running("[netmap]\nenabled = false")
    #expect(daemon.told("READY=1") != nil, "\(daemon.log)")
    #expect(!Files.exists(daemon.directory + "/netmap.sock"))
    let error = try #require(throws: ControlError.self) { try daemon.client().call(NetmapListRequest()) }
    #expect(error.errno == "ENODEV")
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0, "\(daemon.log)")
  }

  @Test("A group that does not exist is a mistake, and says what to do")
  func group() throws {
    let daemon = try Running("[netmap]\ngroup = \"no-such-group\"")
    #expect(daemon.end() == DaemonExit.configuration.rawValue)
    #expect(daemon.log.contains("netmap.group") && daemon.log.contains("groupadd"))
  }
}
