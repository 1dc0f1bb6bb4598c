// The memory that ports share.

public import DMAMemory
internal import DriverKit
public import NetmapCore
internal import Packet
internal import Synchronization

/// How much memory, and where its pages come from.
public struct MemoryOptions: Sendable, Equatable {
  public enum Kind: String, Sendable, CaseIterable {
    /// Hugepages by memfd_create(2): needs no mount.
    case memfd
    /// Hugepages by libhugetlbfs, from a mounted hugetlbfs.
    case hugetlbfs
    /// Pages of the base size, for machines without hugepages.
    case normal
  }
  public var kind = Kind.memfd
  /// Bytes a hugepage; nil takes 2 MiB, or the kernel's only size.
  public var hugepageSize: Int?
  /// Packet buffers, for all ports together.
  public var buffers = 16384
  /// Bytes a buffer: a multiple of 64.
  public var bufferSize = 2048
  /// NUMA node; nil leaves it to the kernel.
  public var node: Int?

  public init() {}

  /// For ports of which none is a card of this process: nothing reaches it by DMA, normal pages do.
  var withoutCards: MemoryOptions {
    var options = self
    options.kind = .normal
    return options
  }

  /// As the allocator wants it.
  var backing: MemoryBacking {
    let sizes = HugepagePool.pageSizes()
    let preferred = hugepageSize ?? (sizes.contains(2 << 20) || sizes.isEmpty ? 2 << 20 : sizes[0])
    return switch kind {
    case .memfd: .memfd(pageSize: preferred)
    case .hugetlbfs: .hugetlbfs(pageSize: preferred)
    case .normal: .normalPages
    }
  }
}

/// Buffers and descriptors that any number of ports use together: a packet that one of them received
/// can be sent by another without a copy.
///
/// It owns every port's pools: a packet may be in another port's ring, or in the program's hands,
/// when its own port is closed. Packets must not outlive the memory; every port holds it.
public final class PortMemory: @unchecked Sendable {
  public let allocator: NetmapAllocator
  /// Bus addresses in use, for all memory that the same cards reach.
  public let space: IOVAAllocator
  /// Pools in use, and pools of closed ports. SAFETY of the unchecked conformance: under its lock,
  /// and a pool is given out again only when every packet is back, so that no thread uses it.
  private let lock = Mutex<Void>(())
  private var shelf: [PacketPool] = []

  /// - Parameter reachable: the cards that will use it, as far as they are known: bus addresses are
  ///   chosen so that all of them reach the memory.
  public init(_ options: MemoryOptions = MemoryOptions(), reachable: [any DMAMapper] = []) throws(RingwayError) {
    var sizes = PoolSizes(buffers: options.buffers, bufferSize: options.bufferSize)
    sizes.minimumBuffers = min(sizes.minimumBuffers, options.buffers)
    space = IOVAAllocator()
    do {
      allocator = try NetmapAllocator(
        sizes: sizes, backing: options.backing, node: options.node, reachable: reachable, space: space)
    } catch { throw .memory(error) }
  }

  /// A pool of `count` buffers: one of a closed port whose packets are all back, or a new one.
  func takePool(count: Int) throws(DriverError) -> PacketPool {
    try lock.withLock { _ throws(DriverError) -> PacketPool in
      if let index = shelf.firstIndex(where: { $0.capacity == count && $0.available == count }) {
        return shelf.remove(at: index)
      }
      // Room for the new one: pools of other sizes that are complete go back to the allocator.
      shelf.removeAll { $0.available == $0.capacity }
      return try PacketPool.lent(by: allocator, count: count)
    }
  }

  /// Keeps the pools of a closed port for as long as packets of theirs may be about.
  func giveBack(_ pools: [PacketPool]) { lock.withLock { _ in shelf += pools } }

  /// Set when there are fewer buffers than asked for: one line for a person.
  public var shortage: String? { allocator.shortage.map { "\($0)" } }
}
