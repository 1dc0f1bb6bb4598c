// The process behind `ringway bind --confirm`: waits, and puts the cards back.

import ArgumentParser
import FoundationEssentials
import Glibc
import PCI

/// `ringway watch-bind DEADLINE ADDRESS…`, started by bind alone.
struct Watcher: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "watch-bind", abstract: "Put cards back at a deadline.", shouldDisplay: false)

  @Argument(help: "Milliseconds since boot.")
  var deadline: UInt64
  @Argument(transform: PCIAddress.init)
  var addresses: [PCIAddress]

  /// Starts the watcher in a session of its own, and returns once it says that it stands.
  static func start(_ plan: BindPlan, program: String) throws(BindError) {
    guard let first = plan.journals.first, let deadline = first.deadline else { return }
    let arguments = [program, "watch-bind", String(deadline)] + plan.journals.map(\.address.description)
    let failure = BindError.watcherFailed(first.address)
    var ends: [Int32] = [-1, -1]
    // SAFETY: pipe fills both places of the array.
    guard unsafe pipe(&ends) == 0 else { throw failure }
    defer { close(ends[0]) }
    let started = spawn(arguments, output: ends[1], unwanted: ends[0])
    close(ends[1])
    guard started else { throw failure }
    var poller = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
    var byte: UInt8 = 0
    // SAFETY: poll and read get one place each, and live for the call.
    guard unsafe poll(&poller, 1, 10_000) == 1, unsafe read(ends[0], &byte, 1) == 1 else { throw failure }
  }

  /// The child's standard output is the pipe.
  private static func spawn(_ arguments: [String], output: Int32, unwanted: Int32) -> Bool {
    // SAFETY: the actions are initialised before use and destroyed after it; the argument list is
    // ended by nil and its strings are freed after the call, which has copied them.
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addclose(&actions, unwanted)
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
    if output != 1 { unsafe posix_spawn_file_actions_addclose(&actions, output) }
    unsafe posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    var list = unsafe arguments.map { unsafe strdup($0) } + [nil]
    defer { for unsafe text in unsafe list { unsafe free(text) } }
    var child: pid_t = 0
    return unsafe posix_spawn(&child, arguments[0], &actions, nil, &list, environ) == 0
  }

  func run() throws {
    // Out of the terminal's reach, before anybody relies on this process.
    setsid()
    for signal in [SIGHUP, SIGINT, SIGPIPE] { _ = Glibc.signal(signal, SIG_IGN) }
    // The working directory must not keep a file system busy.
    _ = unsafe chdir("/")
    let binder = Binder(effects: MachineEffects(), warn: warn)
    var pending = addresses
    var told = false
    while !pending.isEmpty {
      // An error (a lock that somebody holds, a driver that is gone) is tried again until a minute
      // after the deadline; after that the journal stays for `ringway unbind --recover`.
      let late = bootMilliseconds() > deadline + 60_000
      pending = pending.filter { address in
        do { return try !binder.expire(address, deadline: deadline) } catch { return !late }
      }
      if !told {
        var byte: UInt8 = 1
        // SAFETY: write reads one byte.
        _ = unsafe write(1, &byte, 1)
        close(1)
        _ = unsafe open("/dev/null", O_WRONLY)
        told = true
      }
      usleep(200_000)
    }
  }
}
