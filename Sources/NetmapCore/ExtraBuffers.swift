// Extra buffers: what a program gets beside the buffers in its rings.
//
//   interface.bufs_head ──> buffer ──> buffer ──> … ──> 0      the index of the next in the first four bytes of each
//
// The list is the program's to change: it swaps buffers of the list with those in its slots. When it
// comes back it may be looped, run through another's buffers or lead outside; the ledger decides about
// each buffer, and a buffer that has been given back ends the walk when it is met again.

internal import CRingway

/// What came of a list of extra buffers.
public struct ExtraBufferReturn: Equatable, Sendable {
  /// Buffers that went back to the pool.
  public var freed = 0
  /// The walk ended at an index that the holder does not hold: foreign, free, or met before.
  public var isBroken = false
}

extension NetmapAllocator {
  /// Takes up to `count` buffers and links them.
  /// - Returns: the list's head, 0 for an empty list, and how many there are.
  public func allocateExtra(_ count: Int, holder: BufferOwner) -> (head: UInt32, count: Int) {
    let taken = locked { () -> [UInt32] in
      let most = min(max(0, count), bufferPool.free)
      return most == 0 ? [] : (try? bufferPool.allocate(most, owner: holder)) ?? []
    }
    for (i, index) in taken.enumerated() {
      // SAFETY: `pointer` gives a buffer of the region, of at least 64 bytes.
      unsafe rw_write32(pointer(ofBuffer: index), i + 1 < taken.count ? taken[i + 1] : 0)
    }
    return (taken.first ?? 0, taken.count)
  }

  /// Gives a list back. Nothing in it is trusted: each buffer must be `holder`'s, and each link is read
  /// once, before its buffer goes. So the walk is at most as long as what the holder has.
  @discardableResult public func freeExtra(from head: UInt32, holder: BufferOwner) -> ExtraBufferReturn {
    var result = ExtraBufferReturn()
    guard holder.rawValue > BufferOwner.reserved.rawValue else { return result }
    let ledger = self.ledger
    var index = head
    // The bound holds also while other threads give this holder new buffers.
    while index != 0, result.freed < bufferCount {
      guard ledger.isHeld(index, by: holder) else {
        result.isBroken = true
        return result
      }
      // SAFETY: held, so it exists.
      let next = unsafe rw_read32(pointer(ofBuffer: index))
      guard locked({ bufferPool.release(index, owner: holder) }) == .freed else {
        result.isBroken = true
        return result
      }
      result.freed += 1
      index = next
    }
    return result
  }

  /// Buffers that an owner holds at present.
  public func held(by owner: BufferOwner) -> Int { locked { bufferPool.holdings()[owner] ?? 0 } }
}
