// The socket's file: who may have it, and when it goes.

import CRingway
import ModelKit
import Platform
import Testing

@testable import ModelServer

@Suite struct SocketTests {
  private func path() -> String { "/tmp/ringway-socket-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))" }

  private func server(_ path: String) throws -> ModelServer { try ModelServer(try CopyEngine(), path: path) }

  @Test func theFileComesAndGoesWithTheServer() throws {
    let path = path()
    var first: ModelServer? = try server(path)
    #expect(Files.exists(path))
    #expect(throws: ModelServerError.inUse(path)) { _ = try server(path) }
    #expect(first?.hasClient == false)
    first?.close()
    #expect(!Files.exists(path))
    first = try server(path)
    first = nil
    #expect(!Files.exists(path))
  }

  @Test func aDeadServersFileIsReplaced() throws {
    let path = path()
    // Bound, and left behind.
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
      for (index, byte) in path.utf8.enumerated() { unsafe place[index] = byte }
    }
    let bound = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    #expect(bound == 0)
    _ = close(raw)
    #expect(Files.exists(path))
    let next = try server(path)
    #expect(Files.exists(path))
    next.close()
    #expect(!Files.exists(path))
  }

  @Test func otherFilesAreLeftAlone() throws {
    let path = path()
    try Files.write("mine", to: path, create: true)
    defer { unsafe unlink(path) }
    #expect(throws: ModelServerError.notASocket(path)) { _ = try server(path) }
    #expect(try Files.read(path) == "mine")
    #expect(throws: ModelServerError.pathTooLong("")) { _ = try server("") }
    let long = "/tmp/" + String(repeating: "x", count: 110)
    #expect(throws: ModelServerError.pathTooLong(long)) { _ = try server(long) }
    #expect(throws: ModelServerError.self) { _ = try server("/no/such/directory/s") }
  }

  @Test func errorsSayWhatToDo() {
    for error in [
      ModelServerError.inUse("/a"), .notASocket("/a"), .pathTooLong("/a"), .socket("/a", "make", .permissionDenied),
    ] {
      #expect(error.description.contains("--socket") && error.description.hasSuffix("."))
    }
  }
}
