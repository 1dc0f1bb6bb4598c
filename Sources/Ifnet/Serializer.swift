// Serializers: what keeps the callers of a driver apart.
//
// A driver gives its own, all four functions or none: then one lock stands before all of it. A card's queue here
// belongs to one worker, and "the lock is busy" means "I am not that worker".

internal import Glibc
public import Netisr
internal import Synchronization

/// What a serializer keeps apart.
public enum SerializerSlot: Hashable, Sendable {
  /// Every one of the driver's locks, in their order.
  case all
  /// Control: flags, filters, resets.
  case main
  case receive(Int)
  /// A transmit ring: the hardware serializer of its subqueue.
  case transmit(Int)
}

/// The four functions of if_serialize, if_tryserialize, if_deserialize and the assertion.
public protocol InterfaceSerializer: AnyObject, Sendable {
  /// Waits until the slot is this thread's.
  func enter(_ slot: SerializerSlot)
  /// Takes the slot if nobody has it.
  func tryEnter(_ slot: SerializerSlot) -> Bool
  func leave(_ slot: SerializerSlot)
  /// Whether the calling thread has the slot.
  func isHeld(_ slot: SerializerSlot) -> Bool
  /// A transmit ring has another owner worker; called on the old one.
  func ownerChanged(queue: Int, to worker: Int)
}

extension InterfaceSerializer {
  public func ownerChanged(queue: Int, to worker: Int) {}
}

/// One lock that knows its holder. Not recursive.
@safe private final class HeldLock: @unchecked Sendable {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let holder = Atomic<UInt>(0)

  init() {
    unsafe mutex = .allocate(capacity: 1)
    unsafe mutex.initialize(to: pthread_mutex_t())
    unsafe pthread_mutex_init(mutex, nil)
  }

  deinit {
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  // SAFETY of the calls: the mutex lives as long as the object.
  func enter() {
    unsafe pthread_mutex_lock(mutex)
    holder.store(UInt(pthread_self()), ordering: .relaxed)
  }
  func tryEnter() -> Bool {
    guard unsafe pthread_mutex_trylock(mutex) == 0 else { return false }
    holder.store(UInt(pthread_self()), ordering: .relaxed)
    return true
  }
  func leave() {
    holder.store(0, ordering: .relaxed)
    unsafe pthread_mutex_unlock(mutex)
  }
  var isHeld: Bool { holder.load(ordering: .relaxed) == UInt(pthread_self()) }
}

/// One lock for the whole driver: what an interface gets whose driver brings no serializer.
public final class LockSerializer: InterfaceSerializer {
  private let lock = HeldLock()
  public init() {}
  public func enter(_ slot: SerializerSlot) { lock.enter() }
  public func tryEnter(_ slot: SerializerSlot) -> Bool { lock.tryEnter() }
  public func leave(_ slot: SerializerSlot) { lock.leave() }
  public func isHeld(_ slot: SerializerSlot) -> Bool { lock.isHeld }
}

/// A lock for control, and one for each ring; `.all` takes them in that order.
public final class SlotSerializer: InterfaceSerializer {
  private let main = HeldLock()
  private let receive: [HeldLock]
  private let transmit: [HeldLock]

  public init(receive: Int, transmit: Int) {
    self.receive = (0..<max(0, receive)).map { _ in HeldLock() }
    self.transmit = (0..<max(0, transmit)).map { _ in HeldLock() }
  }

  private func locks(_ slot: SerializerSlot) -> [HeldLock] {
    switch slot {
    case .all: [main] + receive + transmit
    case .main: [main]
    case .receive(let n): receive.indices.contains(n) ? [receive[n]] : [main]
    case .transmit(let n): transmit.indices.contains(n) ? [transmit[n]] : [main]
    }
  }

  public func enter(_ slot: SerializerSlot) { for lock in locks(slot) { lock.enter() } }
  public func tryEnter(_ slot: SerializerSlot) -> Bool {
    let wanted = locks(slot)
    for (n, lock) in wanted.enumerated() where !lock.tryEnter() {
      for taken in wanted[..<n].reversed() { taken.leave() }
      return false
    }
    return true
  }
  public func leave(_ slot: SerializerSlot) { for lock in locks(slot).reversed() { lock.leave() } }
  public func isHeld(_ slot: SerializerSlot) -> Bool { locks(slot).allSatisfy { $0.isHeld } }
}

/// No lock at all: a queue is its owner worker's, control is worker 0's. For cards.
///
/// `enter` is for the owner alone: the start interlock calls it in kicks, which run there.
public final class OwnerSerializer: InterfaceSerializer {
  private let owners: [OwnerCell]
  private unowned let netisr: Netisr

  public init(_ netisr: Netisr, queues: Int) {
    self.netisr = netisr
    owners = (0..<max(1, queues)).map { _ in OwnerCell() }
  }

  public func ownerChanged(queue: Int, to worker: Int) {
    if owners.indices.contains(queue) { owners[queue].value.store(worker, ordering: .releasing) }
  }

  public func enter(_ slot: SerializerSlot) {}
  public func tryEnter(_ slot: SerializerSlot) -> Bool { isHeld(slot) }
  public func leave(_ slot: SerializerSlot) {}
  public func isHeld(_ slot: SerializerSlot) -> Bool {
    guard let worker = Worker.current, worker.netisr === netisr else { return false }
    return switch slot {
    case .all, .main: worker.id == 0
    case .receive(let n), .transmit(let n): owners.indices.contains(n) && owners[n].value.load(ordering: .acquiring) == worker.id
    }
  }
}

/// The number of an owner worker, where arrays and closures can hold it.
final class OwnerCell: Sendable {
  let value = Atomic<Int>(0)
}
