// Packets that are freed on a worker that is not their pool's owner.

public import CRingway
public import Synchronization

extension PoolState {
  /// Records that a worker collects before it gives them back.
  @inlinable static var returnBatch: UInt64 { 32 }

  /// Gives one record back to a pool whose owner is another thread: by way of the calling worker's
  /// batch; at once from a thread that is no worker.
  @inlinable @inline(never)
  static func putForeign(_ record: RawPacket) {
    // SAFETY: the record is the caller's, so its link is; the batch is the calling thread's.
    let pool = unsafe record.pointee.pool
    if rw_thread_token() == 0 { return unsafe giveBack(record, record, 1, pool) }
    let batch = unsafe rw_thread_returns()
    if unsafe batch.pointee.pool != UnsafeMutableRawPointer(pool) {
      flushReturns()
      unsafe batch.pointee.pool = UnsafeMutableRawPointer(pool)
    }
    unsafe record.pointee.next = batch.pointee.first?.assumingMemoryBound(to: PacketRecord.self)
    if unsafe batch.pointee.first == nil { unsafe batch.pointee.last = UnsafeMutableRawPointer(record) }
    unsafe batch.pointee.first = UnsafeMutableRawPointer(record)
    unsafe batch.pointee.count += 1
    if unsafe batch.pointee.count >= returnBatch { flushReturns() }
  }

  /// Gives the calling thread's batch back. Workers do so at the end of each pass.
  @inlinable @inline(never)
  public static func flushReturns() {
    let batch = unsafe rw_thread_returns()
    guard let first = unsafe batch.pointee.first, let last = unsafe batch.pointee.last, let pool = unsafe batch.pointee.pool
    else { return }
    let count = unsafe Int(batch.pointee.count)
    unsafe batch.pointee = rw_returns()
    unsafe giveBack(
      first.assumingMemoryBound(to: PacketRecord.self), last.assumingMemoryBound(to: PacketRecord.self), count,
      pool.assumingMemoryBound(to: PoolState.self))
  }

  /// Puts a linked run of records onto the owner's list.
  @inlinable
  static func giveBack(_ first: RawPacket, _ last: RawPacket, _ count: Int, _ pool: UnsafeMutablePointer<PoolState>) {
    // Counted before they can be taken, so that the count never falls below 0.
    unsafe pool.pointee.returnedCount.wrappingAdd(count, ordering: .relaxed)
    var old = unsafe pool.pointee.returned.load(ordering: .relaxed)
    while true {
      unsafe last.pointee.next = unsafe old
      let tried = unsafe pool.pointee.returned.weakCompareExchange(
        expected: old, desired: first, successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if unsafe tried.exchanged { return }
      unsafe old = unsafe tried.original
    }
  }

  /// Moves what others have given back onto the stack. On the owner.
  @inlinable @inline(never)
  public static func takeReturned(_ pool: UnsafeMutablePointer<PoolState>) {
    if unsafe pool.pointee.returned.load(ordering: .relaxed) == nil { return }
    // SAFETY: the exchange makes the whole list this thread's; a record is on the list, on the stack or
    // owned, never two of them, so the stack has room.
    var at = unsafe pool.pointee.returned.exchange(nil, ordering: .acquiringAndReleasing)
    var top = unsafe pool.pointee.top
    let before = top
    while let record = unsafe at {
      unsafe at = record.pointee.next
      unsafe record.pointee.next = nil
      unsafe pool.pointee.stack[top] = record
      top &+= 1
    }
    unsafe pool.pointee.top = top
    unsafe pool.pointee.returnedCount.wrappingSubtract(top &- before, ordering: .relaxed)
  }
}
