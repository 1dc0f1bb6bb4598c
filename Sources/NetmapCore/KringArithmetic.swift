// What a kring's numbers mean: distances, who holds how many slots.

extension Kring {
  /// The slot behind `i`.
  @inlinable @inline(__always) public func next(_ i: UInt32) -> UInt32 { i &+ 1 == count ? 0 : i &+ 1 }
  /// The slot before `i`.
  @inlinable @inline(__always) public func previous(_ i: UInt32) -> UInt32 { i == 0 ? count &- 1 : i &- 1 }
  /// Slots from `from` up to, not including, `to`. Both are below `count`.
  @inlinable @inline(__always) public func distance(_ from: UInt32, _ to: UInt32) -> UInt32 {
    to >= from ? to &- from : to &+ count &- from
  }
  /// The slot `n` behind `i`; `n` is at most `count`.
  @inlinable @inline(__always) public func advance(_ i: UInt32, by n: UInt32) -> UInt32 {
    let sum = UInt64(i) &+ UInt64(n)
    return UInt32(truncatingIfNeeded: sum >= UInt64(count) ? sum &- UInt64(count) : sum)
  }

  /// Transmit: slots handed over and not sent yet.
  @inlinable public var unsent: UInt32 { distance(hwcur, rhead) }
  /// Transmit: slots that the card has not given back. Receive: slots filled and not given back.
  @inlinable public var held: UInt32 {
    id.direction == .transmit ? distance(next(hwtail), hwcur) : distance(hwcur, hwtail)
  }
  /// Receive: slots that the adapter may fill.
  @inlinable public var space: UInt32 { count &- 1 &- distance(hwcur, hwtail) }
  /// What poll(2) asks: the program has not seen everything yet.
  @inlinable public var isReady: Bool { rcur != rtail }
}
