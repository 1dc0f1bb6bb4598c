// The adapter protocol: what stands behind a port's krings, and whose memory they use.
//
//    program ── shared rings ── Kring ── NetmapAdapter: a card and its host rings, later a switch, a pipe
//
// A sync is prologue, adapter, epilogue. The adapter sees only checked numbers: it moves `hwcur`
// over what it took and `hwtail` over what it has for the program.

/// Behind the krings of a port.
public protocol NetmapAdapter: AnyObject, Sendable {
  /// The port's name: "ix0".
  var name: String { get }
  var region: NetmapRegion { get }
  var counts: RingCounts { get }
  /// Slots of each ring of a direction.
  func slots(_ direction: RingDirection) -> Int
  /// Transmit: takes what lies in `hwcur ..< rhead` and takes back what is done. Receive: `released`
  /// are the slots that the program has given back since the last sync; then whatever came.
  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32))
}

extension NetmapAdapter {
  /// One NIOCTXSYNC or NIOCRXSYNC of one ring, on the thread that owns it.
  public func synchronise(_ kring: Kring) {
    guard kring.begin() else { return kring.countSkipped() }
    defer { kring.end() }
    guard let released = kring.prologue() else { return }
    sync(kring, released: released)
    kring.finalise()
  }
}
