// The pool: a stack of free records over buffers that netmap's allocator owns.

public import DMAMemory

/// A pool's state, at a fixed address: drivers keep its fields in locals over a batch.
@frozen @safe public struct PoolState {
  /// Free records; `stack[0 ..< top]` are valid.
  public let stack: UnsafeMutablePointer<RawPacket>
  public var top: Int
  public let capacity: Int
  /// Bytes in each buffer.
  public let bufferSize: Int
  /// Requests that found the pool empty.
  public var exhausted: UInt64

  /// A free record, or nil when none is left (counted).
  @inlinable @inline(__always)
  public static func get(_ pool: UnsafeMutablePointer<PoolState>) -> RawPacket? {
    // SAFETY: top is in 0...capacity at all times; one thread uses the pool.
    let top = unsafe pool.pointee.top
    guard top != 0 else {
      unsafe pool.pointee.exhausted &+= 1
      return nil
    }
    unsafe pool.pointee.top = top &- 1
    return unsafe pool.pointee.stack[top &- 1]
  }

  /// Gives a record and the chain behind it back.
  @inlinable @inline(__always)
  public static func put(_ record: RawPacket) {
    if unsafe record.pointee.next != nil { return unsafe putChain(record) }
    unsafe putOne(record)
  }

  /// Gives one record back whose `next` is nil.
  @inlinable @inline(__always)
  public static func putOne(_ record: RawPacket) {
    // SAFETY: a record is on the stack or owned, never both, so the stack has room for it.
    let pool = unsafe record.pointee.pool
    let top = unsafe pool.pointee.top
    unsafe pool.pointee.stack[top] = record
    unsafe pool.pointee.top = top &+ 1
  }

  @inlinable @inline(never)
  static func putChain(_ head: RawPacket) {
    var at: RawPacket? = unsafe head
    while let record = unsafe at {
      unsafe at = record.pointee.next
      unsafe record.pointee.next = nil
      unsafe putOne(record)
    }
  }
}

/// Free packets of one thread.
///
/// The buffers come from netmap's allocator and go back to it when the pool is dissolved; the
/// records are private memory. Not thread-safe: a pool, its packets and its batches stay on one
/// thread.
@safe public final class PacketPool {
  /// The state that drivers work on.
  public let state: UnsafeMutablePointer<PoolState>
  private let records: UnsafeMutablePointer<PacketRecord>
  public let capacity: Int
  /// Runs when the pool is dissolved: gives the buffers back to whoever lent them.
  private let onDissolve: () -> Void

  /// - Parameters:
  ///   - base: first byte of buffer 0.
  ///   - stride: bytes from one buffer to the next, and in each.
  ///   - iova: bus address of buffer 0.
  ///   - indices: which buffers the pool may use; each once.
  ///   - onDissolve: called once, when the pool goes away.
  public init(
    unsafe base: UnsafeMutableRawPointer, stride: Int, iova: IOVA, indices: [UInt32],
    onDissolve: @escaping () -> Void = {}
  ) {
    capacity = indices.count
    self.onDissolve = onDissolve
    // A cache line for each record: aligned, so that no record shares one.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: max(1, indices.count) * 64, alignment: 64)
    unsafe records = memory.bindMemory(to: PacketRecord.self, capacity: max(1, indices.count))
    let stack = UnsafeMutablePointer<RawPacket>.allocate(capacity: max(1, indices.count))
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(
      to: PoolState(stack: stack, top: indices.count, capacity: indices.count, bufferSize: stride, exhausted: 0))
    for (i, index) in indices.enumerated() {
      let offset = Int(index) * stride
      unsafe (records + i).initialize(
        to: PacketRecord(
          buffer: base + offset, iova: iova.advanced(by: offset).rawValue, pool: state, next: nil, length: 0, offset: 0,
          frameLength: 0, hash: 0, vlan: 0, interface: 0, flags: [], headerLengths: 0, generation: 0, timestamp: 0))
      // Lowest buffer on top: fresh rings then use neighbouring memory.
      unsafe (stack + (indices.count - 1 - i)).initialize(to: records + i)
    }
  }

  deinit {
    onDissolve()
    unsafe state.pointee.stack.deallocate()
    unsafe state.deallocate()
    unsafe UnsafeMutableRawPointer(records).deallocate()
  }

  /// Packets that are free now.
  public var available: Int { unsafe state.pointee.top }
  /// Requests that found the pool empty.
  public var exhausted: UInt64 { unsafe state.pointee.exhausted }

  /// An empty packet, or nil when none is left.
  public func allocate() -> Packet? {
    guard let record = unsafe PoolState.get(state) else { return nil }
    unsafe record.pointee.setSingle(length: 0, offset: 0)
    unsafe record.pointee.flags = []
    unsafe record.pointee.headerLengths = 0
    unsafe record.pointee.interface = 0
    unsafe record.pointee.timestamp = 0
    unsafe record.pointee.generation = 0
    return unsafe Packet(unsafe: record)
  }
}
