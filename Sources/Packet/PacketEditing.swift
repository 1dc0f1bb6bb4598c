// Taking headers off and putting headers on: offsets move, bytes stay where they are.

extension Packet {
  /// Bytes free in front of the frame in its first buffer.
  @inlinable public var headroom: Int { unsafe Int(raw.pointee.offset) }

  /// Bytes free behind the frame in its first buffer.
  @inlinable public var tailroom: Int {
    unsafe raw.pointee.pool.pointee.bufferSize &- Int(raw.pointee.offset) &- Int(raw.pointee.length)
  }

  /// Takes `count` bytes off the front.
  /// - Returns: false, with nothing changed, when the first buffer holds fewer.
  @inlinable @inline(__always) @discardableResult
  public func removeFirst(_ count: Int) -> Bool {
    guard count >= 0, count <= firstCount else { return false }
    unsafe raw.pointee.offset &+= UInt16(truncatingIfNeeded: count)
    unsafe raw.pointee.length &-= UInt16(truncatingIfNeeded: count)
    unsafe raw.pointee.frameLength &-= UInt32(truncatingIfNeeded: count)
    return true
  }

  /// Puts `count` bytes, contents as they are, in front.
  /// - Returns: false, with nothing changed, when there is no room for them (`headroom`).
  @inlinable @inline(__always) @discardableResult
  public func prepend(_ count: Int) -> Bool {
    guard count >= 0, count <= headroom, firstCount &+ count <= Int(UInt16.max) else { return false }
    unsafe raw.pointee.offset &-= UInt16(truncatingIfNeeded: count)
    unsafe raw.pointee.length &+= UInt16(truncatingIfNeeded: count)
    unsafe raw.pointee.frameLength &+= UInt32(truncatingIfNeeded: count)
    return true
  }

  /// Makes an empty packet of one buffer start `count` bytes into it: room for headers.
  /// - Returns: false, with nothing changed, when the packet is not empty or has less room.
  @inlinable @discardableResult
  public func reserveHeadroom(_ count: Int) -> Bool {
    guard self.count == 0, count >= 0, count <= bufferCapacity, count <= Int(UInt16.max), unsafe raw.pointee.next == nil
    else { return false }
    unsafe raw.pointee.offset = UInt16(truncatingIfNeeded: count)
    return true
  }

  /// Adds `count` bytes, contents as they are, at the end of a frame that lies in one buffer.
  /// - Returns: false, with nothing changed, when they do not fit or the frame has several buffers.
  @inlinable @discardableResult
  public func extend(_ count: Int) -> Bool {
    guard count >= 0, count <= tailroom, firstCount &+ count <= Int(UInt16.max), unsafe raw.pointee.next == nil else {
      return false
    }
    unsafe raw.pointee.setSingle(length: raw.pointee.length &+ UInt16(truncatingIfNeeded: count), offset: raw.pointee.offset)
    return true
  }

  /// Cuts the frame to its first `count` bytes; buffers behind them go back to their pool.
  /// - Returns: false, with nothing changed, when the frame is shorter.
  @discardableResult
  public func truncate(to count: Int) -> Bool {
    guard count >= 0, count <= self.count else { return false }
    var left = count
    var at = unsafe raw
    while unsafe left > Int(at.pointee.length), let next = unsafe at.pointee.next {
      unsafe left -= Int(at.pointee.length)
      unsafe at = next
    }
    unsafe at.pointee.length = UInt16(truncatingIfNeeded: left)
    if let rest = unsafe at.pointee.next {
      unsafe at.pointee.next = nil
      unsafe PoolState.put(rest)
    }
    unsafe raw.pointee.frameLength = UInt32(truncatingIfNeeded: count)
    return true
  }
}
