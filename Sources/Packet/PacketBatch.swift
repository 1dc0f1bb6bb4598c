// A fixed bag of packets: what a queue receives into and sends from, made once, used every round.

/// Up to `capacity` packets, owned by the batch.
@frozen @safe public struct PacketBatch: ~Copyable {
  @usableFromInline let slots: UnsafeMutablePointer<RawPacket>
  public let capacity: Int
  @usableFromInline var filled: Int

  /// - Parameter capacity: at least 1; 32 suits most loops.
  public init(capacity: Int) {
    self.capacity = max(1, capacity)
    unsafe slots = .allocate(capacity: self.capacity)
    filled = 0
  }

  deinit {
    var i = 0
    while i < filled {
      unsafe PoolState.put(slots[i])
      i &+= 1
    }
    unsafe slots.deallocate()
  }

  @inlinable public var count: Int { filled }
  @inlinable public var isEmpty: Bool { filled == 0 }

  /// Adds a packet; hands it back when the batch is full.
  @inlinable @inline(__always)
  public mutating func append(_ packet: consuming Packet) -> Packet? {
    guard filled < capacity else { return packet }
    unsafe (slots + filled).initialize(to: packet.intoRaw())
    filled &+= 1
    return nil
  }

  /// Takes the last packet out.
  @inlinable @inline(__always)
  public mutating func popLast() -> Packet? {
    guard filled > 0 else { return nil }
    filled &-= 1
    return unsafe Packet(unsafe: slots[filled])
  }

  /// Lends each packet in turn.
  @inlinable @inline(__always)
  public func forEach(_ body: (borrowing Packet) -> Void) {
    var i = 0
    while i < filled {
      let packet = unsafe Packet(unsafe: slots[i])
      body(packet)
      _ = unsafe packet.intoRaw()
      i &+= 1
    }
  }

  /// Gives every packet back to its pool.
  @inlinable public mutating func removeAll() {
    var i = 0
    while i < filled {
      unsafe PoolState.put(slots[i])
      i &+= 1
    }
    filled = 0
  }

  /// For drivers: `fill` initialises up to `room` slots (from the first free one) and returns how many.
  @inlinable @inline(__always)
  public mutating func fill(max: Int, _ fill: (_ free: UnsafeMutablePointer<RawPacket>, _ room: Int) -> Int) -> Int {
    let room = min(max, capacity &- filled)
    guard room > 0 else { return 0 }
    let n = unsafe fill(slots + filled, room)
    filled &+= n
    return n
  }

  // The same two without closures, for loops that change more than the compiler can see through.

  /// For drivers: the first free slot; `room` says how many there are. Followed by `commit`.
  @inlinable @inline(__always) public var freeSlots: UnsafeMutablePointer<RawPacket> { unsafe slots + filled }
  /// Free slots.
  @inlinable @inline(__always) public var room: Int { capacity &- filled }
  /// For drivers: the first `count` free slots have been initialised; the batch owns their packets.
  @inlinable @inline(__always) public mutating func commit(_ count: Int) { filled &+= count }
  /// For drivers: the packets, in order. Followed by `removePrefix`.
  @inlinable @inline(__always) public var fullSlots: UnsafeMutablePointer<RawPacket> { unsafe slots }
  /// For drivers: the first `count` packets were moved out; the rest moves up.
  @inlinable @inline(__always) public mutating func removePrefix(_ count: Int) {
    let rest = filled &- count
    if _slowPath(rest > 0 && count > 0) {
      var i = 0
      while i < rest {
        unsafe slots[i] = slots[i &+ count]
        i &+= 1
      }
    }
    filled = rest
  }

  /// For drivers: `take` moves a prefix of the slots out and returns its length; the rest moves up.
  @inlinable @inline(__always)
  public mutating func drain(_ take: (_ full: UnsafeMutablePointer<RawPacket>, _ count: Int) -> Int) -> Int {
    let n = unsafe take(slots, filled)
    let rest = filled &- n
    if rest > 0 && n > 0 {
      var i = 0
      while i < rest {
        unsafe slots[i] = slots[i &+ n]
        i &+= 1
      }
    }
    filled = rest
    return n
  }
}
