// Two netmap ports joined: frames pass by swapping buffers where both ports lie in one region, else by copies.
//
//    a's receive slot [17] ──┐ swap ┌── b's transmit slot [93]
//                      [93] <┘      └> [17], its length, BUF_CHANGED on both

internal import CRingway
public import NetmapClient

/// Forwards every frame between two ports that the daemon offers.
public struct NetmapForwarder: ~Copyable {
  public let a: NetmapClient.NetmapPort
  public let b: NetmapClient.NetmapPort
  /// Whether frames pass without a copy.
  public let isZeroCopy: Bool
  public private(set) var forward = ForwardCounts()
  public private(set) var backward = ForwardCounts()

  public init(_ a: NetmapClient.NetmapPort, _ b: NetmapClient.NetmapPort) {
    self.a = a
    self.b = b
    isZeroCopy = a.registration.memoryID != 0 && a.registration.memoryID == b.registration.memoryID
  }

  /// One pass over all rings, both ways. Returns how many frames were moved.
  /// - Parameter burst: frames taken from a ring at a time.
  public mutating func round(burst: UInt32 = 1024) throws(NetmapClientError) -> Int {
    try a.syncReceive()
    try b.syncReceive()
    var moved = Self.move(from: a, to: b, burst, zeroCopy: isZeroCopy, &forward)
    moved += Self.move(from: b, to: a, burst, zeroCopy: isZeroCopy, &backward)
    // Also with nothing moved: sent slots come back, and room is what the next pass needs.
    try b.syncTransmit()
    try a.syncTransmit()
    return moved
  }

  private static func move(
    from source: NetmapClient.NetmapPort, to target: NetmapClient.NetmapPort, _ burst: UInt32, zeroCopy: Bool,
    _ counts: inout ForwardCounts
  ) -> Int {
    var moved = 0, to = 0
    let outputs = target.transmitRings
    guard !outputs.isEmpty else { return 0 }
    for input in source.receiveRings {
      var left = burst
      while left > 0, input.available > 0, to < outputs.count {
        let n = move(input, outputs[to], left, zeroCopy: zeroCopy, &counts)
        moved += n
        left -= min(left, UInt32(n))
        if n == 0 { to += 1 }
      }
    }
    return moved
  }

  /// From one ring to another, as far as there are frames and room.
  @inline(__always)
  private static func move(
    _ input: NetmapRingView, _ output: NetmapRingView, _ most: UInt32, zeroCopy: Bool, _ counts: inout ForwardCounts
  ) -> Int {
    let n = min(most, input.available, output.available)
    var from = input.head, to = output.head, k: UInt32 = 0, bytes: UInt64 = 0, sent: UInt64 = 0
    while k < n {
      let received = input.slot(from), empty = output.slot(to)
      let more = received.flags & NetmapSlotView.moreFragments
      if zeroCopy {
        output.setSlot(
          to, NetmapSlotView(buffer: received.buffer, length: received.length, flags: more | NetmapSlotView.bufferChanged))
        input.setSlot(from, NetmapSlotView(buffer: empty.buffer, length: received.length, flags: NetmapSlotView.bufferChanged))
      } else {
        let packet = unsafe input.packet(from), room = unsafe output.bytes(empty.buffer)
        // A target whose buffers are smaller cannot have it.
        guard packet.count <= room.count else {
          counts.dropped &+= 1
          counts.receivedPackets &+= 1
          from = input.next(from)
          k &+= 1
          continue
        }
        unsafe room.copyMemory(from: UnsafeRawBufferPointer(packet))
        output.setSlot(to, NetmapSlotView(buffer: empty.buffer, length: received.length, flags: more))
      }
      bytes &+= UInt64(received.length)
      sent &+= 1
      from = input.next(from)
      to = output.next(to)
      k &+= 1
    }
    input.setHead(from)
    output.setHead(to)
    counts.receivedPackets &+= sent
    counts.receivedBytes &+= bytes
    counts.sentPackets &+= sent
    counts.sentBytes &+= bytes
    return Int(n)
  }
}
