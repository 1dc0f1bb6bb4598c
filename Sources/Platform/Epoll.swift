// Waiting for many descriptors.

internal import CRingway
internal import SystemPackage

/// An epoll(7) instance. Each watched descriptor has a token, which comes back with its events.
public struct Epoll: ~Copyable, Sendable {
  /// What a descriptor is watched for. Errors and hang-ups are always reported.
  public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// `EPOLLIN`
    public static let readable = Interest(rawValue: EPOLLIN.rawValue)
    /// `EPOLLOUT`
    public static let writable = Interest(rawValue: EPOLLOUT.rawValue)
    /// `EPOLLRDHUP`: the peer of a stream socket has finished sending.
    public static let peerClosed = Interest(rawValue: EPOLLRDHUP.rawValue)
    /// `EPOLLET`: reported once per change, not while it lasts.
    public static let edgeTriggered = Interest(rawValue: EPOLLET.rawValue)
    /// `EPOLLONESHOT`: reported once, then silent until `modify`.
    public static let oneShot = Interest(rawValue: EPOLLONESHOT.rawValue)
  }

  /// What a descriptor is ready for.
  public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let readable = Readiness(rawValue: EPOLLIN.rawValue)
    public static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
    public static let peerClosed = Readiness(rawValue: EPOLLRDHUP.rawValue)
    /// `EPOLLERR`
    public static let error = Readiness(rawValue: EPOLLERR.rawValue)
    /// `EPOLLHUP`
    public static let hangUp = Readiness(rawValue: EPOLLHUP.rawValue)
  }

  /// One descriptor that is ready.
  public struct Event: Sendable, Equatable {
    public let token: UInt64
    public let ready: Readiness
  }

  /// How many events one `wait` hands over at most; the rest comes with the next.
  public static let batch = 64

  private let owned: OwnedDescriptor
  /// Readable itself while any watched descriptor is ready: an epoll can be watched by another.
  public var descriptor: Int32 { owned.raw }

  public init() throws(SystemError) {
    owned = OwnedDescriptor(taking: try call("create", "epoll") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
  }

  /// Watches `descriptor`. Closing its last duplicate ends the watch by itself.
  public func add(_ descriptor: Int32, for interest: Interest = .readable, token: UInt64) throws(SystemError) {
    try control(EPOLL_CTL_ADD, descriptor, interest, token)
  }

  /// Changes what a watched descriptor is watched for, and its token.
  public func modify(_ descriptor: Int32, for interest: Interest, token: UInt64) throws(SystemError) {
    try control(EPOLL_CTL_MOD, descriptor, interest, token)
  }

  public func remove(_ descriptor: Int32) throws(SystemError) {
    try control(EPOLL_CTL_DEL, descriptor, [], 0)
  }

  private func control(_ verb: Int32, _ descriptor: Int32, _ interest: Interest, _ token: UInt64) throws(SystemError) {
    var event = unsafe epoll_event()
    unsafe event.events = interest.rawValue
    unsafe event.data.u64 = token
    let epoll = owned.raw
    // SAFETY: the kernel copies the event during the call.
    _ = try call("watch", "descriptor \(descriptor)") { unsafe epoll_ctl(epoll, verb, descriptor, &event) }
  }

  /// Waits until something is ready or the time is over, and hands the events to `body`.
  /// - Parameter milliseconds: 0 only looks, -1 waits for ever.
  /// - Returns: the number of events; 0 also after a signal handler ran.
  @discardableResult public func wait(milliseconds: Int32, _ body: (Event) -> Void) throws(SystemError) -> Int {
    let epoll = owned.raw
    var failure: SystemError?
    let count = unsafe withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: Epoll.batch) { events in
      // SAFETY: the buffer holds `batch` events, and the kernel says how many it filled.
      let count = unsafe epoll_wait(epoll, events.baseAddress!, Int32(Epoll.batch), milliseconds)
      guard count >= 0 else {
        let errno = lastErrno()
        if errno != .interrupted { failure = SystemError("wait", "epoll", errno) }
        return 0
      }
      for index in 0..<Int(count) {
        let event = unsafe events[index]
        unsafe body(Event(token: event.data.u64, ready: Readiness(rawValue: event.events)))
      }
      return Int(count)
    }
    if let failure { throw failure }
    return count
  }

  /// The same, as an array: for control paths.
  public func wait(milliseconds: Int32) throws(SystemError) -> [Event] {
    var events: [Event] = []
    try wait(milliseconds: milliseconds) { events.append($0) }
    return events
  }
}
