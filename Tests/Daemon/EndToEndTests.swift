// The built daemon in a process of its own: its socket, its signals, its service manager, how it ends.

import CRingway
import Control
import ControlClient
import Glibc
import Platform
import Testing

@testable import ringwayd

/// A daemon under test, with a directory of its own; both are gone at the end.
final class Running {
  /// Beside the test bundle, when it was built.
  static let program: String = {
    let own = (try? Files.linkTarget("/proc/self/exe")) ?? ""
    for place in [own] + CommandLine.arguments where place.contains("/.build/") {
      let parts = place.split(separator: "/", omittingEmptySubsequences: false)
      let path = parts.dropLast().joined(separator: "/") + "/ringwayd"
      if Files.exists(path) { return path }
    }
    return ""
  }()

  let directory: String
  let child: pid_t
  private let manager: OwnedDescriptor
  private var code: Int32?
  var socket: String { directory + "/control" }
  var file: String { directory + "/ringwayd.toml" }
  var logFile: String { directory + "/log" }

  init(_ configuration: String = "", watchdog: Int? = nil, before: (String) throws -> Void = { _ in }) throws {
    let base = "/tmp/ringwayd-test-\(getpid())-\(UInt32.random(in: .min ... .max))"
    directory = base
    try #require(unsafe mkdir(base, 0o755) == 0)
    try before(base)
    try Files.write(Running.text(base, configuration), to: base + "/ringwayd.toml", create: true)
    // The service manager's side.
    manager = OwnedDescriptor(taking: Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0))
    let raw = manager.raw
    try #require(unsafe try LocalSocket.withAddress(base + "/notify") { unsafe bind(raw, $0, $1) } == 0)
    // Also for a daemon that has become somebody else.
    try #require(unsafe chmod(base + "/notify", 0o777) == 0)
    var environment = ["NOTIFY_SOCKET=\(base)/notify", "PATH=/usr/bin:/bin"]
    if let watchdog { environment.append("WATCHDOG_USEC=\(watchdog)") }
    child = try Self.spawn(["--config", base + "/ringwayd.toml"], environment, log: base + "/log")
  }

  static func text(_ base: String, _ more: String) -> String {
    "[control]\nsocket = \"\(base)/control\"\n[memory]\nhuge = false\nbuffers = 8192\npackets = 256\n[netisr]\nworkers = 2\n\(more)\n"
  }

  static func spawn(_ arguments: [String], _ environment: [String], log: String) throws -> pid_t {
    var list = unsafe ([program] + arguments).map { unsafe strdup($0) } + [nil]
    var surroundings = unsafe environment.map { unsafe strdup($0) } + [nil]
    defer {
      for unsafe text in unsafe list { unsafe free(text) }
      for unsafe text in unsafe surroundings { unsafe free(text) }
    }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)
    var child: pid_t = 0
    try #require(unsafe posix_spawn(&child, program, &actions, nil, &list, &surroundings) == 0)
    return child
  }

  /// Whatever the daemon has told its manager until `word` came; nil when it did not come in time.
  func told(_ word: String, milliseconds: Int = 10_000) -> [String]? {
    var said: [String] = []
    var bytes = [UInt8](repeating: 0, count: 4096)
    for _ in 0..<milliseconds {
      let raw = manager.raw
      // SAFETY: the array's own bytes.
      let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(raw, $0.baseAddress!, $0.count, 0) }
      if count > 0 {
        said += String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n").map(String.init)
        if said.contains(where: { $0.hasPrefix(word) }) { return said }
      } else {
        MonotonicClock().sleep(nanoseconds: 1_000_000)
      }
    }
    return nil
  }

  /// The exit code; a signal's number below 0; nil when it does not end in time.
  func end(milliseconds: Int = 10_000) -> Int32? {
    if let code { return code }
    var status: Int32 = 0
    for _ in 0..<milliseconds {
      if unsafe waitpid(child, &status, WNOHANG) == child {
        code = status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
        return code
      }
      MonotonicClock().sleep(nanoseconds: 1_000_000)
    }
    return nil
  }

  var log: String { (try? Files.read(logFile)) ?? "" }
  func client() throws -> ControlClient { try ControlClient(path: socket, name: "test") }

  deinit {
    if end(milliseconds: 0) == nil, code == nil {
      kill(child, SIGKILL)
      var status: Int32 = 0
      _ = unsafe waitpid(child, &status, 0)
    }
    for name in (try? Files.list(directory)) ?? [] { _ = unsafe unlink(directory + "/" + name) }
    _ = unsafe rmdir(directory)
  }
}

/// A network namespace without a name: that of a process which does nothing else.
private final class Namespace {
  private let child: pid_t
  var path: String { "/proc/\(child)/ns/net" }
  /// Namespaces are root's, and TAPs want their device.
  static let isPossible = getuid() == 0 && Files.exists("/dev/net/tun") && Files.exists("/usr/bin/nsenter") && Shell.run("ping -V && ip -V && unshare --net true") == 0

  init() throws {
    child = try Shell.start("exec unshare --net sleep 1000")
    // The namespace is there once the process is no shell any more.
    for _ in 0..<2000 {
      if let name = try? Files.line("/proc/\(child)/comm"), name == "sleep" { break }
      MonotonicClock().sleep(nanoseconds: 1_000_000)
    }
  }
  /// The exit code of a command in the namespace.
  func run(_ command: String) -> Int32 { Shell.run("exec nsenter --net=\(path) sh -c '\(command)'") }
  deinit {
    kill(child, SIGKILL)
    var status: Int32 = 0
    _ = unsafe waitpid(child, &status, 0)
  }
}

private enum Shell {
  static func start(_ command: String) throws -> pid_t {
    let words = ["/bin/sh", "-c", command]
    var list = unsafe words.map { unsafe strdup($0) } + [nil]
    defer { for unsafe text in unsafe list { unsafe free(text) } }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    var child: pid_t = 0
    try #require(unsafe posix_spawn(&child, "/bin/sh", &actions, nil, &list, environ) == 0)
    return child
  }
  static func run(_ command: String) -> Int32 {
    guard let child = try? start(command) else { return -1 }
    var status: Int32 = 0
    guard unsafe waitpid(child, &status, 0) == child else { return -1 }
    return status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
  }
}

@Suite(.enabled(if: !Running.program.isEmpty), .serialized) struct EndToEndTests {
  @Test("Two Linux kernels ping each other through TAPs and the router; what is made at the start goes at the end", .enabled(if: Namespace.isPossible))
  func traffic() throws {
    let (left, right) = (try Namespace(), try Namespace())
    func tap(_ number: Int, _ namespace: Namespace, _ name: String) -> String {
      "[[interface]]\nname = \"tap\(number - 1)\"\nnetns = \"\(namespace.path)\"\npeer = \"\(name)\"\naddresses = [\"198.18.\(number).1/24\", \"2001:2:0:\(number)::1/64\"]\n"
    }
    let daemon = try Running("[forwarding]\ninet = true\ninet6 = true\n" + tap(1, left, "left0") + tap(2, right, "right0"))
    #expect(daemon.told("READY=1") != nil, "\(daemon.log)")
    for (number, namespace, name) in [(1, left, "left0"), (2, right, "right0")] {
      #expect(namespace.run("ip address add 198.18.\(number).2/24 dev \(name) && ip -6 address add 2001:2:0:\(number)::2/64 dev \(name) nodad && ip link set \(name) up && ip route add default via 198.18.\(number).1 && ip -6 route add default via 2001:2:0:\(number)::1") == 0)
    }
    // Duplicate address detection of the router's own takes a second.
    #expect(left.run("ping -n -c 20 -i 0.2 -W 2 -w 20 198.18.2.2 && ping -n -6 -c 3 -i 0.2 -W 3 -w 20 2001:2:0:2::2") == 0, "\(daemon.log)")
    #expect(right.run("ping -n -c 3 -i 0.1 -W 2 198.18.1.2") == 0)
    let client = try daemon.client()
    let tap0 = try client.call(InterfaceGet("tap0"))
    #expect(tap0.flags.contains("UP") && tap0.flags.contains("RUNNING") && tap0.counters.ipackets > 20 && tap0.counters.opackets > 20)
    #expect(try client.call(NeighbourList(family: "inet")).contains { $0.address == "198.18.2.2" && $0.ether != nil })
    // Live: one more address by a reload, a route by a request.
    try Files.write(
      Running.text(daemon.directory, "[forwarding]\ninet = true\ninet6 = true\n" + tap(1, left, "left0") + tap(2, right, "right0").replacing("2.1/24\"", with: "2.1/24\", \"198.18.3.1/24\"")),
      to: daemon.file, create: true)
    #expect(try client.call(Reload()).warnings == [])
    #expect(left.run("ping -n -c 2 -i 0.1 -W 2 198.18.3.1") == 0)
    #expect(try client.call(RouteGet("198.18.3.9")).interface == "tap1")
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0, "\(daemon.log)")
    #expect(!daemon.log.contains("error"), "\(daemon.log)")
    #expect(left.run("ip link show dev left0") != 0)
  }

  @Test("It says READY=1 when the socket answers, and ends with 0 after SIGTERM, leaving no socket", arguments: [SIGTERM, SIGINT])
  func startAndStop(_ signal: Int32) throws {
    let daemon = try Running("[sysctl]\nnet.inet.ip.ttl = 33")
    #expect(daemon.told("READY=1") != nil, "\(daemon.log)")
    let client = try daemon.client()
    let status = try client.call(DaemonStatus())
    #expect(status.pid == daemon.child && status.workers == 2 && status.state == "running" && status.configuration == daemon.file)
    #expect(status.heartbeats.count == 2)
    #expect(try client.call(SysctlList("net.inet.ip.ttl")).first?.value == "33")
    kill(daemon.child, signal)
    #expect(daemon.told("STOPPING=1") != nil)
    #expect(daemon.end() == 0, "\(daemon.log)")
    #expect(!Files.exists(daemon.socket))
    #expect(throws: ControlError.self) { try client.call(DaemonStatus()) }
  }

  @Test("The watchdog gets signs of life while every worker advances")
  func watchdog() throws {
    let daemon = try Running(watchdog: 400_000)
    #expect(daemon.told("READY=1") != nil)
    for _ in 0..<3 { #expect(daemon.told("WATCHDOG=1", milliseconds: 2000) != nil) }
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0)
  }

  @Test("SIGHUP applies differences; a broken file changes nothing; `daemon.reload` says what it did")
  func reload() throws {
    let daemon = try Running("[sysctl]\nnet.inet.ip.ttl = 33")
    #expect(daemon.told("READY=1") != nil)
    let client = try daemon.client()
    try Files.write(Running.text(daemon.directory, "[sysctl]\nnet.inet.ip.ttl = 44\n[log]\nlevel = \"debug\""), to: daemon.file, create: true)
    kill(daemon.child, SIGHUP)
    #expect(daemon.told("RELOADING=1") != nil)
    #expect(daemon.told("READY=1") != nil)
    #expect(try client.call(SysctlList("net.inet.ip.ttl")).first?.value == "44")
    #expect(try client.call(DaemonStatus()).logLevel == "debug")
    try Files.write(Running.text(daemon.directory, "[sysctl]\nnet.inet.ip.ttl = 55\n[nonsense]"), to: daemon.file, create: true)
    let error = #expect(throws: ControlError.self) { try client.call(Reload()) }
    #expect(error?.errno == "EINVAL" && error?.message.contains("nonsense") == true)
    #expect(try client.call(SysctlList("net.inet.ip.ttl")).first?.value == "44")
    try Files.write(Running.text(daemon.directory, "[sysctl]\nnet.inet.ip.ttl = 0\n[daemon]\ndrain = 1"), to: daemon.file, create: true)
    let reply = try client.call(Reload())
    #expect(reply.applied == ["log at info"] && reply.warnings.count == 2)
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0)
  }

  @Test("A request ends it, too")
  func shutdown() throws {
    let daemon = try Running()
    #expect(daemon.told("READY=1") != nil)
    #expect(try daemon.client().call(Shutdown()) == ControlDone())
    #expect(daemon.end() == 0, "\(daemon.log)")
  }

  @Test("A second daemon on the socket ends with EX_TEMPFAIL and names the first")
  func two() throws {
    let daemon = try Running()
    #expect(daemon.told("READY=1") != nil)
    let second = try Running.spawn(["--config", daemon.file], [], log: daemon.directory + "/second")
    var status: Int32 = 0
    #expect(unsafe waitpid(second, &status, 0) == second && status >> 8 == DaemonExit.busy.rawValue)
    #expect(try Files.read(daemon.directory + "/second").contains("process \(daemon.child)"))
    #expect(try daemon.client().call(DaemonStatus()).pid == daemon.child)
  }

  @Test(
    "What cannot start ends with its exit code and a sentence",
    arguments: [
      ("[[card]]\ndevice = \"vfio-user:/nonexistent/socket\"", DaemonExit.deviceMissing, "optional = true"),
      ("[[card]]\ndevice = \"ffff:ff:1f.7\"", .deviceMissing, "ffff:ff:1f.7"), ("[nonsense]", .configuration, "nonsense"),
      ("[daemon]\nuser = \"no-such-user\"", .configuration, "no-such-user"), ("[sysctl]\n\"no.such\" = 1", .configuration, "no.such"),
      ("[[route]]\nto = \"default\"\nvia = \"198.18.0.1\"", .configuration, "198.18.0.1"),
    ])
  func refusals(_ text: String, _ exit: DaemonExit, _ words: String) throws {
    let daemon = try Running(text)
    #expect(daemon.end() == exit.rawValue, "\(daemon.log)")
    #expect(daemon.log.contains(words), "\(daemon.log)")
    #expect(!Files.exists(daemon.socket))
  }

  @Test("A card that is optional may be missing")
  func optional() throws {
    let daemon = try Running("[[card]]\ndevice = \"vfio-user:/nonexistent/socket\"\noptional = true")
    #expect(daemon.told("READY=1") != nil, "\(daemon.log)")
    #expect(try daemon.client().call(InterfaceList()).map(\.name) == ["lo0"])
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0)
  }

  @Test("After the start it is somebody else and gains nothing back", .enabled(if: getuid() == 0))
  func privileges() throws {
    let daemon = try Running("[daemon]\nuser = \"nobody\"")
    #expect(daemon.told("READY=1") != nil, "\(daemon.log)")
    let status = try Files.read("/proc/\(daemon.child)/status")
    #expect(status.contains("Uid:\t65534\t65534\t65534\t65534"))
    #expect(status.contains("NoNewPrivs:\t1"))
    #expect(status.contains("CapEff:\t0000000000000000"))
    let client = try daemon.client()
    #expect(try client.call(DaemonStatus()).user == "nobody")
    let error = #expect(throws: ControlError.self) { try client.call(InterfaceCreate("tap")) }
    #expect(error?.errno == "EPERM" && error?.message.contains("nobody") == true)
    kill(daemon.child, SIGTERM)
    #expect(daemon.end() == 0, "\(daemon.log)")
  }

  @Test("A second signal ends it at once")
  func impatient() throws {
    let daemon = try Running()
    #expect(daemon.told("READY=1") != nil)
    // Both at once: the second is there when the first is being served, or the daemon was quicker.
    kill(daemon.child, SIGTERM)
    kill(daemon.child, SIGINT)
    let code = daemon.end()
    #expect(code == 0 || code == 128 + SIGTERM)
  }
}
