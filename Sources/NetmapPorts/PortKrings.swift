// A port's krings: made when somebody first asks for them, shared, and gone with their last holder.

internal import CRingway
public import NetmapAPI
public import NetmapCore
internal import Synchronization

/// The rings of one adapter, and how many programs hold each. Worker 0's, but for the wakeups and the counts.
public final class PortKrings: @unchecked Sendable {
  /// For programs that wait on several rings of one direction.
  public let receiveWakeup: KringWakeup
  public let transmitWakeup: KringWakeup
  // Worker 0's.
  /// While the port is open.
  public private(set) var region: NetmapRegion?
  /// Holds the buffers of slots that are the adapter's, where it trades buffers.
  public private(set) var port: BufferOwner?
  /// The switch's port that has all of this one for itself: nobody else may open any part of it.
  public var takenBy: String?
  /// Called when nothing of the port lies in its region any more.
  public var onRelease: ((NetmapRegion) -> Void)?
  /// Told of rings that are made and of the last close: monitors.
  var observers: [any PortObserver] = []
  /// Given to every ring that is made.
  public internal(set) var settings = KringSettings()
  private var entries: [RingID: Entry] = [:]
  private var busy = 0
  private var grave: [UInt32] = []
  private let opened = Atomic(0)

  private struct Entry {
    let ring: PortRing
    var users: Int
    var isExclusive: Bool
  }

  public init() throws(NetmapError) {
    do {
      receiveWakeup = try KringWakeup()
      transmitWakeup = try KringWakeup()
    } catch { throw NetmapError(.ENOMEM, "\(error)") }
  }

  /// Programs that have the port open.
  public var openPorts: Int { opened.load(ordering: .acquiring) }
  /// The rings that are in use. On worker 0.
  public var rings: [PortRing] { entries.values.map(\.ring) }
  /// A ring that is in use; nil for any other. On worker 0.
  public func ring(_ id: RingID) -> PortRing? { entries[id]?.ring }

  // MARK: Opening

  /// Takes rings for a program. On worker 0.
  /// - Parameters:
  ///   - region: where fresh rings are made.
  ///   - extra: buffers beside the rings; there may be fewer.
  ///   - offsets: an OFFSETS option, for fresh rings.
  /// - Throws: EINVAL for rings that do not exist, EBUSY for rings that somebody wants alone, EAGAIN while the last
  ///   programs' memory is in use, ENOMEM.
  func open(
    _ adapter: any NetmapAdapter, _ selection: RingSelection, in region: NetmapRegion, extra: Int, offsets: OffsetsOption? = nil
  ) throws(NetmapError) -> OpenRings {
    let name = adapter.name, counts = adapter.counts
    guard let ids = selection.rings(of: counts) else {
      throw NetmapError(
        .EINVAL, "\(name): there is no such ring; it has \(counts.transmit) to send, \(counts.receive) to receive, and \(counts.hostReceive) to the host")
    }
    if let takenBy { throw NetmapError(.EBUSY, "\(name) is attached to a switch as \(takenBy); detach it first") }
    try checkFree(ids, selection, name)
    if let own = self.region, own !== region {
      guard openPorts > 0 else {
        throw NetmapError(.EAGAIN, "\(name) is letting go of memory region \(own.id), which it was open in until now; try again")
      }
      throw NetmapError(.EINVAL, "\(name) is open in memory region \(own.id); ask for that one, or for none")
    }
    var plan: OffsetPlan?
    if let offsets { plan = try planOffsets(offsets, ids, region, adapter) }
    let holder = try region.enter()
    if self.region == nil { self.region = region }
    do throws(NetmapError) {
      try make(ids.filter { entries[$0] == nil }, adapter, selection, region, holder, plan)
      for id in ids { entries[id]?.users += 1 }
      let memory = try makeInterface(ids, adapter, region, holder, extra)
      opened.wrappingAdd(1, ordering: .acquiringAndReleasing)
      return OpenRings(
        rings: ids.compactMap { entries[$0]?.ring }, memory: memory.memory, extra: memory.extra, holder: holder, region: region,
        offsets: plan?.answer)
    } catch {
      for id in ids where entries[id] != nil && (entries[id]?.users ?? 0) > 0 { entries[id]?.users -= 1 }
      remove(ids.filter { entries[$0]?.users == 0 }, adapter)
      region.leave()
      forgetRegion()
      throw error
    }
  }

  private func checkFree(_ ids: [RingID], _ selection: RingSelection, _ name: String) throws(NetmapError) {
    let isExclusive = selection.flags.contains(.exclusive)
    for id in ids {
      guard let entry = entries[id] else { continue }
      if entry.isExclusive || isExclusive { throw NetmapError(.EBUSY, "\(name): \(id) is held by another program") }
    }
  }

  /// Makes rings and has the adapter use them.
  private func make(
    _ ids: [RingID], _ adapter: any NetmapAdapter, _ selection: RingSelection, _ region: NetmapRegion, _ holder: BufferOwner,
    _ plan: OffsetPlan?
  ) throws(NetmapError) {
    guard !ids.isEmpty else { return }
    if adapter.tradesBuffers, port == nil {
      do { port = try region.allocator.registerOwner("netmap:\(adapter.name)") } catch {
        throw NetmapError(.ENOMEM, "\(adapter.name): \(error)")
      }
    }
    var made: [PortRing] = []
    do throws(NetmapError) {
      for id in ids { made.append(try makeRing(id, adapter, region.allocator, holder)) }
      // Before anybody else sees the rings.
      if let plan { for ring in made { plan.apply(to: ring.kring) } }
      try adapter.activate(made)
    } catch {
      for ring in made { discard(ring, region.allocator) }
      throw error
    }
    for ring in made {
      entries[ring.id] = Entry(ring: ring, users: 0, isExclusive: selection.flags.contains(.exclusive))
    }
    for observer in observers { observer.made(made) }
  }

  private func makeRing(
    _ id: RingID, _ adapter: any NetmapAdapter, _ allocator: NetmapAllocator, _ holder: BufferOwner
  ) throws(NetmapError) -> PortRing {
    let count = adapter.slots(id.direction, host: id.isHost), counts = adapter.counts, isSent = id.direction == .transmit
    let number = id.isHost ? (isSent ? counts.transmit : counts.receive) + id.number : id.number
    let trades = adapter.tradesBuffers && !isSent
    do {
      let memory = try allocator.allocateRing(
        slots: count, id: UInt16(truncatingIfNeeded: number), direction: id.direction, owner: holder)
      do {
        let buffers = try allocator.allocateBuffers(count, owner: trades ? port ?? holder : holder)
        do {
          let kring = Kring(
            id, memory, ledger: allocator.ledger, bufferSize: allocator.bufferSize, holder: holder, wakeup: try KringWakeup(),
            settings: settings)
          if trades { return PortRing(kring: kring, slots: ReceiveSlots(kring, indices: buffers, port: port ?? holder)) }
          let length = UInt16(truncatingIfNeeded: min(allocator.bufferSize, 0xffff))
          for (i, index) in buffers.enumerated() { kring.ring.setSlot(UInt32(i), NetmapSlot(bufferIndex: index, length: length)) }
          return PortRing(kring: kring, slots: nil)
        } catch {
          allocator.freeBuffers(buffers)
          throw error
        }
      } catch {
        allocator.freeRing(memory.index, owner: holder)
        throw error
      }
    } catch { throw NetmapError(.ENOMEM, "\(adapter.name): \(error)") }
  }

  /// A ring that nobody was told of. Other programs of the region can write into its slots all the same.
  private func discard(_ ring: PortRing, _ allocator: NetmapAllocator) {
    if let named = ring.slots {
      let parts = named.dissolve()
      allocator.freeBuffers(parts.port, owner: named.port)
      allocator.freeBuffers(parts.program, owner: ring.kring.holder)
    } else {
      allocator.freeBuffers(RingRemains.slots(of: ring.kring), owner: ring.kring.holder)
    }
    allocator.freeRing(ring.kring.memory.index, owner: ring.kring.holder)
  }

  private func makeInterface(
    _ ids: [RingID], _ adapter: any NetmapAdapter, _ region: NetmapRegion, _ holder: BufferOwner, _ extra: Int
  ) throws(NetmapError) -> (memory: InterfaceMemory, extra: Int) {
    // Programs always see one pair of host rings at least.
    var counts = adapter.counts
    counts.hostTransmit = max(1, counts.hostTransmit)
    counts.hostReceive = max(1, counts.hostReceive)
    let memory: InterfaceMemory
    do {
      memory = try region.allocator.allocateInterface(
        name: adapter.name, counts: counts, privateMemory: region.isPrivate, owner: holder)
    } catch { throw NetmapError(.ENOMEM, "\(adapter.name): \(error)") }
    for id in ids {
      guard let ring = entries[id]?.ring else { continue }
      memory.list(ring.kring.memory, at: counts.place(of: id.direction, id.number, host: id.isHost))
    }
    let list = region.allocator.allocateExtra(max(0, extra), holder: holder)
    memory.interface.extraBuffers = list.head
    return (memory, list.count)
  }

  // MARK: Closing

  /// A program's port goes; with its last holder a ring goes back. On worker 0.
  func close(_ open: OpenRings, _ adapter: any NetmapAdapter) {
    let allocator = open.region.allocator
    allocator.freeExtra(from: open.memory.interface.extraBuffers, holder: open.holder)
    var unused: [RingID] = []
    for ring in open.rings {
      entries[ring.id]?.users -= 1
      if let users = entries[ring.id]?.users, users <= 0 { unused.append(ring.id) }
    }
    remove(unused, adapter)
    allocator.freeInterface(open.memory.index, owner: open.holder)
    open.region.leave()
    let left = opened.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue
    if left == 0 {
      adapter.idle()
      for observer in observers { observer.closed() }
      observers = []
    }
    forgetRegion()
  }

  /// Takes rings from the adapter, and gives rings and buffers back.
  private func remove(_ ids: [RingID], _ adapter: any NetmapAdapter) {
    let rings = ids.compactMap { entries[$0]?.ring }
    guard let region, let holder = rings.first?.kring.holder else { return }
    let remains = adapter.deactivate(rings), allocator = region.allocator
    busy += remains.stillBusy
    for ring in rings {
      entries[ring.id] = nil
      // No sync gets in any more: the memory may be another ring's in a moment.
      ring.kring.retire()
      adapter.wake(ring.kring)
      allocator.freeRing(ring.kring.memory.index, owner: holder)
    }
    guard let port else {
      allocator.freeBuffers(remains.program, owner: holder)
      return
    }
    // Nothing that a card may still read is free before the card is done. A program may have named such a buffer in any
    // ring; what it lost is taken back when the region's last port closes.
    let ledger = allocator.ledger
    grave += remains.port + remains.program.filter { ledger.transfer($0, from: holder, to: port) }
    bury()
  }

  /// Parts of the adapter have let go of what closed rings left with them. On worker 0.
  public func finished(_ parts: Int) {
    busy -= parts
    bury()
    forgetRegion()
  }

  private func bury() {
    guard busy == 0, let port, let region, !grave.isEmpty else { return }
    region.allocator.freeBuffers(grave, owner: port)
    grave = []
  }

  /// A port that nobody has open and that has let go of everything may be opened in another region.
  private func forgetRegion() {
    guard openPorts == 0, busy == 0, entries.isEmpty, let region else { return }
    if let port { region.allocator.retireOwner(port) }
    port = nil
    self.region = nil
    onRelease?(region)
  }

  deinit {
    if let port { region?.allocator.retireOwner(port) }
  }
}

/// Looks on at a port's rings. Calls come on worker 0.
protocol PortObserver: AnyObject, Sendable {
  /// Rings that somebody is about to hold.
  func made(_ rings: [PortRing])
  /// Nobody holds the port any more.
  func closed()
}

/// What a program holds of a port.
struct OpenRings: Sendable {
  let rings: [PortRing]
  let memory: InterfaceMemory
  /// Extra buffers that there were.
  let extra: Int
  let holder: BufferOwner
  let region: NetmapRegion
  /// What an OFFSETS option got.
  let offsets: OffsetsOption?
}
