// What stands behind a port's krings.

internal import CRingway
public import NetmapAPI
public import NetmapCore
public import Netisr

/// Behind the krings of a port: a card, a switch port, an end of a pipe, a monitor, nothing.
///
/// The adapter sees only checked numbers: it moves `hwcur` over what it took and `hwtail` over what it has for the program.
public protocol NetmapAdapter: AnyObject, Sendable {
  /// The port's name: "ix0", "vale0:a", "ix0{3".
  var name: String { get }
  /// Its rings, and who holds them.
  var krings: PortKrings { get }
  /// Rings that the port has. Host rings may be none.
  var counts: RingCounts { get }
  /// Slots of each ring of a kind.
  func slots(_ direction: RingDirection, host: Bool) -> Int
  /// Whether the buffers of receive slots that are the adapter's belong to it in the ledger (`ReceiveSlots`): for those
  /// that trade a full buffer for the slot's empty one. Others leave all buffers to the region's programs.
  var tradesBuffers: Bool { get }
  /// Whether syncs respect `Kring.offset(of:)`: frames that start at an offset in their buffers (option OFFSETS).
  var supportsOffsets: Bool { get }
  /// Whether a transmit slot comes back with the buffer that was sent. Zero-copy monitors take it then; of others (pipes,
  /// which trade it for an empty one) they get a copy.
  var returnsSentBuffers: Bool { get }
  /// The card has left: nothing moves any more, and programs are told so. Any thread.
  var isGone: Bool { get }
  /// The worker on which a ring must be synced; nil: on whatever thread asks.
  func worker(of ring: RingID) -> Worker?
  /// The region for a program that asks for none.
  func defaultRegion(_ memory: NetmapMemory) throws(NetmapError) -> NetmapRegion

  // MARK: Control, on worker 0

  /// Whether a registration may go on: ENXIO when the port is gone, EBUSY when a switch has it, EIO when the program does
  /// not accept the port's virtio-net header.
  func admit(_ selection: RingSelection) throws(NetmapError)
  /// The region of a registration, before its rings are made: EINVAL when the port cannot work in it, EBUSY when the port has
  /// not let go of another one yet.
  func prepare(_ region: NetmapRegion) throws(NetmapError)
  /// Fresh rings, which somebody is about to hold. Nothing has changed when it throws.
  func activate(_ rings: [PortRing]) throws(NetmapError)
  /// Rings that nobody holds any more. What they still hold is named; the rings are freed after that.
  func deactivate(_ rings: [PortRing]) -> RingRemains
  /// The last port of this adapter has been closed.
  func idle()

  // MARK: Data

  /// One NIOCTXSYNC or NIOCRXSYNC of one ring, on the thread that may do it.
  /// - Returns: false when the ring was reset because of what the program wrote, or is gone: poll answers POLLERR.
  func synchronise(_ kring: Kring) -> Bool
  /// Transmit: takes what lies in `hwcur ..< rhead` and takes back what is done. Receive: `released`
  /// are the slots that the program has given back since the last sync; then whatever came.
  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32))
}

extension NetmapAdapter {
  public func synchronise(_ kring: Kring) -> Bool { synchroniseChecked(kring) }

  /// Prologue, sync, epilogue. A second sync at the same time is skipped, and counts as done.
  public func synchroniseChecked(_ kring: Kring) -> Bool {
    guard kring.begin() else {
      kring.countSkipped()
      return true
    }
    defer { kring.end() }
    guard let released = kring.prologue() else { return false }
    if kring.isTapped, let tap = kring.tap { tap.handedOver(kring, released) }
    sync(kring, released: released)
    if kring.isTapped, let tap = kring.tap { tap.willShow(kring) }
    kring.finalise()
    if kring.id.direction == .receive { kring.stamp() }
    return !kring.isFaulted
  }

  public var tradesBuffers: Bool { false }
  public var supportsOffsets: Bool { false }
  public var returnsSentBuffers: Bool { true }
  public var isGone: Bool { false }
  public func worker(of ring: RingID) -> Worker? { nil }
  public func defaultRegion(_ memory: NetmapMemory) throws(NetmapError) -> NetmapRegion { try memory.global() }
  public func admit(_ selection: RingSelection) throws(NetmapError) {}
  public func prepare(_ region: NetmapRegion) throws(NetmapError) {}
  public func idle() {}

  /// Rings of a program that waits for all of a direction, and of one that waits for this one, have something.
  public func wake(_ kring: Kring) {
    // One fence for both: what came is visible before the look at who sleeps.
    rw_fence()
    kring.wakeup.notifyFenced()
    (kring.id.direction == .transmit ? krings.transmitWakeup : krings.receiveWakeup).notifyFenced()
  }
}

/// A ring of a port that is in use.
public struct PortRing: Sendable {
  public let kring: Kring
  /// Receive rings of adapters that trade buffers: which buffer lies in which slot.
  public let slots: ReceiveSlots?
  public var id: RingID { kring.id }
}

/// What rings still hold when nobody holds them.
public struct RingRemains: Sendable {
  /// Buffers that the adapter holds in the ledger.
  public var port: [UInt32] = []
  /// Buffers that the programs' slots name: believed as far as the ledger agrees.
  public var program: [UInt32] = []
  /// Parts of the adapter that may still read some of them (a card that sends): `PortKrings.finished` counts them off.
  public var stillBusy = 0
  public init() {}

  /// What the slots of a ring name.
  public static func slots(of kring: Kring) -> [UInt32] { (0..<kring.count).map { kring.ring.slot($0).bufferIndex } }
}
