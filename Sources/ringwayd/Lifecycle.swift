// From the start to the end: what `Daemon` was told to be.

import CRingway
import Control
import Logging
import NetmapServer
import Netisr
import Platform
import Ringway
import Synchronization

/// A running daemon. The main thread starts, runs and ends it; control handlers look at what is shared.
final class Lifecycle: @unchecked Sendable {
  let path: String
  let log: Logger
  let load: @Sendable () throws -> Configuration
  let manager = ServiceManager()
  let clock = MonotonicClock()
  let started: UInt64
  // SAFETY of the unchecked conformance: the main thread's, set before the control thread starts.
  var stack: Stack?
  var server: ControlServer?
  var heartbeats: Heartbeats?
  private let wake: EventFD

  /// What both threads see.
  struct Shared {
    var configuration: Configuration
    var state = "starting"
    /// Interfaces of cards, by device.
    var names: [String: String] = [:]
    var user: String?
    var wantsShutdown = false
    var isReloading = false
  }
  let shared: Mutex<Shared>

  init(_ configuration: Configuration, path: String, log: Logger, load: @escaping @Sendable () throws -> Configuration) throws(DaemonFailure) {
    self.path = path
    self.log = log
    self.load = load
    started = clock.now()
    shared = Mutex(Shared(configuration: configuration))
    do { wake = try EventFD() } catch { throw DaemonFailure(.failure, "\(error)", hint: nil) }
  }

  // MARK: Start

  /// Everything up to READY=1. What was started is taken down again when something fails.
  func start() throws(DaemonFailure) {
    do { try startAll() } catch {
      server?.stop()
      _ = stack?.stop()
      throw error
    }
  }

  private func startAll() throws(DaemonFailure) {
    let wanted = shared.withLock { $0.configuration }
    DaemonLog.current = Logger.Level(rawValue: wanted.log.level) ?? .info
    let user = try wanted.daemon.user == nil ? nil : TargetUser(wanted.daemon, control: wanted.control.group)
    // The lock of the socket first: a second daemon ends here, before it touches a card.
    let server = try makeServer(wanted)
    self.server = server
    do { try server.listen() } catch { throw DaemonFailure(error) }
    let opened = try openCards(wanted)
    let stack = try makeStack(wanted, opened)
    self.stack = stack
    try run(.startWorkers, stack)
    let heartbeats = Heartbeats(stack.netisr)
    self.heartbeats = heartbeats
    try attach(opened, stack)
    let names = shared.withLock { $0.names }
    try apply(ConfigurationDiff(from: Configuration.nothing(like: wanted), to: wanted, names: names), stack)
    let netmap = try makeNetmapServer(wanted, stack)
    stack.serve(on: server)
    serve(server, stack, heartbeats)
    if let user {
      try Privileges.drop(to: user)
      shared.withLock { $0.user = user.name }
      stack.refuseCreation = { name in
        guard name.hasPrefix("tap") else { return nil }
        return ControlError(
          "EPERM", "\(name) needs privileges that this daemon gave up when it became \(user.name). Put it into \(self.path) and start the daemon anew, or run it without daemon.user.")
      }
    }
    try Privileges.gainNothing()
    do {
      try netmap?.start()
      try server.start()
    } catch { throw DaemonFailure(error) }
    shared.withLock { $0.state = "running" }
    manager.ready()
    log.info("version \(Daemon.version): \(stack.netisr.workers.count) workers, \(stack.interfaces.interfaces.count) interfaces, socket \(wanted.control.socket)\(netmap.map { ", netmap \($0.options.path ?? "")" } ?? "")")
  }

  private enum Phase { case startWorkers }
  private func run(_ phase: Phase, _ stack: Stack) throws(DaemonFailure) {
    do { try stack.start() } catch { throw DaemonFailure(.failure, "the workers cannot be started: \(error)", hint: nil) }
  }

  private func makeServer(_ wanted: Configuration) throws(DaemonFailure) -> ControlServer {
    var options = ControlServerOptions()
    options.path = wanted.control.socket
    options.mode = wanted.control.mode
    options.maximumClients = wanted.control.clients
    options.version = Daemon.version
    let log = self.log
    options.log = { log.notice("\($0)") }
    options.group = try Self.group(wanted.control.group, "control.group")
    do { return try ControlServer(options) } catch { throw DaemonFailure(.failure, "\(error)", hint: nil) }
  }

  private static func group(_ name: String?, _ key: String) throws(DaemonFailure) -> UInt32? {
    guard let name else { return nil }
    guard let group = Accounts.group(name) else {
      throw DaemonFailure(.configuration, "there is no group \"\(name)\" (\(key)).", hint: "Make it: groupadd --system \(name)")
    }
    return group
  }

  /// netmap's socket: made while the daemon may still give it to a group; nobody is answered yet.
  private func makeNetmapServer(_ wanted: Configuration, _ stack: Stack) throws(DaemonFailure) -> NetmapServer? {
    guard wanted.netmap.enabled else { return nil }
    let group = try Self.group(wanted.netmap.group ?? wanted.control.group, wanted.netmap.group == nil ? "control.group" : "netmap.group")
    var options = wanted.netmapServerOptions(group: group)
    let log = self.log
    options.log = { log.notice("\($0)") }
    do {
      let server = try stack.makeNetmapServer(options)
      try server.listen()
      return server
    } catch { throw DaemonFailure(error) }
  }

  private func makeStack(_ wanted: Configuration, _ opened: [OpenedCard]) throws(DaemonFailure) -> Stack {
    do {
      let stack = try Stack(wanted.stackOptions(cards: opened.count), reachable: opened.map(\.card))
      if let shortage = stack.memory.shortage { log.warning("\(shortage)") }
      let log = self.log
      stack.memory.allocator.atEnd = { report in log.error("memory was not given back: \(report)") }
      stack.interfaces.log = { log.warning("\($0)") }
      return stack
    } catch { throw DaemonFailure(.failure, "\(error)", hint: nil) }
  }

  // MARK: Cards

  struct OpenedCard {
    var section: CardSection
    var card: StackCard
  }

  private func openCards(_ wanted: Configuration) throws(DaemonFailure) -> [OpenedCard] {
    var opened: [OpenedCard] = []
    for section in wanted.cards {
      do { opened.append(OpenedCard(section: section, card: try StackCard(section.device))) } catch {
        guard section.optional, error.category == .deviceMissing else {
          let exit: DaemonExit = error.category == .deviceMissing ? .deviceMissing : .failure
          throw DaemonFailure(exit, "\(section.device): \(error)", hint: error.category == .deviceMissing ? "Set optional = true where it may be missing." : nil)
        }
        log.notice("\(section.device) is missing, as it may be: \(error)")
      }
    }
    return opened
  }

  private func attach(_ opened: [OpenedCard], _ stack: Stack) throws(DaemonFailure) {
    for one in opened {
      var plan = StackCardPlan()
      plan.name = one.section.name
      plan.queues = one.section.queues
      plan.ringSize = one.section.ringSize
      plan.mtu = one.section.settings.mtu
      plan.allowUnsupportedSFP = one.section.allowUnsupportedSFP
      do {
        let name = try stack.attach(one.card, plan)
        shared.withLock { $0.names[one.section.device] = name }
        log.info("\(one.section.device) is \(name)")
      } catch { throw DaemonFailure(.failure, "\(one.section.device): \(error)", hint: nil) }
    }
  }

  // MARK: Run

  /// Until a signal or a request ends the daemon. It has given everything back then.
  func run(_ signals: borrowing SignalWatcher) throws(DaemonFailure) {
    var reported: [Int] = []
    var nextAlive = clock.now()
    while !(shared.withLock { $0.wantsShutdown }) {
      var watched = [
        pollfd(fd: signals.descriptor, events: Int16(POLLIN), revents: 0), pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0),
      ]
      let pause = min(500_000_000, (manager.watchdog ?? 1_000_000_000) / 4)
      // SAFETY: the array's own elements, as many as are named.
      _ = unsafe watched.withUnsafeMutableBufferPointer { unsafe rw_poll($0.baseAddress!, UInt($0.count), pause) }
      wake.drain()
      while let signal = signals.next() {
        if signal == SIGHUP { _ = try? reload() } else { shared.withLock { $0.wantsShutdown = true } }
      }
      guard let heartbeats else { continue }
      heartbeats.ask()
      let stuck = heartbeats.stuck(for: UInt64(shared.withLock { $0.configuration.daemon.stuck } * 1e9))
      if stuck != reported {
        if !stuck.isEmpty { log.critical("workers \(stuck) do not advance: the watchdog gets no more signs of life") }
        reported = stuck
      }
      if stuck.isEmpty, manager.watchdog != nil, clock.now() >= nextAlive {
        manager.alive()
        nextAlive = clock.now() &+ pause
      }
    }
    try end(signals)
  }

  /// No input, empty queues, everything back. A second signal ends the process at once.
  private func end(_ signals: borrowing SignalWatcher) throws(DaemonFailure) {
    shared.withLock { $0.state = "draining" }
    manager.stopping()
    log.info("draining")
    let descriptor = signals.descriptor
    let over: EventFDHolder
    let impatient: JoinedThread
    do {
      over = try EventFDHolder()
      impatient = try JoinedThread(name: "impatience") { [over] in
        var watched = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0), pollfd(fd: over.event.descriptor, events: Int16(POLLIN), revents: 0)]
        // SAFETY: the array's own elements, as many as are named.
        while unsafe watched.withUnsafeMutableBufferPointer({ unsafe poll($0.baseAddress!, UInt($0.count), -1) }) < 0 {}
        if watched[1].revents == 0 { _exit(128 + SIGTERM) }
      }
    } catch { throw DaemonFailure(.failure, "\(error)", hint: nil) }
    server?.stop()
    if let stack {
      // Programs first: what they still hold in rings is not waited for.
      stack.stopNetmap()
      let left = stack.drain(within: UInt64(shared.withLock { $0.configuration.daemon.drain } * 1e9))
      if left > 0 { log.warning("\(left) packets were still queued after the time for draining") }
      for line in stack.stop() { log.error("\(line)") }
    }
    server = nil
    stack = nil
    over.event.signal()
    impatient.join()
    log.info("stopped")
  }

  private final class EventFDHolder: Sendable {
    let event: EventFD
    init() throws(SystemError) { event = try EventFD() }
  }

  func requestShutdown() {
    shared.withLock { $0.wantsShutdown = true }
    wake.signal()
  }
}
