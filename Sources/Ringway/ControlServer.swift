// The daemon's side of the control socket: a thread of its own, which never makes a worker wait.
//
//     clients ──> ControlConnection ──line──> handler by name ──> Stack (messages to workers)
//        <── replies, in parts when they are long ──┘
//     workers ── publish, push ──> ControlStream (bounded) ──wake──> the control thread ──> clients
//
// Invariants
// - Every buffer is bounded. A client that does not read its answers is not read; one that does not read its
//   events loses its subscription, with a notice.
// - Requests of one client are answered in their order.

internal import CRingway
public import Control
internal import ControlClient
public import Platform
internal import Synchronization

/// What a handler knows of its caller.
public struct ControlContext: Sendable {
  public let peer: ControlPeer?
  public let isPrivileged: Bool
  let open: @Sendable (_ backlog: Int, _ isLossy: Bool) -> ControlStream
  let close: @Sendable (_ id: UInt64) -> Bool

  /// EPERM unless the caller may change things.
  public func requirePrivilege(_ what: String) throws(ControlError) {
    guard isPrivileged else { throw ControlError("EPERM", "\(what) is for root and for members of the group that control.group names.") }
  }

  /// A subscription of the caller's connection. Its id goes into the reply.
  public func openStream(backlog: Int, isLossy: Bool) -> ControlStream { open(backlog, isLossy) }
  /// Whether there was such a subscription.
  public func closeStream(_ id: UInt64) -> Bool { close(id) }
}

public struct ControlServerOptions: Sendable {
  /// The socket's file; nil: connections come by `adopt` alone.
  public var path: String?
  public var mode: UInt32 = 0o660
  /// Members may change things; the socket's file belongs to it.
  public var group: UInt32?
  public var maximumClients = 64
  public var version = "0"
  /// Called on the control thread: clients that come and go, refusals.
  public var log: @Sendable (String) -> Void = { _ in }
  public init() {}
}

/// The control socket's server.
public final class ControlServer: @unchecked Sendable {
  typealias Handler = @Sendable (ControlValue, ControlContext) throws(ControlError) -> ControlValue
  public let options: ControlServerOptions

  private struct State {
    var handlers: [String: (needsPrivilege: Bool, body: Handler)] = [:]
    var adopted: [(descriptor: Int32, peer: ControlPeer?)] = []
    var subscribers: [(stream: ControlStream, categories: Set<EventCategory>, interface: String?)] = []
    var nextStream: UInt64 = 1
    var isStopping = false
    var clients = 0
  }
  private let state = Mutex(State())
  private let wake: EventFD
  private var thread: JoinedThread?
  private var listener: ListeningPath?
  // The control thread's alone.
  private var connections: [UInt64: ControlConnection] = [:]
  private var nextToken: UInt64 = 16

  private static let listenerToken: UInt64 = 1
  private static let wakeToken: UInt64 = 2

  public init(_ options: ControlServerOptions) throws(SystemError) {
    self.options = options
    wake = try EventFD()
    addOwnHandlers()
  }

  /// Clients at present.
  public var clientCount: Int { state.withLock { $0.clients } }

  /// Answers a kind of request. The body runs on the control thread.
  public func handle<R: ControlRequest>(
    _ type: R.Type = R.self, _ body: @escaping @Sendable (R, ControlContext) throws(ControlError) -> R.Reply
  ) {
    let handler: Handler = { (arguments, context) throws(ControlError) in
      try ControlCoder.value(try body(try ControlCoder.structure(R.self, from: arguments), context))
    }
    state.withLock { $0.handlers[R.call] = (R.needsPrivilege, handler) }
  }

  /// Listens; nobody is answered yet. EADDRINUSE when another daemon listens at the path.
  public func listen() throws(ControlError) {
    guard listener == nil, let path = options.path else { return }
    listener = try ListeningPath(path, mode: options.mode, group: options.group)
  }

  /// Listens, if that is not done yet, and starts the thread.
  public func start() throws(ControlError) {
    try listen()
    do { thread = try JoinedThread(name: "control") { [self] in run() } } catch {
      throw ControlError("EAGAIN", "the control thread cannot be started: \(error).")
    }
  }

  /// Tells every client that it is over, sends what can be sent at once, closes and removes the socket. Idempotent.
  public func stop() {
    state.withLock { $0.isStopping = true }
    wake.signal()
    thread = nil
    listener = nil
  }

  /// A connected socket becomes a client. For tests, and for socket activation.
  /// - Parameter peer: nil asks the kernel.
  public func adopt(_ descriptor: consuming OwnedDescriptor, peer: ControlPeer? = nil) {
    let raw = descriptor.release()
    state.withLock { $0.adopted.append((raw, peer)) }
    wake.signal()
  }

  /// A change, to everybody who wants to know. From any thread; never waits.
  public func publish(_ category: EventCategory, interface: String? = nil, _ make: () -> ChangeRecord) {
    let streams = state.withLock { state in
      state.subscribers.filter {
        ($0.categories.isEmpty || $0.categories.contains(category)) && ($0.interface == nil || $0.interface == interface)
      }.map(\.stream)
    }
    guard !streams.isEmpty else { return }
    let change = make()
    for stream in streams { stream.push { .change(change) } }
  }

  // MARK: The thread

  private func run() {
    do { try loop(try Epoll()) } catch { options.log("the control thread cannot wait for clients: \(error)") }
    for connection in connections.values {
      for id in connection.streams.keys {
        connection.send(.event(subscription: id, (try? ControlCoder.value(ControlEvent.end(reason: "shutdown"))) ?? .null))
      }
      connection.endStreams()
    }
    connections = [:]
  }

  private func loop(_ epoll: consuming Epoll) throws(SystemError) {
    try epoll.add(wake.descriptor, token: Self.wakeToken)
    if let listener { try epoll.add(listener.descriptor, token: Self.listenerToken) }
    while !(state.withLock { $0.isStopping }) {
      let events = (try? epoll.wait(milliseconds: 1000)) ?? []
      for event in events {
        switch event.token {
        case Self.wakeToken: wake.drain()
        case Self.listenerToken: accept(epoll)
        default:
          guard let connection = connections[event.token] else { continue }
          if event.ready.contains(.writable) { connection.flush() }
          if !connection.isBlocked, !event.ready.isDisjoint(with: [.readable, .hangUp, .error]) { connection.receive() }
        }
      }
      for adopted in state.withLock({ state in
        defer { state.adopted = [] }
        return state.adopted
      }) { add(OwnedDescriptor(taking: adopted.descriptor), adopted.peer, epoll) }
      for connection in connections.values { serve(connection) }
      settle(epoll)
    }
  }

  private func accept(_ epoll: borrowing Epoll) {
    guard let listener else { return }
    while true {
      let raw = rw_accept(listener.descriptor, Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue))
      guard raw >= 0 else {
        // Out of descriptors: the next one that closes makes room; not at once, so that this thread does not spin.
        if rw_errno() == EMFILE || rw_errno() == ENFILE { MonotonicClock().sleep(nanoseconds: 10_000_000) }
        return
      }
      add(OwnedDescriptor(taking: raw), nil, epoll)
    }
  }

  private func add(_ descriptor: consuming OwnedDescriptor, _ peer: ControlPeer?, _ epoll: borrowing Epoll) {
    let peer = peer ?? ControlPeer(of: descriptor.raw)
    let connection = ControlConnection(descriptor, token: nextToken, peer: peer, group: options.group)
    nextToken += 1
    if connections.count >= options.maximumClients {
      options.log("a client was turned away: there are \(connections.count) already")
      return connection.send(.failure(id: 0, ControlError("EBUSY", "the daemon has \(connections.count) clients already (control.clients).")))
    }
    do { try epoll.add(connection.descriptor, for: [.readable], token: connection.token) } catch {
      return options.log("a client cannot be watched: \(error)")
    }
    connections[connection.token] = connection
    state.withLock { $0.clients += 1 }
  }

  /// Answers what a client has asked, and sends its events.
  private func serve(_ connection: ControlConnection) {
    // Not more than some at a time: others wait too.
    for _ in 0..<64 {
      do {
        guard let line = try connection.nextLine() else { break }
        answer(line, connection)
      } catch {
        connection.send(.failure(id: 0, error))
        connection.isClosing = true
      }
    }
    if !connection.streams.isEmpty { connection.sendEvents() }
  }

  private func answer(_ line: [UInt8], _ connection: ControlConnection) {
    let message: ControlMessage
    do { message = try ControlMessage(line: line, limits: .request) } catch { return connection.send(.failure(id: 0, error)) }
    guard case .call(let id, let name, let arguments) = message else {
      return connection.send(.failure(id: 0, ControlError("EBADMSG", "clients send calls.")))
    }
    do { connection.send(.result(id: id, try perform(name, arguments, connection), more: false)) } catch {
      connection.send(.failure(id: id, error))
    }
  }

  private func perform(_ name: String, _ arguments: ControlValue, _ connection: ControlConnection) throws(ControlError) -> ControlValue {
    if name == Hello.call { return try ControlCoder.value(try greet(ControlCoder.structure(from: arguments), connection)) }
    guard connection.version != nil else { throw ControlError("EPROTO", "the first call must be \"hello\".") }
    guard let handler = state.withLock({ $0.handlers[name] }) else {
      throw ControlError("ENOSYS", "this daemon (\(options.version)) does not know the call \"\(name)\".")
    }
    let token = connection.token
    let context = ControlContext(
      peer: connection.peer, isPrivileged: connection.isPrivileged,
      open: { [self] in openStream(on: token, backlog: $0, isLossy: $1) },
      close: { [self] in closeStream($0, on: token) })
    if handler.needsPrivilege { try context.requirePrivilege("\"\(name)\"") }
    return try handler.body(arguments, context)
  }

  private func greet(_ hello: Hello, _ connection: ControlConnection) throws(ControlError) -> HelloReply {
    guard let version = Control.agree(hello.versions) else {
      throw ControlError("EPROTONOSUPPORT", "this daemon (\(options.version)) speaks versions \(Control.versions) of the protocol, the client \(hello.versions).")
    }
    connection.version = version
    connection.client = String(hello.client.prefix(64))
    let calls = state.withLock { $0.handlers.keys.sorted() }
    return HelloReply(version: version, program: "ringwayd", programVersion: options.version, calls: calls, privileged: connection.isPrivileged)
  }

  // MARK: Streams. On the control thread.

  private func openStream(on token: UInt64, backlog: Int, isLossy: Bool) -> ControlStream {
    let id = state.withLock { state -> UInt64 in
      defer { state.nextStream += 1 }
      return state.nextStream
    }
    let stream = ControlStream(id: id, backlog: backlog, isLossy: isLossy, wake: { [self] in wake.signal() })
    connections[token]?.streams[id] = stream
    return stream
  }

  private func closeStream(_ id: UInt64, on token: UInt64) -> Bool {
    guard let stream = connections[token]?.streams.removeValue(forKey: id) else { return false }
    stream.end()
    return true
  }

  private func addOwnHandlers() {
    handle(Subscribe.self) { [unowned self] (request, context) throws(ControlError) in
      let stream = context.openStream(backlog: 4096, isLossy: false)
      state.withLock { $0.subscribers.append((stream, Set(request.categories), request.interface)) }
      stream.whenEnded { [weak self] in self?.state.withLock { $0.subscribers.removeAll { $0.stream === stream } } }
      return Subscribed(subscription: stream.id)
    }
    handle(Unsubscribe.self) { (request, context) throws(ControlError) in
      guard context.closeStream(request.subscription) else {
        throw ControlError("ENOENT", "this connection has no subscription \(request.subscription).")
      }
      return ControlDone()
    }
  }

  /// Closes what is over, and watches for room where something waits.
  private func settle(_ epoll: borrowing Epoll) {
    for (token, connection) in connections {
      if connection.isDone {
        connection.endStreams()
        connections[token] = nil
        state.withLock { $0.clients -= 1 }
        continue
      }
      var interest: Epoll.Interest = connection.waiting > 0 ? [.writable] : []
      if !connection.isBlocked, !connection.isClosing { interest.insert(.readable) }
      try? epoll.modify(connection.descriptor, for: interest, token: token)
    }
  }
}
