// A port of a switch that programs register: made by its name, or persistent.
//
//    "vale0:a"   lives while somebody holds it, on the switch that its name says
//    "v0"        made by VALE_NEWIF, lives until VALE_DELIF; on a switch while it is attached ("vale0:v0"), on none before:
//                then what is sent is lost, and nothing comes
//
// A sync runs on the thread that asks. Closing a ring retires it: a sync that is under way ends first, one
// that comes later is skipped.

internal import CRingway
internal import DeviceIO
internal import Glibc
internal import NetmapAPI
internal import NetmapCore
internal import Netisr
internal import Platform
internal import Synchronization

/// How switches behave.
public struct ValeOptions: Sendable {
  /// Switches that there may be at a time.
  public var mostSwitches = 64
  /// Seconds after which a station that was silent counts as unknown, and is sent to through every port.
  public var lifetime: UInt32 = 300
  /// Slots marked INDIRECT have their bytes in their own buffer: a library has copied them on the program's side. Without
  /// one such slots are refused and counted: this process follows no program's pointers.
  public var takesIndirect = false
  public init() {}
}

/// What a port is made with.
struct ValeShape: Equatable, Sendable {
  var transmitRings = 1, receiveRings = 1
  var transmitSlots = 1024, receiveSlots = 1024
  var extraBuffers = 0

  static let mostRings = 16, mostSlots = 4096, mostExtra = 128 * 4096

  /// As netmap bounds what is asked for: 0 is the default.
  init(_ request: RegisterRequest) {
    func bound(_ wanted: Int, _ usual: Int, _ least: Int, _ most: Int) -> Int {
      wanted == 0 ? usual : min(max(wanted, least), most)
    }
    transmitRings = bound(Int(request.transmitRings), 1, 1, Self.mostRings)
    receiveRings = bound(Int(request.receiveRings), 1, 1, Self.mostRings)
    // One slot stays empty, so that a ring of one would hold nothing.
    transmitSlots = bound(Int(request.transmitSlots), 1024, 2, Self.mostSlots)
    receiveSlots = bound(Int(request.receiveSlots), 1024, 2, Self.mostSlots)
    extraBuffers = min(Int(request.extraBuffers), Self.mostExtra)
  }

  var counts: RingCounts { RingCounts(transmit: transmitRings, receive: receiveRings, hostTransmit: 0, hostReceive: 0) }

  /// The pools of a region of the port's own.
  func sizes(_ memory: NetmapMemory) throws(NetmapError) -> PoolSizes {
    try memory.options.privateSizes.holding(
      counts, transmitSlots: transmitSlots, receiveSlots: receiveSlots, extraBuffers: extraBuffers)
  }
}

/// A switch port.
final class ValePort: NetmapAdapter, @unchecked Sendable {
  let krings: PortKrings
  let station: ValeStation
  let counts: RingCounts
  let shape: ValeShape
  /// The name of a persistent port without a switch; nil for one that its name makes.
  let persistentName: String?
  private let options: ValeOptions
  private let clock: any TimeSource
  private let home = Guarded<ValeSwitch?>(nil)
  private let sources: [Slot<ValeSource>], queues: [Slot<ValeQueue>]
  // Worker 0's.
  /// The region asked for, or made for the port: kept while the port is.
  var region: NetmapRegion?
  var whenIdle: (ValePort) -> Void = { _ in }

  /// A place that changes only while no sync of its ring can be under way.
  private final class Slot<T>: @unchecked Sendable { var value: T? }

  init(
    _ name: String, _ shape: ValeShape, region: NetmapRegion?, persistent: Bool, options: ValeOptions, clock: any TimeSource
  ) throws(NetmapError) {
    krings = try PortKrings()
    station = ValeStation(name, queues: shape.receiveRings)
    counts = shape.counts
    self.shape = shape
    self.region = region
    persistentName = persistent ? name : nil
    self.options = options
    self.clock = clock
    sources = (0..<shape.transmitRings).map { _ in Slot() }
    queues = (0..<shape.receiveRings).map { _ in Slot() }
  }

  // MARK: What it is

  var name: String { station.name }
  var supportsOffsets: Bool { true }
  func slots(_ direction: RingDirection, host: Bool) -> Int {
    direction == .transmit ? shape.transmitSlots : shape.receiveSlots
  }
  func defaultRegion(_ memory: NetmapMemory) throws(NetmapError) -> NetmapRegion {
    if let region { return region }
    let made = try memory.makePrivate(try shape.sizes(memory), name: name)
    region = made
    return made
  }

  /// The switch that it is on.
  var vale: ValeSwitch? { home.withLock { $0 } }

  /// On worker 0: the station is the switch's, or nobody's.
  func move(to vale: ValeSwitch?) { home.withLock { $0 = vale } }

  /// On worker 0.
  func setHeader(_ length: Int) {
    if let vale { vale.change { station.header = length } } else { station.header = length }
  }

  func admit(_ selection: RingSelection) throws(NetmapError) {
    switch selection.mode {
    case .software, .nicAndSoftware, .oneSoftware:
      throw NetmapError(.EINVAL, "\(name) is a switch's port: it has no host rings")
    case .allNIC, .oneNIC, .null: break
    }
    if station.header > 0, !selection.flags.contains(.acceptVnetHeader) {
      throw NetmapError(.EIO, "\(name) has a virtio-net header of \(station.header) bytes; register with NR_ACCEPT_VNET_HDR")
    }
  }

  func idle() { whenIdle(self) }

  // MARK: Rings, on worker 0

  func activate(_ rings: [PortRing]) throws(NetmapError) {
    guard let allocator = krings.region?.allocator else { throw NetmapError(.ENXIO, "\(name) has no memory") }
    var fresh: [(Int, ValeQueue)] = []
    for ring in rings {
      let kring = ring.kring, number = ring.id.number
      guard ring.id.direction == .receive else {
        sources[number].value = unsafe ValeSource(kring, base: allocator.bufferBase, takesIndirect: options.takesIndirect)
        continue
      }
      let (one, all) = (kring.wakeup, krings.receiveWakeup)
      let queue = unsafe ValeQueue(kring, base: allocator.bufferBase, write: 0, limit: kring.count - 1) {
        one.notify()
        all.notify()
      }
      queues[number].value = queue
      fresh.append((number, queue))
    }
    exchange(fresh.map { ($0.0, $0.1) })
  }

  private func exchange(_ changes: [(number: Int, queue: ValeQueue?)]) {
    guard !changes.isEmpty else { return }
    let body = { for change in changes { self.station.queues[change.number] = change.queue } }
    if let vale { vale.change(body) } else { body() }
  }

  func deactivate(_ rings: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    for ring in rings {
      // No sync from here on.
      ring.kring.retire()
    }
    // And no sender.
    exchange(rings.filter { $0.id.direction == .receive }.map { ($0.id.number, nil) })
    for ring in rings {
      if ring.id.direction == .transmit { sources[ring.id.number].value = nil } else { queues[ring.id.number].value = nil }
      remains.program += RingRemains.slots(of: ring.kring)
      // Whoever syncs now finds neither source nor queue; the ring is freed when nobody does.
      ring.kring.end()
    }
    return remains
  }

  // MARK: Sync

  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    if kring.id.direction == .transmit { send(kring) } else { receive(kring, released) }
  }

  private func send(_ kring: Kring) {
    let number = kring.id.number
    guard let source = sources[number].value, source.kring === kring else { return }
    if let vale {
      let now = UInt32(truncatingIfNeeded: clock.now() / 1_000_000_000)
      kring.hwcur = vale.forward(source, from: kring.hwcur, to: kring.rhead, ring: number, station: station, now: now)
    } else {
      kring.hwcur = kring.rhead
    }
    kring.hwtail = kring.previous(kring.hwcur)
    // A slot that the program had no right to costs its frame; the program hears of it as of any violation.
    if let bad = source.firstBad {
      source.firstBad = nil
      kring.lose(bad)
    }
  }

  private func receive(_ kring: Kring, _ released: (from: UInt32, to: UInt32)) {
    guard let queue = queues[kring.id.number].value, queue.kring === kring else { return }
    let ledger = kring.ledger, holder = kring.holder, slots = unsafe queue.slots, count = queue.count
    var i = released.from
    // SAFETY: the kring's numbers are below its count of slots.
    while i != released.to, unsafe ledger.isHeld(rw_read32(slots + Int(i) &* RingOffset.slotSize), by: holder) {
      i = i &+ 1 == count ? 0 : i &+ 1
    }
    kring.hwcur = i
    if i != released.to { kring.lose(i, head: i) }
    queue.setLimit(kring.previous(i))
    kring.hwtail = queue.ready
  }

  /// What a ring's queue counted.
  func received(_ ring: Int) -> ValeCounters? { queues[ring].value?.counters }
}
