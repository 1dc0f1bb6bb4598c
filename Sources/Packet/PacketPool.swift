// The pool: a stack of free records over buffers that netmap's allocator owns.
//
//     owner: get, put ──> stack
//     other workers:  put ──> a batch of their own ──┐ one exchange a batch
//     other threads:  put ───────────────────────────┴─> returned ──> the owner, when its stack runs low
//
// A pool that is bound to no worker (as it is made) belongs to whichever one thread uses it.

public import CRingway
public import DMAMemory
public import Synchronization

/// A pool's state, at a fixed address: drivers keep its fields in locals over a batch.
@frozen @safe public struct PoolState: ~Copyable {
  /// Free records; `stack[0 ..< top]` are valid.
  public let stack: UnsafeMutablePointer<RawPacket>
  public var top: Int
  public let capacity: Int
  /// Bytes in each buffer.
  public let bufferSize: Int
  /// Requests that found the pool empty.
  public var exhausted: UInt64
  /// The worker that takes from the stack and puts onto it (`rw_thread_token`); 0: bound to none.
  public let owner = Atomic<UInt32>(0)
  // What other threads write lies in a cache line of its own, past the pair that is fetched together.
  @usableFromInline let padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
  @usableFromInline let padding2: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
  /// Records that others have freed, linked by `next`.
  @usableFromInline let returned = unsafe Atomic<RawPacket?>(nil)
  @usableFromInline let returnedCount = Atomic<Int>(0)

  init(stack: UnsafeMutablePointer<RawPacket>, count: Int, bufferSize: Int) {
    unsafe self.stack = unsafe stack
    top = count
    capacity = count
    self.bufferSize = bufferSize
    exhausted = 0
  }

  /// Whether the calling thread may use the stack: it is the owner, or there is none.
  @inlinable @inline(__always)
  public static func isOwn(_ pool: UnsafeMutablePointer<PoolState>) -> Bool {
    let owner = unsafe pool.pointee.owner.load(ordering: .relaxed)
    return owner == rw_thread_token() || owner == 0
  }

  /// A free record, or nil when none is left (counted).
  @inlinable @inline(__always)
  public static func get(_ pool: UnsafeMutablePointer<PoolState>) -> RawPacket? {
    // SAFETY: top is in 0...capacity at all times; the owner alone takes from the pool.
    if unsafe _slowPath(pool.pointee.top == 0) {
      unsafe takeReturned(pool)
      guard unsafe pool.pointee.top != 0 else {
        unsafe pool.pointee.exhausted &+= 1
        return nil
      }
    }
    let top = unsafe pool.pointee.top
    unsafe pool.pointee.top = top &- 1
    return unsafe pool.pointee.stack[top &- 1]
  }

  /// For loops that look at `top` themselves, before they do: takes in what others have given back
  /// when fewer than `wanted` records are on the stack. On the owner.
  @inlinable @inline(__always)
  public static func ready(_ pool: UnsafeMutablePointer<PoolState>, for wanted: Int) {
    if unsafe _slowPath(pool.pointee.top < wanted) { unsafe takeReturned(pool) }
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
    guard unsafe _fastPath(isOwn(pool)) else { return unsafe putForeign(record) }
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
/// records are private memory. One thread takes packets out: the worker that the pool is bound to, or,
/// bound to none, the one thread that uses it. Packets of a bound pool may be freed on any thread.
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
      to: PoolState(stack: stack, count: indices.count, bufferSize: stride))
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
    unsafe state.deinitialize(count: 1)
    unsafe state.deallocate()
    unsafe UnsafeMutableRawPointer(records).deallocate()
  }

  /// Packets that are free now.
  ///
  /// Exact on the owner's thread, but for what other workers have freed in their present pass.
  public var available: Int {
    PoolState.flushReturns()
    return unsafe state.pointee.top &+ state.pointee.returnedCount.load(ordering: .acquiring)
  }
  /// Requests that found the pool empty.
  public var exhausted: UInt64 { unsafe state.pointee.exhausted }

  /// The worker that the pool is bound to (`Worker.token`); 0: none.
  public var owner: UInt32 { unsafe state.pointee.owner.load(ordering: .relaxed) }

  /// Binds the pool to a worker: it alone takes packets out from now on, and packets that are freed
  /// elsewhere come back to it. While no other thread uses the pool.
  /// - Parameter token: `Worker.token`.
  public func bind(to token: UInt32) { unsafe state.pointee.owner.store(token, ordering: .sequentiallyConsistent) }

  /// The pool is one thread's again, the caller's. When no other thread has packets of it any more.
  public func unbind() {
    unsafe state.pointee.owner.store(0, ordering: .sequentiallyConsistent)
    unsafe PoolState.takeReturned(state)
  }

  /// An empty packet, or nil when none is left. Always nil when the pool is another worker's.
  public func allocate() -> Packet? {
    guard unsafe PoolState.isOwn(state) else { return nil }
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
