// From netmap's allocator to a thread's packet pool.

public import NetmapCore
public import Packet

extension PacketPool {
  /// A pool over `count` buffers lent by `allocator`; they go back when the pool goes away.
  public static func lent(by allocator: NetmapAllocator, count: Int) throws(DriverError) -> PacketPool {
    let indices: [UInt32]
    do { indices = try allocator.allocateBuffers(count) } catch {
      throw .allocator("\(error)")
    }
    return unsafe PacketPool(
      unsafe: allocator.bufferBase, stride: allocator.bufferSize, iova: allocator.bufferIOVABase, indices: indices
    ) { _ = allocator.freeBuffers(indices) }
  }
}
