// SIGHUP and `daemon.reload`: the difference between what runs and what the file says now.

import Control
import Logging
import Ringway

extension Configuration {
  /// A daemon with these settled tables and nothing else: what a start begins from.
  static func nothing(like wanted: Configuration) -> Configuration {
    var made = Configuration()
    (made.netisr, made.memory, made.control, made.netmap) = (wanted.netisr, wanted.memory, wanted.control, wanted.netmap)
    (made.daemon, made.log) = (wanted.daemon, wanted.log)
    // The cards are open already; their interfaces are as they came.
    made.cards = wanted.cards.map { card in
      var card = card
      card.settings = InterfaceSettings(up: false)
      return card
    }
    return made
  }
}

extension Lifecycle {
  /// Carries out the steps of a start; the first that fails ends it.
  func apply(_ diff: ConfigurationDiff, _ stack: Stack) throws(DaemonFailure) {
    for step in diff.steps {
      do { try perform(step, stack) } catch {
        throw DaemonFailure(.configuration, "\(path): \(step): \(error.message)", hint: nil)
      }
    }
  }

  private func perform(_ step: ConfigurationStep, _ stack: Stack) throws(ControlError) {
    log.debug("\(step)")
    switch step {
    case .logLevel(let level): if let level = Logger.Level(rawValue: level) { DaemonLog.current = level }
    case .destroy(let name): _ = try stack.perform(.destroy(name: name))
    case .deleteRoute(let prefix): _ = try stack.deleteRoute(prefix)
    case .create(let name, let options):
      _ = try stack.create(name, options)
    case .change(let interface, let change): _ = try stack.change(interface, [change])
    case .addRoute(let route): _ = try stack.setRoute(route, replacing: true)
    case .sysctl(let name, let value): _ = try stack.setSysctl(name, value)
    }
  }

  /// Reads the file again and applies what is different. EINVAL when it is wrong: nothing has changed then. Steps that
  /// fail are warnings; the others are done.
  func reload() throws(ControlError) -> ReloadReply {
    let isFirst = shared.withLock { shared in
      defer { shared.isReloading = true }
      return !shared.isReloading
    }
    guard isFirst else { throw ControlError("EBUSY", "the configuration is being read already.") }
    manager.reloading()
    defer {
      shared.withLock { $0.isReloading = false }
      manager.ready()
    }
    let wanted: Configuration
    do { wanted = try load() } catch let error as ConfigurationProblems {
      for problem in error.problems { log.error("\(problem)") }
      let first = error.problems.first.map { "\($0)" } ?? path
      throw ControlError("EINVAL", "\(first) (\(error.problems.count) mistakes; nothing was changed).")
    } catch { throw ControlError("EINVAL", "\(error): nothing was changed.") }
    guard let stack else { throw ControlError("ESHUTDOWN", "the daemon is ending.") }
    let (old, names) = shared.withLock { ($0.configuration, $0.names) }
    let diff = ConfigurationDiff(from: old, to: wanted, names: names)
    var reply = ReloadReply(applied: [], warnings: diff.warnings)
    for step in diff.steps {
      do {
        try perform(step, stack)
        reply.applied.append("\(step)")
      } catch { reply.warnings.append("\(step): \(error.message)") }
    }
    shared.withLock { shared in
      // What needs a new start is still what it was.
      var running = wanted
      (running.netisr, running.memory, running.control, running.daemon) = (old.netisr, old.memory, old.control, old.daemon)
      running.netmap = old.netmap
      running.netmap.spin = wanted.netmap.spin
      shared.configuration = running
    }
    for warning in reply.warnings { log.warning("\(warning)") }
    log.notice("reloaded \(path): \(reply.applied.count) changes, \(reply.warnings.count) warnings")
    return reply
  }

  // MARK: Calls about the daemon

  func serve(_ server: ControlServer, _ stack: Stack, _ heartbeats: Heartbeats) {
    server.handle(DaemonStatus.self) { [self] (_, _) throws(ControlError) in
      let shared = shared.withLock { $0 }
      var record = DaemonRecord(
        version: Daemon.version, pid: processID(), uptime: Double(clock.now() - started) / 1e9, workers: stack.netisr.workers.count,
        heartbeats: heartbeats.ages, configuration: path, socket: shared.configuration.control.socket, clients: server.clientCount,
        logLevel: DaemonLog.current.rawValue, state: shared.isReloading ? "reloading" : shared.state)
      record.user = shared.user
      record.buffers = stack.memory.allocator.bufferCount
      return record
    }
    server.handle(LogLevelRequest.self) { [self] (request, context) throws(ControlError) in
      if let text = request.level {
        try context.requirePrivilege("Setting the log's level")
        guard let level = Logger.Level(rawValue: text) else {
          throw ControlError("EINVAL", "\"\(text)\" is no level: \(DaemonLog.levels.joined(separator: ", ")).")
        }
        DaemonLog.current = level
        log.notice("the log's level is \(text)")
      }
      return LogLevelReply(level: DaemonLog.current.rawValue)
    }
    server.handle(Shutdown.self) { [self] (_, _) throws(ControlError) in
      requestShutdown()
      return ControlDone()
    }
    server.handle(Reload.self) { [self] (_, _) throws(ControlError) in try reload() }
  }
}
