// Where cards take their packets from.

internal import DriverKit
public import NetmapCore
internal import Netisr
internal import Packet
internal import Platform

/// The allocator that cards share, and the pools that are out of it. Cards over one memory can send each other's
/// packets without a copy. It outlives every packet: whoever holds cards holds it.
public final class CardMemory: @unchecked Sendable {
  public let allocator: NetmapAllocator
  /// Pools of cards that have gone, each with the worker that it was bound to.
  private let shelf = Guarded<[Shelved]>([])
  /// SAFETY of the conformance: the pool is asked on its worker, or by whoever has found it complete.
  private struct Shelved: @unchecked Sendable {
    let pool: PacketPool
    let worker: Worker
    /// Packets that are not back: its own worker counts.
    var missing: Int { worker.perform { pool.capacity - pool.available } }
  }

  public init(_ allocator: NetmapAllocator) {
    self.allocator = allocator
  }

  /// A pool of `count` buffers that belongs to `worker`. From worker 0, or from a thread that is no worker.
  func takePool(count: Int, for worker: Worker) throws(DriverError) -> PacketPool {
    var all = shelf.withLock { shelf in
      defer { shelf = [] }
      return shelf
    }
    // A pool whose packets are all back is used by no thread: it serves again, for whichever worker.
    var found: PacketPool?
    if let index = all.firstIndex(where: { $0.pool.capacity == count && $0.missing == 0 }) {
      found = all.remove(at: index).pool
      found?.unbind()
    } else {
      // Room for the new one: pools of other sizes that are complete go back to the allocator.
      all.removeAll { $0.missing == 0 }
    }
    let rest = all
    shelf.withLock { $0 += rest }
    let pool: PacketPool
    if let found { pool = found } else { pool = try PacketPool.lent(by: allocator, count: count) }
    pool.bind(to: worker.token)
    return pool
  }

  /// Keeps the pool of a card that has gone for as long as packets of it are about.
  func giveBack(_ pool: PacketPool, of worker: Worker) { shelf.withLock { $0.append(Shelved(pool: pool, worker: worker)) } }

  /// Buffers that packets of cards that have gone still hold.
  public var heldByPackets: Int { shelf.withLock { $0 }.reduce(0) { $0 + $1.missing } }
}
