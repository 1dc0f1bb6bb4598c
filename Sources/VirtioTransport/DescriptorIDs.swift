// Which descriptors are free: a private first-in first-out list of their numbers.
//
// First in, first out keeps the numbers in ring order for as long as the device uses buffers in
// order, so that neighbouring buffers lie on neighbouring descriptors.

/// Free descriptor numbers of one ring. Holds each number at most once; its owner sees to it.
@frozen @safe public struct DescriptorIDs: ~Copyable {
  public let ids: UnsafeMutablePointer<UInt16>
  public let mask: UInt32
  /// Free running: the next number to take.
  public var head: UInt16 = 0
  /// Free running: where the next number is put back.
  public var tail: UInt16 = 0

  /// All numbers below `count` are free.
  /// - Parameter count: a power of two up to 32768.
  public init(count: Int) {
    unsafe ids = .allocate(capacity: count)
    mask = UInt32(count - 1)
    unsafe ids.initialize(repeating: 0, count: count)
    reset()
  }

  deinit { unsafe ids.deallocate() }

  /// All numbers are free, in order.
  public mutating func reset() {
    for i in 0...Int(mask) { unsafe ids[i] = UInt16(i) }
    head = 0
    tail = UInt16(truncatingIfNeeded: Int(mask) + 1)
  }

  /// How many are free.
  @inlinable @inline(__always) public var count: Int { Int(tail &- head) }

  // SAFETY: of the accesses below: indexes are masked to the capacity.

  /// Takes a number. Only while `count` is not 0.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public mutating func take() -> UInt32 {
    let id = unsafe ids[Int(UInt32(head) & mask)]
    head &+= 1
    return UInt32(id)
  }

  /// Puts a number back that is not in the list.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public mutating func put(_ id: UInt32) {
    unsafe ids[Int(UInt32(tail) & mask)] = UInt16(truncatingIfNeeded: id)
    tail &+= 1
  }
}
