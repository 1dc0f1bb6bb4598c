// A ring of packets: what send queues are made of.

public import Packet

/// Packets in order, owned by the ring. Adding to a ring with room costs no allocation; a full one doubles.
@safe public struct PacketFIFO: ~Copyable {
  private var slots: UnsafeMutablePointer<RawPacket>?
  private var capacity = 0
  private var head = 0
  /// Packets.
  public private(set) var count = 0
  /// Bytes of their frames.
  public private(set) var bytes = 0

  /// An empty ring without memory: it takes some when it is first used.
  public init() { unsafe slots = nil }

  /// - Parameter capacity: packets that fit without an allocation.
  public init(capacity: Int) {
    unsafe slots = nil
    grow(to: max(1, min(capacity, 1 << 24)))
  }

  deinit {
    var i = 0
    while i < count {
      // SAFETY: `count` slots from the head on hold records that the ring owns.
      unsafe PoolState.put(slots.unsafelyUnwrapped[(head &+ i) & (capacity &- 1)])
      i &+= 1
    }
    unsafe slots?.deallocate()
  }

  public var isEmpty: Bool { count == 0 }
  /// Bytes of the first packet's frame; nil when there is none.
  public var firstBytes: Int? {
    guard count > 0 else { return nil }
    // SAFETY: the head's slot is valid, as the ring is not empty.
    return unsafe Int(slots.unsafelyUnwrapped[head].pointee.frameLength)
  }

  public mutating func append(_ packet: consuming Packet) {
    if count == capacity { grow(to: max(16, capacity * 2)) }
    bytes &+= packet.count
    // SAFETY: there is room, and the slot behind the last is free.
    unsafe slots.unsafelyUnwrapped[(head &+ count) & (capacity &- 1)] = packet.intoRaw()
    count &+= 1
  }

  /// Puts a packet in front of the others.
  public mutating func prepend(_ packet: consuming Packet) {
    if count == capacity { grow(to: max(16, capacity * 2)) }
    bytes &+= packet.count
    head = (head &- 1) & (capacity &- 1)
    // SAFETY: there is room, and the slot before the first is free.
    unsafe slots.unsafelyUnwrapped[head] = packet.intoRaw()
    count &+= 1
  }

  public mutating func popFirst() -> Packet? {
    guard count > 0 else { return nil }
    // SAFETY: the head's slot is valid, as the ring is not empty; it is left to the caller.
    let packet = unsafe Packet(unsafe: slots.unsafelyUnwrapped[head])
    head = (head &+ 1) & (capacity &- 1)
    count &-= 1
    bytes &-= packet.count
    return packet
  }

  private mutating func grow(to wanted: Int) {
    var size = 1
    while size < wanted { size *= 2 }
    let new = UnsafeMutablePointer<RawPacket>.allocate(capacity: size)
    for i in 0..<count {
      // SAFETY: moves the valid slots to the start of larger memory.
      unsafe new[i] = slots.unsafelyUnwrapped[(head &+ i) & (capacity &- 1)]
    }
    unsafe slots?.deallocate()
    unsafe slots = new
    capacity = size
    head = 0
  }
}
