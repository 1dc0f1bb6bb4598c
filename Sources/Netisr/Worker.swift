// A worker: one thread that owns what it works on.

public import Packet
internal import CRingway
internal import Platform
internal import Synchronization

/// What a worker polls beside its queues: a card's queue, a device.
public protocol WorkerPoller: AnyObject, Sendable {
  /// Handles up to `budget` packets. Returns how many.
  func poll(budget: Int) -> Int
  /// Before the worker sleeps: lets interrupts through, then looks again; true when there is work
  /// and the worker must not sleep.
  func arm() -> Bool
  /// The worker is awake again: keeps interrupts away.
  func disarm()
  /// The descriptor that an interrupt makes readable; -1 when there is none.
  var eventDescriptor: Int32 { get }
}

/// Something that was started on a worker and can be ended: timers, watches, pollers, rollups.
public final class WorkerToken: Sendable {
  private let cancelled = Atomic(false)
  public init() {}
  /// It does not run again after this returns on its worker; from another thread, after the run in
  /// which it may be now.
  public func cancel() { cancelled.store(true, ordering: .releasing) }
  public var isCancelled: Bool { cancelled.load(ordering: .acquiring) }
}

/// A message that exists once: at most one of it is on its way.
public final class KickMessage: Sendable {
  let body: @Sendable () -> Void
  let queued = Atomic(false)
  public init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  public var isQueued: Bool { queued.load(ordering: .acquiring) }
}

/// Where a message that is waited for leaves its result.
private final class PerformResult<T: Sendable>: Sendable {
  let value = Mutex<T?>(nil)
}

/// A worker. See the module's essay.
@safe public final class Worker: @unchecked Sendable {
  public let id: Int
  /// The processor it is bound to; nil: any.
  public let cpu: Int?
  public unowned let netisr: Netisr
  /// Unique in the process; pools that this worker owns carry it.
  public let token: UInt32
  /// Packets for what the stack makes itself, set by whoever owns the memory. Used on this worker only.
  public var pool: PacketPool?

  private static let tokens = Atomic<UInt32>(1)
  private let wake: EventFD
  private var thread: JoinedThread?
  private struct Timer {
    var at: UInt64
    var every: UInt64
    var token: WorkerToken
    var body: @Sendable () -> Void
  }
  private struct State {
    var messages: [@Sendable () -> Void] = []
    // Addresses of records that the queue owns.
    var packets: [(NetisrProtocol, UInt)] = []
    var timers: [Timer] = []
    var rollups: [(priority: Int, body: @Sendable () -> Void)] = []
    var stopping = false
  }
  private let state = Mutex(State())

  init(id: Int, cpu: Int?, netisr: Netisr) throws(NetisrError) {
    self.id = id
    self.cpu = cpu
    self.netisr = netisr
    token = Self.tokens.wrappingAdd(1, ordering: .relaxed).oldValue
    do { wake = try EventFD() } catch { throw .system("\(error)") }
  }

  /// The worker that the calling thread is; nil on other threads.
  public static var current: Worker? {
    guard let worker = unsafe rw_thread_worker() else { return nil }
    // SAFETY: the thread is the worker for as long as the pointer is set.
    return unsafe Unmanaged<Worker>.fromOpaque(worker).takeUnretainedValue()
  }

  /// Whether the calling thread is this worker.
  public var isCurrent: Bool { rw_thread_token() == token }

  func asCurrent<T>(_ body: () -> T) -> T {
    let (oldToken, oldID, old) = unsafe (rw_thread_token(), rw_thread_worker_id(), rw_thread_worker())
    unsafe rw_thread_set(token, UInt32(id), Unmanaged.passUnretained(self).toOpaque())
    defer { unsafe rw_thread_set(oldToken, oldID, old) }
    return body()
  }

  func start() throws(NetisrError) {
    do {
      thread = try JoinedThread(name: "netisr \(id)", cpu: cpu) { [self] in
        asCurrent {
          while !(state.withLock { $0.stopping }) {
            if !pass() {
              var event = pollfd(fd: wake.descriptor, events: 1, revents: 0)
              _ = unsafe rw_poll(&event, 1, 1_000_000)
              wake.drain()
            }
          }
          while pass() {}
        }
      }
    } catch { throw .system("\(error)") }
  }

  func stop() {
    state.withLock { $0.stopping = true }
    wake.signal()
    thread = nil
  }

  func enqueue(_ proto: NetisrProtocol, _ packet: consuming Packet) {
    let raw = unsafe packet.intoRaw()
    let address = UInt(bitPattern: raw)
    state.withLock { $0.packets.append((proto, address)) }
    wake.signal()
  }

  // MARK: Messages

  /// Runs `body` on this worker, after the messages that were sent before. Returns at once.
  public func post(_ body: @escaping @Sendable () -> Void) {
    state.withLock { $0.messages.append(body) }
    wake.signal()
  }

  /// Sends a message that exists once. Returns false when it is on its way already.
  @discardableResult public func send(_ kick: KickMessage) -> Bool {
    guard kick.queued.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged else {
      return false
    }
    post {
      kick.queued.store(false, ordering: .releasing)
      kick.body()
    }
    return true
  }

  /// Runs `body` on this worker and waits for it; inline when the caller is this worker. In a manual
  /// dispatcher the calling thread becomes the worker.
  public func perform<T: Sendable>(_ body: @escaping @Sendable () -> T) -> T {
    if isCurrent { return body() }
    if netisr.configuration.isManual {
      return asCurrent {
        while pass() {}
        return body()
      }
    }
    let result = PerformResult<T>()
    post {
      let value = body()
      result.value.withLock { $0 = value }
    }
    while true {
      if let value = result.value.withLock({ $0 }) { return value }
      netisr.clock.sleep(nanoseconds: 20_000)
    }
  }

  // MARK: Timers, rollups, pollers, descriptors

  /// Runs `body` on this worker after `nanoseconds`, and every `period` nanoseconds after that (0: once).
  @discardableResult
  public func schedule(after nanoseconds: UInt64, every period: UInt64 = 0, _ body: @escaping @Sendable () -> Void) -> WorkerToken {
    let token = WorkerToken()
    let timer = Timer(at: netisr.clock.now() &+ nanoseconds, every: period, token: token, body: body)
    state.withLock { $0.timers.append(timer) }
    wake.signal()
    return token
  }

  /// Runs `body` when this worker has run its messages, before it sleeps; higher priorities first.
  public func addRollup(priority: Int, _ body: @escaping @Sendable () -> Void) {
    state.withLock {
      let at = $0.rollups.firstIndex { $0.priority < priority } ?? $0.rollups.count
      $0.rollups.insert((priority, body), at: at)
    }
  }

  /// Polls a device on this worker until the token is cancelled.
  public func add(_ poller: any WorkerPoller) -> WorkerToken { WorkerToken() }

  /// Runs `body` on this worker whenever `descriptor` is readable, until the token is cancelled. The
  /// descriptor must stay open until then.
  public func watch(_ descriptor: Int32, _ body: @escaping @Sendable () -> Void) throws(NetisrError) -> WorkerToken { WorkerToken() }

  /// An empty packet of this worker's pool; nil when there is none. On this worker only.
  public func allocate() -> Packet? { pool?.allocate() }

  // MARK: One pass

  func pass() -> Bool {
    var busy = false
    let now = netisr.clock.now()
    let due = state.withLock { state -> [Timer] in
      let due = state.timers.filter { $0.at <= now && !$0.token.isCancelled }
      state.timers.removeAll { $0.at <= now || $0.token.isCancelled }
      return due
    }
    for var timer in due {
      busy = true
      timer.body()
      guard timer.every > 0 else { continue }
      timer.at &+= timer.every
      let again = timer
      state.withLock { $0.timers.append(again) }
    }
    let messages = state.withLock { state in
      defer { state.messages = [] }
      return state.messages
    }
    for message in messages {
      busy = true
      message()
    }
    let packets = state.withLock { state in
      defer { state.packets = [] }
      return state.packets
    }
    for (proto, address) in packets {
      busy = true
      let packet = unsafe Packet(unsafe: RawPacket(bitPattern: address)!)
      if let handler = netisr.state.withLock({ $0.handlers[Int(proto.rawValue & 15)] }) {
        handler.handler(packet)
      } else {
        netisr.drops.drop(packet, .netisrUnregistered, proto: proto.rawValue)
      }
    }
    for rollup in state.withLock({ $0.rollups }) { rollup.body() }
    return busy
  }
}
