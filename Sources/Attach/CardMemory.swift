// Where cards take their packets from.

internal import DriverKit
public import NetmapCore
internal import Netisr
internal import Packet
internal import Synchronization

/// The allocator that cards share, and the pools that are out of it. Cards over one memory can send each other's
/// packets without a copy. It outlives every packet: whoever holds cards holds it.
public final class CardMemory: @unchecked Sendable {
  public let allocator: NetmapAllocator
  /// The region that netmap programs of these cards share.
  public let region: NetmapRegion
  /// Pools of cards that have gone, each with the worker that it was bound to.
  private let shelf = Mutex<[Shelved]>([])
  private struct Shelved: @unchecked Sendable {
    let pool: PacketPool
    let worker: Worker
  }

  public init(_ allocator: NetmapAllocator) {
    self.allocator = allocator
    region = NetmapRegion(allocator)
  }

  /// A pool of `count` buffers that belongs to `worker`.
  func takePool(count: Int, for worker: Worker) throws(DriverError) -> PacketPool {
    // A pool whose packets are all back is used by no thread: it serves again, for whichever worker.
    let old = shelf.withLock { shelf -> PacketPool? in
      guard let index = shelf.firstIndex(where: { $0.pool.capacity == count && $0.pool.available == count }) else {
        // Room for the new one: pools of other sizes that are complete go back to the allocator.
        shelf.removeAll { $0.pool.available == $0.pool.capacity }
        return nil
      }
      return shelf.remove(at: index).pool
    }
    let pool: PacketPool
    if let old { pool = old } else { pool = try PacketPool.lent(by: allocator, count: count) }
    pool.bind(to: worker.token)
    return pool
  }

  /// Keeps the pool of a card that has gone for as long as packets of it are about.
  func giveBack(_ pool: PacketPool, of worker: Worker) { shelf.withLock { $0.append(Shelved(pool: pool, worker: worker)) } }

  /// Buffers that packets of cards that have gone still hold.
  public var heldByPackets: Int {
    shelf.withLock { $0.reduce(0) { $0 + $1.pool.capacity - $1.pool.available } }
  }
}
