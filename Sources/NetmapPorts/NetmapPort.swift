// Netmap for a program in the same process: the API of netmap_user.h, in Swift.
//
//     let port = try system.register(PortRequest("ix0", RingSelection(.nicAndSoftware)))
//     while port.wait(for: .receive, milliseconds: 100).contains(.receive) {
//       for ring in port.receiveRings {
//         while !ring.isEmpty { let slot = ring.slot(ring.cur) … ; ring.advance() }
//       }
//     }
//     port.close()

internal import DeviceIO
public import NetmapAPI
public import NetmapCore
internal import CRingway
internal import Glibc
internal import Netisr
internal import Synchronization

/// What a program waits for, and what it gets: poll(2)'s events.
public struct NetmapEvents: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// POLLIN: a receive ring has slots that the program has not looked at (`cur != tail`).
  public static let receive = NetmapEvents(rawValue: 1)
  /// POLLOUT: a transmit ring has free slots.
  public static let transmit = NetmapEvents(rawValue: 2)
  /// POLLERR: a ring was reset because of what the program wrote, or the port is closed.
  public static let error = NetmapEvents(rawValue: 4)
}

/// A ring as its program uses it: the shared memory, and nothing that is trusted.
@safe public struct NetmapProgramRing: Sendable {
  public let id: RingID
  public let ring: NetmapRing
  let bufferBase: UInt
  public let bufferSize: Int

  /// Slots.
  public var count: UInt32 { ring.slotCount }
  public var head: UInt32 { ring.loadHead() }
  public var cur: UInt32 { ring.loadCur() }
  public var tail: UInt32 { ring.loadTail() }
  /// Nothing to read, or no room to write.
  public var isEmpty: Bool { cur == tail }
  /// Slots from head to tail: received frames' slots, or room.
  public var space: UInt32 {
    let (head, tail) = (self.head, self.tail)
    return tail >= head ? tail &- head : tail &+ count &- head
  }
  public func next(_ i: UInt32) -> UInt32 { i &+ 1 >= count ? 0 : i &+ 1 }
  public func slot(_ i: UInt32) -> NetmapSlot { ring.slot(i) }
  public func setSlot(_ i: UInt32, _ slot: NetmapSlot) { ring.setSlot(i, slot) }
  /// Sets head and cur: what lies before is done with at the next sync.
  public func setHead(_ i: UInt32) {
    ring.storeCur(i)
    ring.storeHead(i)
  }
  /// One slot further.
  public func advance() { setHead(next(head)) }

  /// The bytes of a buffer; empty for an index that the region does not have.
  public func withBuffer<R>(_ index: UInt32, _ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
    // SAFETY: the base is the region's, which lives as long as the port.
    let base = unsafe UnsafeMutableRawPointer(bitPattern: bufferBase)
    let start = unsafe base.map { unsafe $0 + Int(index) * bufferSize }
    return unsafe body(UnsafeMutableRawBufferPointer(start: start, count: start == nil ? 0 : bufferSize))
  }
}

/// A netmap port that somebody holds. Threads may sync different rings at a time.
public final class NetmapPort: Sendable {
  public let adapter: any NetmapAdapter
  let open: OpenRings
  public let flags: RegisterFlags
  private let control: Worker
  private let clock: any TimeSource
  private let isClosed = Atomic(false)

  init(_ adapter: any NetmapAdapter, _ open: OpenRings, control: Worker, clock: any TimeSource, flags: RegisterFlags) {
    self.adapter = adapter
    self.open = open
    self.control = control
    self.clock = clock
    self.flags = flags
  }

  deinit { close() }

  /// The interface in the region's memory that lists the rings.
  public var memory: InterfaceMemory { open.memory }
  public var region: NetmapRegion { open.region }
  /// Extra buffers that were there to give.
  public var extraBuffers: Int { open.extra }
  /// What an OFFSETS option got; nil without one.
  public var offsets: OffsetsOption? { open.offsets }
  /// The trusted rings, in the order card before host and transmit before receive.
  public var krings: [Kring] { open.rings.map(\.kring) }

  // MARK: Rings

  public var rings: [NetmapProgramRing] { krings.map(view) }
  public var transmitRings: [NetmapProgramRing] { pick(.transmit, host: false) }
  public var receiveRings: [NetmapProgramRing] { pick(.receive, host: false) }
  public var hostTransmitRings: [NetmapProgramRing] { pick(.transmit, host: true) }
  public var hostReceiveRings: [NetmapProgramRing] { pick(.receive, host: true) }

  private func pick(_ direction: RingDirection, host: Bool) -> [NetmapProgramRing] {
    krings.filter { $0.id.direction == direction && $0.id.isHost == host }.map(view)
  }

  private func view(_ kring: Kring) -> NetmapProgramRing {
    let base = unsafe UInt(bitPattern: open.region.allocator.bufferBase)
    return NetmapProgramRing(id: kring.id, ring: kring.ring, bufferBase: base, bufferSize: kring.bufferSize)
  }

  /// Counters of a ring; nil for one that this port does not hold.
  public func counters(_ id: RingID) -> KringCounters? {
    guard let kring = krings.first(where: { $0.id == id }) else { return nil }
    return adapter.worker(of: id)?.perform { kring.counters } ?? kring.counters
  }

  // MARK: Sync

  /// NIOCTXSYNC or NIOCRXSYNC of every ring of a direction. Never fails: a ring that the program
  /// broke is reset, and `wait` says so.
  public func sync(_ direction: RingDirection) {
    for ring in open.rings where ring.kring.id.direction == direction { _ = synchronise(ring.kring) }
  }

  /// A sync of one ring.
  public func sync(_ ring: NetmapProgramRing) {
    if let found = open.rings.first(where: { $0.kring.id == ring.id }) { _ = synchronise(found.kring) }
  }

  /// A sync of one of this port's rings, on the worker that the ring wants, or here.
  /// - Returns: false when the ring was reset, or is gone, or the region has lost memory.
  @discardableResult public func synchronise(_ kring: Kring) -> Bool {
    guard !isClosed.load(ordering: .acquiring), !open.region.isQuarantined else { return false }
    let adapter = self.adapter
    guard let worker = adapter.worker(of: kring.id), !worker.isCurrent else { return adapter.synchronise(kring) }
    return worker.perform { adapter.synchronise(kring) }
  }

  // MARK: Waiting

  /// poll(2) on the port: transmits what is pending (unless told not to), receives when asked, and
  /// sleeps until a ring is ready.
  /// - Parameter milliseconds: 0 does not sleep, negative waits without end.
  public func wait(for events: NetmapEvents, milliseconds: Int) -> NetmapEvents {
    let end = clock.now() &+ UInt64(max(0, milliseconds)) &* 1_000_000
    var ready = look(events)
    if !ready.isEmpty || milliseconds == 0 { return ready }
    let wakeups = self.wakeups(events)
    for wakeup in wakeups { wakeup.arm() }
    defer {
      for wakeup in wakeups {
        wakeup.disarm()
        wakeup.drain()
      }
    }
    while true {
      ready = look(events)
      let now = clock.now()
      if !ready.isEmpty || (milliseconds > 0 && now >= end) { return ready }
      sleep(wakeups, nanoseconds: milliseconds < 0 ? 1_000_000_000 : min(end &- now, 1_000_000_000))
    }
  }

  /// One ring of a direction has a wakeup of its own; several share their direction's.
  private func wakeups(_ events: NetmapEvents) -> [KringWakeup] {
    var wakeups: [KringWakeup] = []
    for direction in [RingDirection.transmit, .receive] where events.contains(direction == .transmit ? .transmit : .receive) {
      if let one = wakeup(direction) { wakeups.append(one) }
    }
    return wakeups
  }

  /// What a program that waits on this port's rings of a direction listens to; nil when it holds none.
  public func wakeup(_ direction: RingDirection) -> KringWakeup? {
    let held = open.rings.filter { $0.kring.id.direction == direction }
    guard let only = held.first?.kring else { return nil }
    return held.count == 1 ? only.wakeup : direction == .transmit ? adapter.krings.transmitWakeup : adapter.krings.receiveWakeup
  }

  private func look(_ events: NetmapEvents) -> NetmapEvents {
    if isClosed.load(ordering: .acquiring) { return .error }
    var ready: NetmapEvents = []
    for held in open.rings {
      let kring = held.kring
      let isSent = kring.id.direction == .transmit
      let wanted = events.contains(isSent ? .transmit : .receive)
      let syncs = isSent
        ? !flags.contains(.noTransmitPoll) || wanted : wanted || flags.contains(.receivePoll) && events.contains(.transmit)
      if syncs, !synchronise(kring) { ready.insert(.error) }
      if wanted, kring.ring.loadCur() != kring.ring.loadTail() { ready.insert(isSent ? .transmit : .receive) }
    }
    return ready
  }

  private func sleep(_ wakeups: [KringWakeup], nanoseconds: UInt64) {
    var list = wakeups.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
    unsafe list.withUnsafeMutableBufferPointer { buffer in
      if let first = buffer.baseAddress { _ = unsafe rw_poll(first, UInt(buffer.count), nanoseconds) }
    }
    for wakeup in wakeups { wakeup.drain() }
  }

  /// Gives the rings back: a card is the stack's again when nobody else holds them. Idempotent. From worker 0 or from a
  /// thread that is no worker.
  public func close() {
    guard !isClosed.exchange(true, ordering: .acquiringAndReleasing) else { return }
    let (adapter, open) = (self.adapter, self.open)
    control.perform { adapter.krings.close(open, adapter) }
  }
}
