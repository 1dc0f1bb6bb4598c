// Handlers by protocol, found without a lock.
//
// A slot holds a pointer to an entry that never changes. Whoever takes an entry out keeps it until
// every worker has been through its loop and every other thread that was reading has left.

internal import Glibc
internal import Packet
internal import Synchronization

/// A registered handler; immutable.
final class HandlerEntry: Sendable {
  let name: String
  let policy: OrderingPolicy
  let dispatch: DispatchPolicy
  let workersOnly: Bool
  let handler: @Sendable (consuming Packet) -> Void
  let m2flow: (@Sendable (borrowing Packet, _ source: UInt) -> Bool)?
  let m2cpuid: (@Sendable (borrowing Packet, _ source: UInt) -> CPUChoice)?
  let drainedcpu: (@Sendable (_ worker: Int) -> Void)?

  init(_ handler: NetisrHandler) {
    name = handler.name
    policy = handler.policy
    dispatch = handler.dispatch
    workersOnly = handler.workersOnly
    self.handler = handler.handler
    m2flow = handler.m2flow
    m2cpuid = handler.m2cpuid
    drainedcpu = handler.drainedcpu
  }
}

/// A protocol's place.
@safe struct HandlerSlot: ~Copyable {
  /// The entry, which the registry holds; nil: none.
  let entry = unsafe Atomic<UnsafeRawPointer?>(nil)
  /// Packets a queue.
  let limit = Atomic<Int>(0)
  /// Workers that still have to empty their queue of a former handler.
  let draining = Atomic<Int>(0)
  /// Stack instances in which the protocol is disabled: how many, and a bit for each.
  private let disabledCount = Atomic<Int>(0)
  private let disabled: UnsafeMutablePointer<Atomic<UInt64>>?

  init() {
    // SAFETY: zeroed memory is an array of atomics that are 0.
    unsafe disabled = calloc(1024, 8)?.bindMemory(to: Atomic<UInt64>.self, capacity: 1024)
  }
  deinit { unsafe Glibc.free(disabled) }

  @inline(__always) func isDisabled(_ vnet: Vnet) -> Bool {
    if _fastPath(disabledCount.load(ordering: .relaxed) == 0) { return false }
    return isMarked(vnet)
  }
  @inline(__always) var isDisabledSomewhere: Bool { disabledCount.load(ordering: .relaxed) != 0 }

  private func isMarked(_ vnet: Vnet) -> Bool {
    // SAFETY: 1024 times 64 bits: every number of 16 bits.
    guard let disabled = unsafe disabled else { return false }
    return unsafe disabled[Int(vnet.rawValue >> 6)].load(ordering: .acquiring) >> UInt64(vnet.rawValue & 63) & 1 == 1
  }

  /// Sets or clears a stack instance's mark. Under the registry's lock.
  func disable(_ vnet: Vnet, _ yes: Bool) {
    guard let disabled = unsafe disabled, isMarked(vnet) != yes else { return }
    let bit = UInt64(1) << UInt64(vnet.rawValue & 63), at = Int(vnet.rawValue >> 6)
    if yes {
      unsafe disabled[at].bitwiseOr(bit, ordering: .sequentiallyConsistent)
      disabledCount.wrappingAdd(1, ordering: .sequentiallyConsistent)
    } else {
      unsafe disabled[at].bitwiseAnd(~bit, ordering: .sequentiallyConsistent)
      disabledCount.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    }
  }

  func enableEverywhere() {
    guard let disabled = unsafe disabled else { return }
    for i in 0..<1024 { unsafe disabled[i].store(0, ordering: .relaxed) }
    disabledCount.store(0, ordering: .sequentiallyConsistent)
  }
}

/// Threads that are no worker and use an entry at this moment: counted by the parity of an epoch.
struct ForeignReaders: ~Copyable {
  private let epoch = Atomic<UInt64>(0)
  private let even = Atomic<Int>(0)
  private let odd = Atomic<Int>(0)

  /// Returns the epoch for `leave`.
  func enter() -> UInt64 {
    while true {
      let now = epoch.load(ordering: .sequentiallyConsistent)
      add(now, 1)
      if epoch.load(ordering: .sequentiallyConsistent) == now { return now }
      add(now, -1)
    }
  }
  func leave(_ epoch: UInt64) { add(epoch, -1) }

  /// Starts a new epoch; returns the old one.
  func turn() -> UInt64 { epoch.wrappingAdd(1, ordering: .sequentiallyConsistent).oldValue }
  /// Whether everybody who entered in that epoch has left.
  func isQuiet(_ epoch: UInt64) -> Bool {
    (epoch & 1 == 0 ? even.load(ordering: .sequentiallyConsistent) : odd.load(ordering: .sequentiallyConsistent)) == 0
  }

  private func add(_ epoch: UInt64, _ n: Int) {
    if epoch & 1 == 0 {
      even.wrappingAdd(n, ordering: .sequentiallyConsistent)
    } else {
      odd.wrappingAdd(n, ordering: .sequentiallyConsistent)
    }
  }
}
