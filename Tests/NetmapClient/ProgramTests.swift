// Programs in C, built by cc and run as they are: with the preloaded library, or over the C client.

import CRingway
import Glibc
import Testing

/// What the package builds beside the tests.
private let products: String = {
  var path = [UInt8](repeating: 0, count: 4096)
  let count = unsafe path.withUnsafeMutableBytes { unsafe readlink("/proc/self/exe", $0.baseAddress!.assumingMemoryBound(to: CChar.self), 4096) }
  let full = String(decoding: path.prefix(max(0, count)), as: UTF8.self)
  return full.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 }
}()

private func isThere(_ product: String) -> Bool { unsafe access("\(products)/\(product)", R_OK) == 0 }

/// Runs a command to its end: its status as waitpid(2) has it, and what it wrote.
private func run(_ words: [String], _ environment: [String] = []) -> (status: Int32, output: String) {
  var ends: [Int32] = [0, 0]
  unsafe pipe(&ends)
  var actions = unsafe posix_spawn_file_actions_t()
  unsafe posix_spawn_file_actions_init(&actions)
  unsafe posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
  unsafe posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
  for end in ends { unsafe posix_spawn_file_actions_addclose(&actions, end) }
  // Test threads may block signals; programs start with none blocked.
  var attributes = posix_spawnattr_t()
  unsafe posix_spawnattr_init(&attributes)
  var none = sigset_t()
  unsafe sigemptyset(&none)
  unsafe posix_spawnattr_setsigmask(&attributes, &none)
  unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
  let inherited = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
  var arguments: [UnsafeMutablePointer<CChar>?] = unsafe words.map { unsafe strdup($0) } + [nil]
  var variables: [UnsafeMutablePointer<CChar>?] = unsafe (inherited + environment).map { unsafe strdup($0) } + [nil]
  var process: pid_t = 0
  let spawned = unsafe posix_spawnp(&process, words[0], &actions, &attributes, &arguments, &variables)
  for index in unsafe arguments.indices { unsafe free(arguments[index]) }
  for index in unsafe variables.indices { unsafe free(variables[index]) }
  unsafe posix_spawn_file_actions_destroy(&actions)
  unsafe posix_spawnattr_destroy(&attributes)
  close(ends[1])
  defer { close(ends[0]) }
  guard spawned == 0 else { return (-1, "\(words[0]) cannot be started: errno \(spawned)") }
  var output: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = unsafe read(ends[0], &chunk, chunk.count)
    if count <= 0 { break }
    output += chunk.prefix(count)
  }
  var status: Int32 = 0
  unsafe waitpid(process, &status, 0)
  return (status, String(decoding: output, as: UTF8.self))
}

/// Builds a program of Tests/NetmapClientPrograms; the caller removes it.
private func build(_ name: String, _ flags: [String] = []) throws -> String {
  let tests = #filePath.split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 }
  let program = "/tmp/rw-\(name)-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
  let built = run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "\(tests)/NetmapClientPrograms/\(name).c", "-o", program] + flags)
  try #require(built.status == 0, "\(built.output)")
  return program
}

@Suite("Programs in C", .serialized)
struct ProgramTests {
  @Test(
    "A program for the kernel module: requests, waits, copies, forks, exec, threads, closing everything",
    .enabled(if: isThere("libringway-netmap.so"), "needs `swift build --product ringway-netmap`"))
  func preloaded() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let program = try build("preloaded")
    defer { unsafe unlink(program) }
    let result = run(["timeout", "60", program], ["LD_PRELOAD=\(products)/libringway-netmap.so", "RINGWAY_NETMAP_SOCKET=\(daemon.path)"])
    #expect(result.output == "fine\n")
    #expect(result.status == 0)
  }

  @Test(
    "Programs that know nothing of netmap, or of Swift, run as before",
    .enabled(if: isThere("libringway-netmap.so"), "needs `swift build --product ringway-netmap`"),
    arguments: [
      ["/bin/true"], ["ls", "/"], ["sh", "-c", "echo a | cat | grep a"],
      ["python3", "-c", "import select,socket,os,mmap; p=select.poll(); r,w=os.pipe(); p.register(r); os.write(w,b'x'); assert p.poll(1000)"],
    ])
  func bystanders(words: [String]) {
    let plain = run(words)
    let preloaded = run(words, ["LD_PRELOAD=\(products)/libringway-netmap.so", "RINGWAY_NETMAP_SOCKET=/tmp/rw-nobody"])
    #expect(plain.status == 0)
    #expect(preloaded.status == 0)
    #expect(preloaded.output == plain.output)
  }

  @Test(
    "A program over the C client: its header, its errors as text",
    .enabled(if: isThere("libringway-netmap-client.so"), "needs `swift build --product ringway-netmap-client`"))
  func client() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let sources = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 } + "/Sources"
    let program = try build("client", ["-I\(sources)/NetmapClientC/include", "-L\(products)", "-lringway-netmap-client", "-Wl,-rpath,\(products)"])
    defer { unsafe unlink(program) }
    let result = run(["timeout", "60", program], ["RINGWAY_NETMAP_SOCKET=\(daemon.path)"])
    #expect(result.output == "fine\n")
    #expect(result.status == 0)
  }
}
