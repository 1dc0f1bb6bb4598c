// The ledger of drops: a table for each worker, written by it alone, and one for all other threads.
//
//     worker ──no lock──> its table ──┐
//     worker ──no lock──> its table ──┼──> snapshot: the sum
//     others ────lock───> their table ┘
//
// Invariants
// - A count is never lost: where a table is full, drops are counted by their reason alone.
// - Memory is fixed: a table is made at a worker's first drop and stays.

internal import CRingway
internal import Synchronization

/// Counts drops, and shows them to whoever looks.
@safe public final class DropLedger: @unchecked Sendable {
  /// Workers that get a table of their own; the others share the locked one.
  private static let slots = 64
  private let tables = UnsafeMutablePointer<Atomic<DropTable.Pointer?>>.allocate(capacity: slots)
  private let others: DropTable.Pointer
  private let lock = Mutex(())
  private let observers = Mutex<[any DropObserver]>([])
  private let isObserved = Atomic(false)

  public init() {
    for i in 0..<Self.slots { unsafe (tables + i).initialize(to: Atomic(nil)) }
    unsafe others = DropTable.make(owner: 0)
  }

  deinit {
    for i in 0..<Self.slots {
      if let table = unsafe tables[i].load(ordering: .acquiring) { unsafe DropTable.free(table) }
    }
    unsafe tables.deinitialize(count: Self.slots)
    unsafe tables.deallocate()
    unsafe DropTable.free(others)
  }

  /// Counts the packet under its receiving interface (or `interface`) and frees it.
  public func drop(
    _ packet: consuming Packet, _ reason: DropReason, interface: InterfaceIndex? = nil, queue: UInt8 = 0, proto: UInt8 = 0
  ) {
    count(1, bytes: UInt64(packet.count), reason, interface: interface ?? packet.interface, queue: queue, proto: proto)
    guard isObserved.load(ordering: .acquiring) else { return }
    for observer in observers.withLock({ $0 }) { observer.dropped(packet, reason: reason, interface: interface ?? packet.interface, queue: queue, proto: proto) }
  }

  /// Counts packets that are gone already: what a card says that it lost.
  public func count(
    _ packets: UInt64, bytes: UInt64 = 0, _ reason: DropReason, interface: InterfaceIndex, queue: UInt8 = 0, proto: UInt8 = 0
  ) {
    let site = DropSite(interface: interface, queue: queue, proto: proto, reason: reason)
    if let table = unsafe ownTable() { return unsafe table.pointee.add(site, packets, bytes) }
    lock.withLock { _ in unsafe others.pointee.add(site, packets, bytes) }
  }

  /// The calling worker's table; nil on threads that have none.
  @inline(__always) private func ownTable() -> DropTable.Pointer? {
    let token = rw_thread_token()
    guard token != 0 else { return nil }
    let slot = Int(rw_thread_worker_id()) % Self.slots
    // SAFETY: the slot is inside the array, and a table that was published stays.
    if let table = unsafe tables[slot].load(ordering: .acquiring) {
      return unsafe table.pointee.owner == token ? table : nil
    }
    return unsafe makeTable(slot, token)
  }

  @inline(never) private func makeTable(_ slot: Int, _ token: UInt32) -> DropTable.Pointer? {
    let table = unsafe DropTable.make(owner: token)
    if unsafe tables[slot].compareExchange(expected: nil, desired: table, ordering: .acquiringAndReleasing).exchanged {
      return unsafe table
    }
    // A worker of another dispatcher was quicker.
    unsafe DropTable.free(table)
    return nil
  }

  /// Every line, summed over threads; sorted by interface, queue, protocol and reason. Drops that found
  /// a table full have neither interface nor protocol.
  public func snapshot() -> [DropCount] {
    var sums: [DropSite: (packets: UInt64, bytes: UInt64)] = [:]
    func collect(_ table: DropTable.Pointer) {
      unsafe table.pointee.forEach { site, packets, bytes in
        let old = sums[site, default: (0, 0)]
        sums[site] = (old.packets &+ packets, old.bytes &+ bytes)
      }
    }
    for i in 0..<Self.slots {
      if let table = unsafe tables[i].load(ordering: .acquiring) { unsafe collect(table) }
    }
    lock.withLock { _ in unsafe collect(others) }
    return sums.map {
      DropCount(
        interface: $0.key.interface, queue: $0.key.queue, proto: $0.key.proto, reason: $0.key.reason,
        packets: $0.value.packets, bytes: $0.value.bytes)
    }.sorted {
      ($0.interface.index, $0.interface.generation, $0.queue, $0.proto, $0.reason.rawValue)
        < ($1.interface.index, $1.interface.generation, $1.queue, $1.proto, $1.reason.rawValue)
    }
  }

  public func add(_ observer: any DropObserver) {
    observers.withLock {
      $0.append(observer)
      isObserved.store(true, ordering: .releasing)
    }
  }

  public func remove(_ observer: any DropObserver) {
    observers.withLock {
      $0.removeAll { $0 === observer }
      isObserved.store(!$0.isEmpty, ordering: .releasing)
    }
  }
}
