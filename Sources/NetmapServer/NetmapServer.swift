// NetmapServer: netmap for programs in other processes.
//
//   program ══ SOCK_SEQPACKET ══> the server's thread ── requests ──> NetmapDescriptor ── worker 0 ──> NetmapSystem
//      │  ^                           │ attach: region, sync page, doorbells
//      │  └── one byte: look again ── │
//      v                              v
//   sync page ── request, done ──> SessionPart on each worker involved ──> NetmapAdapter.synchronise
//
// A connection is an open /dev/netmap. It may be shared by processes; when the last of them has closed it, or was killed,
// the socket hangs up and everything goes back. Answers go to the socket pair that came with the request.
//
// Invariants
// - Nothing that a program sends or writes makes a worker or another program wait: requests are handled on a thread of
//   their own, answers and wakeups are sent without waiting, descriptors that programs share are neither read nor written.
// - Every descriptor that comes in is closed, whatever becomes of its request.
// - Rings go back after the workers have let go of them: pollers end, then the port closes on worker 0, then page and
//   doorbells go with their last reference.

public import Control
internal import ControlClient
internal import CRingway
public import NetmapAPI
public import NetmapPorts
internal import Netisr
public import Platform
internal import Synchronization

public struct NetmapServerOptions: Sendable {
  /// The socket's file; nil: connections come by `adopt` alone.
  public var path: String?
  public var mode: UInt32 = 0o660
  /// Whose the socket's file is.
  public var group: UInt32?
  /// Descriptors that may be open at a time, and how many of one user other than root.
  public var maximumClients = 1024
  public var maximumPerUser = 512
  /// Microseconds that a worker looks for a program's next sync before it wants to be woken.
  public var spinMicroseconds = 20
  /// Called on the server's thread: what was refused, and why.
  public var log: @Sendable (String) -> Void = { _ in }
  /// Answers what a program asks of an interface by its name. On the server's thread.
  public var query: @Sendable (String) throws(NetmapError) -> PortQueryReply = { name throws(NetmapError) in
    throw NetmapError(.ENXIO, "\(name): nothing is known of an interface with this name.")
  }
  public init() {}
}

/// Where programs connect when nothing else is said.
public enum NetmapSocket {
  public static let defaultPath = "/run/ringway/netmap.sock"
}

/// What has been counted since the server was made.
public struct NetmapServerCounters: Equatable, Sendable {
  public var sessions: UInt64 = 0
  public var requests: UInt64 = 0
  /// Connections turned away or closed for what they sent, and requests without an answering end.
  public var refused: UInt64 = 0
  public var syncs: UInt64 = 0
  public var wakeups: UInt64 = 0
  public var doorbells: UInt64 = 0
  /// Sessions that were closed because their memory was taken from under the daemon's feet.
  public var quarantined: UInt64 = 0
  public init() {}
}

/// The server of netmap's socket.
public final class NetmapServer: @unchecked Sendable {
  public let options: NetmapServerOptions
  let system: NetmapSystem
  let settings: SyncSettings
  let placement: Placement
  let clock = MonotonicClock()

  struct State {
    var adopted: [(descriptor: Int32, peer: NetmapPeer?)] = []
    var isStopping = false
    var isOver = false
    /// What is connected, for reports.
    var clients: [UInt64: ClientEntry] = [:]
    /// Of sessions that are over, and what the server itself counts.
    var past = NetmapServerCounters()
  }
  let state = Guarded(State())
  let wake: EventFD
  private var thread: JoinedThread?
  private(set) var listener: ListeningPath?
  // The server's thread's alone.
  var connections: [UInt64: Connection] = [:]
  var nextToken: UInt64 = 16
  var perUser: [UInt32: Int] = [:]

  /// - Parameter system: whose ports are offered. Its workers may run already, or be started later.
  public init(_ system: NetmapSystem, _ options: NetmapServerOptions) throws(SystemError) {
    self.options = options
    self.system = system
    wake = try EventFD()
    settings = SyncSettings(spinMicroseconds: options.spinMicroseconds, server: wake.descriptor)
    placement = try Placement(system.netisr, settings)
  }

  deinit { stop() }

  /// Listens; nobody is answered yet. EADDRINUSE when another daemon listens at the path.
  public func listen() throws(ControlError) {
    guard listener == nil, let path = options.path else { return }
    listener = try ListeningPath(path, kind: .packets, mode: options.mode, group: options.group, backlog: 128, key: "netmap.socket")
  }

  /// Listens, if that is not done yet, and starts the thread.
  public func start() throws(ControlError) {
    try listen()
    _ = rw_most_descriptors()
    do { thread = try JoinedThread(name: "netmap") { [unowned self] in run() } } catch {
      throw ControlError("EAGAIN", "netmap's thread cannot be started: \(error).")
    }
  }

  /// Programs see an error, and their rings go back; then the socket is removed. Idempotent. Not from a worker.
  public func stop() {
    state.withLock { $0.isStopping = true }
    wake.signal()
    thread = nil
    listener = nil
    let isFirst = state.withLock { state in
      defer { state.isOver = true }
      return !state.isOver
    }
    if isFirst { placement.end() }
  }

  /// A connected socket becomes a client. For tests, and for socket activation.
  /// - Parameter peer: nil asks the kernel.
  public func adopt(_ descriptor: consuming OwnedDescriptor, peer: NetmapPeer? = nil) {
    let raw = descriptor.release()
    let isLate = state.withLock { state in
      if !state.isOver { state.adopted.append((raw, peer)) }
      return state.isOver
    }
    if isLate { OwnedDescriptor(taking: raw).close() } else { wake.signal() }
  }

  /// Microseconds that a worker looks for a program's next sync before it wants to be woken.
  public var spinMicroseconds: Int {
    get { Int(settings.spin.load(ordering: .relaxed) / 1000) }
    set { settings.spin.store(UInt64(max(0, min(newValue, 1_000_000))) &* 1000, ordering: .relaxed) }
  }

  /// Descriptors that are open.
  public var clientCount: Int { state.withLock { $0.clients.count } }
}

extension OwnedDescriptor {
  /// Closes it here and now.
  consuming func close() {}
}

/// The process at the other end, as the kernel says.
public struct NetmapPeer: Sendable, Equatable {
  public var pid: Int32
  public var uid: UInt32
  public init(pid: Int32, uid: UInt32) {
    self.pid = pid
    self.uid = uid
  }

  /// Of a connected local socket; nobody when the kernel does not say.
  init(of descriptor: Int32) {
    var peer = rw_peer()
    // SAFETY: a local structure of the size that the call is told.
    let isKnown = unsafe rw_peer_credentials(descriptor, &peer) == 0
    self.init(pid: isKnown ? peer.pid : 0, uid: isKnown ? peer.uid : .max)
  }

  /// The process's name; "" when it has ended.
  var comm: String { (try? Files.line("/proc/\(pid)/comm")) ?? "" }
}
