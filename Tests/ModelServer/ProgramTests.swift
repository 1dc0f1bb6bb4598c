// The program itself, in a process of its own: what it holds, and how it ends.

import Glibc
import Platform
import Testing

@testable import ModelServer

@Suite struct ProgramTests {
  /// Beside the test bundle, when it was built.
  static let program: String = {
    let own = (try? Files.linkTarget("/proc/self/exe")) ?? ""
    let places = [own] + CommandLine.arguments
    for place in places where place.contains("/.build/") {
      // The products' folder: one above the bundle.
      let parts = place.split(separator: "/", omittingEmptySubsequences: false)
      let path = parts.dropLast().joined(separator: "/") + "/ringway-model"
      if Files.exists(path) { return path }
    }
    return ""
  }()

  private func start(_ arguments: [String]) throws -> pid_t {
    var list = unsafe ([ProgramTests.program] + arguments).map { unsafe strdup($0) } + [nil]
    defer { for unsafe text in unsafe list { unsafe free(text) } }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    var child: pid_t = 0
    try #require(unsafe posix_spawn(&child, ProgramTests.program, &actions, nil, &list, environ) == 0)
    return child
  }

  /// The exit code, or nil when it does not end in time.
  private func end(of child: pid_t) -> Int32? {
    var status: Int32 = 0
    for _ in 0..<5000 {
      if unsafe waitpid(child, &status, WNOHANG) == child { return status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f) }
      MonotonicClock().sleep(nanoseconds: 1_000_000)
    }
    kill(child, SIGKILL)
    _ = unsafe waitpid(child, &status, 0)
    return nil
  }

  @Test(.enabled(if: !ProgramTests.program.isEmpty), arguments: [SIGINT, SIGTERM])
  func holdsNothingOfItsClientsAndEndsClean(_ signal: Int32) throws {
    let path = "/tmp/ringway-program-test-\(getpid())-\(signal)"
    let child = try start(["82574", "--socket", path])
    #expect(eventually { Files.exists(path) })
    func descriptors() throws -> Int { try Files.list("/proc/\(child)/fd").count }
    func maps() throws -> Int { try Files.read("/proc/\(child)/maps").split(separator: "\n").count { $0.contains("memfd:client") } }

    let file = try memoryFile(0x10_0000)
    let event = try EventFD()
    // Once, so that whatever is set up lazily is there.
    var client = try RawClient(path: path)
    try client.greet()
    client.close()
    #expect(eventually { (try? RawClient(path: path)) != nil })
    MonotonicClock().sleep(nanoseconds: 50_000_000)
    let before = try descriptors()
    for _ in 0..<20 {
      client = try RawClient(path: path)
      try client.greet()
      #expect(try !client.map(0, 0x10_0000, file: file.raw).isError)
      #expect(try !client.setInterrupts(0x24, 2, 0, 3, [event.descriptor, event.descriptor, event.descriptor]).isError)
      #expect(try maps() == 1)
      // Its connection and the eventfds; the file itself is not kept.
      #expect(try descriptors() == before + 4)
      client.push(RawClient.header(id: 1, 2, size: 48), [file.raw])
      client.close()
      #expect(try eventually { try descriptors() == before })
      #expect(try maps() == 0)
    }
    kill(child, signal)
    #expect(end(of: child) == 0)
    #expect(!Files.exists(path))
  }

  @Test(.enabled(if: !ProgramTests.program.isEmpty))
  func saysWithItsExitCodeWhatIsWrong() throws {
    #expect(end(of: try start(["82574"])) == 64)
    #expect(end(of: try start(["82575", "--socket", "/tmp/x"])) == 64)
    #expect(end(of: try start(["82574", "--socket", "/no/such/folder/x"])) == 78)
    #expect(end(of: try start(["82574", "--socket", "/tmp/x", "--wire", "rope:1"])) == 64)
    #expect(end(of: try start(["82574", "--socket", "/tmp/x", "--mac", "ff:ff:ff:ff:ff:ff"])) == 64)
  }
}
