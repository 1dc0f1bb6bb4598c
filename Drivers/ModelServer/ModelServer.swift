// ModelServer: a device model behind a socket, for drivers of this project and for virtual machines.
//
//     QEMU, ringway ── vfio-user messages ──> ClientSocket ──> ModelSession ──┬─> model.read, write
//            │                                                                ├─> ClientMemory
//            │                                                                └─> InterruptLines
//            └───────── doorbells: stores into shared pages ──> BARMemory <── model.step
//
// The protocol is vfio-user (QEMU's docs/interop/vfio-user): VFIO's requests as messages on a local
// stream socket, with memory and eventfds passed as descriptors. One client at a time; the next one
// waits in the socket's queue until the one before has left.
//
// Invariants
// - A client is not trusted. Nothing it sends ends the server: a message that makes no sense is
//   refused or ends that connection, a file that it cuts short is zeros, and what it leaves behind
//   when it goes, killed or not, is undone: memory unmapped, interrupts disconnected, descriptors
//   closed, the device reset.
// - Messages are served in order, one thread does everything, and nothing waits for a client.
// - The wire goes on while no client is there: what arrives then is lost, as with a card that no
//   driver has taken.

internal import CRingway
public import ModelKit
internal import Platform
public import SystemPackage

/// Why there is no server.
public enum ModelServerError: Error, Equatable, CustomStringConvertible {
  case pathTooLong(String)
  case notASocket(String)
  case inUse(String)
  case socket(String, String, Errno)
  case system(String, Errno)

  public var description: String {
    switch self {
    case .pathTooLong(let path):
      "A socket cannot be called \"\(path)\": it needs a path of 1 to 103 bytes. Choose another with --socket."
    case .notASocket(let path):
      "\(path) exists and is no socket. Choose another path with --socket, or remove the file."
    case .inUse(let path):
      "Another server listens on \(path). Stop it, or choose another path with --socket."
    case .socket(let path, let verb, let errno):
      "The socket \(path) could not be used (\(verb): \(errno)). Choose a path in a directory that you may write to with --socket."
    case .system(let what, let errno):
      "\(what) failed: \(errno). Close other programs or raise their limits, and try again."
    }
  }
}

/// What happens at a server.
public enum ModelServerEvent: Sendable {
  case connected(client: Int)
  /// The counts are the connection's own.
  case left(client: Int, reason: String, SessionCounts)
}

/// A model that clients reach through a socket.
public final class ModelServer {
  public struct Options: Sendable {
    public var mode: AccessMode
    /// How far virtual time goes with each access, in trapped mode. Nanoseconds.
    public var nanosecondsAnAccess: UInt64 = 1000
    /// Frames that one round moves at most.
    public var budget = 256
    /// Messages that one round answers at most.
    public var messages = 64
    public init(mode: AccessMode = .shared) { self.mode = mode }
  }

  public let model: any DeviceModel
  public let options: Options
  /// Called on the serving thread.
  public var onEvent: (ModelServerEvent) -> Void = { _ in }
  /// Clients so far.
  public private(set) var clients = 0
  /// What all clients before the present one did.
  private var past = SessionCounts()
  private var listener: ListeningSocket?
  public let path: String
  private var socket: ClientSocket?
  private var session: ModelSession?
  /// The present client has said something.
  private var isAnnounced = false
  let started = MonotonicClock().now()

  /// - Throws: when the socket cannot be made.
  public init(_ model: any DeviceModel, path: String, options: Options = Options()) throws(ModelServerError) {
    self.model = model
    self.options = options
    self.path = path
    listener = try ListeningSocket(path: path)
    model.bus.sharesDoorbells = options.mode == .shared
  }

  public var hasClient: Bool { session != nil }

  /// What all clients did.
  public var counts: SessionCounts { session.map { past.adding($0.currentCounts) } ?? past }

  /// Parts with the client, if there is one.
  public func disconnect(reason: String = "the server ended the connection") {
    guard let session else { return }
    session.end()
    let counts = session.currentCounts
    past = past.adding(counts)
    self.session = nil
    socket = nil
    if isAnnounced { onEvent(.left(client: clients, reason: reason, counts)) }
  }

  /// Asks the client to let go of the device, parts with it, and removes the socket.
  public func close() {
    session?.interrupts.deliver(InterruptIndex.request, 0)
    disconnect(reason: "the server was stopped")
    listener = nil
  }

  // MARK: Rounds

  /// Answers what has been asked, and lets the device do what there is to do.
  /// - Parameters:
  ///   - listens: whether the socket is looked at; the device's turn comes more often.
  /// - Returns: messages, frames, descriptors and interrupts moved; 0 means idle.
  public func round(listens: Bool = true) -> Int {
    if session == nil { return listens ? admit() : 0 }
    var moved = listens ? answer() : 0
    guard let session else { return moved + 1 }
    session.interrupts.unmaskByEvent()
    if options.mode == .shared { model.bus.now = max(model.bus.now, MonotonicClock().now() &- started) }
    moved += model.step(budget: options.budget)
    if session.memory.wasCutShort {
      disconnect(reason: "a file that it had shared became shorter than what it had mapped")
      moved += 1
    }
    return moved
  }

  private func admit() -> Int {
    guard let socket = listener?.accept() else { return 0 }
    drainWire()
    self.socket = socket
    isAnnounced = false
    session = ModelSession(model, mode: options.mode, nanosecondsAnAccess: options.nanosecondsAnAccess)
    return 1
  }

  /// Who says nothing was only looking whether somebody is here.
  private func announce() {
    guard !isAnnounced else { return }
    isAnnounced = true
    clients += 1
    onEvent(.connected(client: clients))
  }

  /// What arrived while there was no driver is lost.
  private func drainWire() {
    guard model.wire.descriptor >= 0 else { return }
    var left = 4096
    while left > 0, unsafe model.wire.receive(at: model.bus.now, { _, _ in }) { left -= 1 }
  }

  private func answer() -> Int {
    guard let socket, let session else { return 0 }
    if socket.isBlocked, !socket.flush() {
      disconnect(reason: "the connection broke")
      return 1
    }
    var answered = 0
    while answered < options.messages, !socket.isBlocked {
      switch socket.receive() {
      case .nothing: return answered
      case .ended(let reason):
        disconnect(reason: reason)
        return answered + 1
      case .message(let bytes, let passed):
        announce()
        let reply = session.handle(bytes[...], passed)
        guard socket.send(reply.bytes, passing: reply.descriptor), !reply.ends else {
          disconnect(reason: reply.ends ? "it does not speak this version of vfio-user" : "the connection broke")
          return answered + 1
        }
        answered += 1
      }
    }
    return answered
  }

  /// Trapped mode, and nobody has asked anything for a while: virtual time goes on to what is next.
  func jump() -> Bool { session?.jumpToDeadline() ?? false }

  // MARK: Waiting

  /// What wakes the server: the socket, the wire, the client's unmask event. -1 where there is none.
  var wakeDescriptors: [Int32] {
    guard let session, let socket else { return [listener?.descriptor ?? -1, -1, -1] }
    return [socket.descriptor, model.wire.descriptor, session.interrupts.resampleDescriptor]
  }
  var isBlocked: Bool { socket?.isBlocked ?? false }

  /// Nanoseconds until the device has something to do by itself; nil when that is not known.
  var untilDeadline: UInt64? {
    guard session != nil, options.mode == .shared,
      let next = [model.deadline, model.wire.nextArrival].compactMap({ $0 }).min()
    else { return nil }
    let now = MonotonicClock().now() &- started
    return next > now ? next - now : 0
  }
}

extension SessionCounts {
  func adding(_ other: SessionCounts) -> SessionCounts {
    var sum = self
    sum.messages &+= other.messages
    sum.refusals &+= other.refusals
    sum.reads &+= other.reads
    sum.writes &+= other.writes
    sum.maps &+= other.maps
    sum.unmaps &+= other.unmaps
    sum.resets &+= other.resets
    sum.interrupts &+= other.interrupts
    return sum
  }
}
