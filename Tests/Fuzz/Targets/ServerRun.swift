// The vfio-user server with a client that sends anything.

import CFuzz
import CRingway
import Glibc
import ModelKit
import ModelServer
import Models
import Platform

/// One run: a connection, messages, and the end of it. The server lives on, as it must.
enum ServerRun {
  private final class Host {
    let server: ModelServer
    let model: VirtioNetModel
    let file: Int32
    let descriptors: Int32

    init?() {
      let path = ServerRun.path
      guard let model = try? VirtioNetModel() else { return nil }
      self.model = model
      guard let server = try? ModelServer(model, path: path, options: ModelServer.Options(mode: .trapped)) else { return nil }
      self.server = server
      // The host lives as long as the process: nobody else takes the socket's file away.
      atexit { _ = unsafe unlink(ServerRun.path) }
      model.wire = TestWire()
      file = unsafe rw_memfd_create("ringway-fuzz", RW_MFD_CLOEXEC)
      guard file >= 0, ftruncate(file, 1 << 16) == 0 else { return nil }
      descriptors = cf_descriptors()
    }
  }
  private static let path = "/tmp/ringway-fuzz-\(getpid()).sock"
  // SAFETY: one thread fuzzes; tests take turns (they are serialized).
  nonisolated(unsafe) private static var host: Host? = Host()

  static func run(_ input: inout FuzzInput) -> [String] {
    guard let host = unsafe host else { return ["no server"] }
    let client = connect(path)
    guard client >= 0 else { return ["the server takes no connection"] }
    greet(client, &input)
    var left = 64
    while !input.isAtEnd, left > 0 {
      left -= 1
      send(client, host.file, &input)
      _ = host.server.round()
      discard(client)
    }
    for _ in 0..<8 { _ = host.server.round() }
    close(client)
    for _ in 0..<16 where host.server.hasClient { _ = host.server.round() }
    _ = host.server.round()
    var problems: [String] = []
    if host.server.hasClient { problems.append("the client is gone, and the server does not see it") }
    if host.model.bus.memory.windowCount != 0 { problems.append("memory of a client that is gone") }
    if host.model.bus.memory.isBusMaster { problems.append("a device without a client may reach memory") }
    let now = cf_descriptors()
    if now > host.descriptors { problems.append("\(now - host.descriptors) descriptors stay open") }
    return problems
  }

  private static func connect(_ path: String) -> Int32 {
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
      for (i, byte) in path.utf8.enumerated() where i < place.count - 1 { unsafe place[i] = byte }
    }
    let done = unsafe withUnsafePointer(to: &address) { pointer in
      // SAFETY: a sockaddr_un is read as its common head; the length says how much there is.
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe Glibc.connect(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return done == 0 ? raw : -1
  }

  private static func little(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
  }
  private static func header(_ command: UInt16, payload: Int, flags: UInt32 = 0) -> [UInt8] {
    little(1, 2) + little(UInt64(command), 2) + little(UInt64(16 + payload), 4) + little(UInt64(flags), 4) + little(0, 4)
  }

  /// Most connections agree on a version first: nothing else is answered before.
  private static func greet(_ client: Int32, _ input: inout FuzzInput) {
    guard input.byte() & 0x0f != 0 else { return }
    let payload: [UInt8] = [0, 0, 1, 0] + Array(#"{"capabilities":{"max_msg_fds":8}}"#.utf8) + [0]
    write(client, header(1, payload: payload.count) + payload, -1)
  }

  private static func write(_ client: Int32, _ bytes: [UInt8], _ descriptor: Int32) {
    unsafe bytes.withUnsafeBytes { source in
      if let base = source.baseAddress { _ = unsafe cf_send(client, base, source.count, descriptor) }
    }
  }

  private static func discard(_ client: Int32) {
    var room = [UInt8](repeating: 0, count: 4096)
    while unsafe recv(client, &room, room.count, Int32(MSG_DONTWAIT)) > 0 {}
  }

  /// One message: mostly with a shape that gets beyond the first check.
  private static func send(_ client: Int32, _ file: Int32, _ input: inout FuzzInput) {
    let kind = input.byte()
    let passed = kind & 0x80 != 0 ? file : -1
    let flags: UInt32 = kind & 0x40 != 0 ? 0x10 : 0
    var payload: [UInt8]
    let command: UInt16
    switch kind & 0x0f {
    case 0: return write(client, input.take(input.below(64)), passed)
    case 1: (command, payload) = (1, input.take(input.below(128)))
    case 2:
      command = 2
      payload = little(32, 4) + little(UInt64(input.byte() & 7), 4) + little(UInt64(input.word16()) << 8, 8)
      payload += little(UInt64(input.word16()) << 8, 8) + little(UInt64(input.word16()) << 6, 8)
    case 3:
      command = 3
      payload = little(24, 4) + little(UInt64(input.byte() & 3), 4) + little(UInt64(input.word16()) << 8, 8)
      payload += little(UInt64(input.word16()) << 6, 8)
    case 4: (command, payload) = (4, little(UInt64(input.byte()), 4) + little(0, 12))
    case 5: (command, payload) = (5, little(UInt64(input.byte()), 4) + little(0, 4) + little(UInt64(input.byte()), 4) + little(0, 20))
    case 6: (command, payload) = (7, little(16, 4) + little(0, 4) + little(UInt64(input.byte()), 4) + little(0, 4))
    case 7, 8:
      command = 8
      payload = little(UInt64(20 + input.below(8)), 4) + little(UInt64(input.word16() & 0x3f), 4) + little(UInt64(input.byte() & 7), 4)
      payload += little(UInt64(input.byte()), 4) + little(UInt64(input.byte()), 4) + input.take(input.below(16))
    case 9:
      command = 9
      payload = little(UInt64(input.word16()), 8) + little(UInt64(input.byte() & 15), 4) + little(UInt64(input.byte()), 4)
    case 10, 11, 12:
      command = 10
      let data = input.take([1, 2, 4, 8][input.below(4)])
      payload = little(UInt64(input.word16()), 8) + little(UInt64(input.byte() & 15), 4) + little(UInt64(data.count), 4) + data
    case 13: (command, payload) = (13, [])
    case 14: (command, payload) = (15, input.take(input.below(96)))
    default: (command, payload) = (input.word16(), input.take(input.below(64)))
    }
    write(client, header(command, payload: payload.count, flags: flags) + payload, passed)
  }
}
