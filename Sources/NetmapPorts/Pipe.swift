// Pipes: two ports in one region, each receiving what the other sends, without a copy.
//
//        end base{id                                         end base}id
//    tx ring i   k ──── index, length, flags ───────────────>  j   rx ring i
//                k <─── an empty buffer of the reader's ─────  j
//    rx ring i   <──────────────────────────────────────────── tx ring i
//
// A transmit sync trades the buffers of its slots for empty ones out of the peer's receive ring, so the sender has its
// slots back at once and reader and writer run apart. What does not fit stays in the sender's ring: also while the other
// end is not open or has not synced yet. Whoever makes room carries on with it (`PipeLink.carryOn`), so that a writer that sleeps in something
// else than poll(2) has sent what it sent.
//
// Who touches what
// - The sender's kring, between its `begin` and `end`: all of `PipeLink` but the flag, and of the queue what is marked
//   the sender's.
// - The receiver's kring, between its `begin` and `end`: the rest of the queue.
// - Between them two numbers, each written by one side: `produced` and `consumed`. Neither side waits for the other.
// - Worker 0 opens and closes rings; it keeps both sides out meanwhile.
//
// What a program can do: name any buffer of its region, which the ledger knows as the region's programs'. A slot that names
// another, or a length that does not fit, resets the ring of whoever wrote it, and what it handed over with it is lost.

public import NetmapAPI
public import NetmapCore
internal import Platform

/// Both ends of a pipe, as long as one of them is open.
final class PipePair: @unchecked Sendable {
  let base: String, id: String
  /// Rings that the first end sends on, and those that it receives on.
  let rings: (forth: Int, back: Int)
  let slots: (forth: Int, back: Int)
  let links: (forth: [PipeLink], back: [PipeLink])
  /// The region in use by another pipe of the same base.
  let sibling: (PipePair) -> NetmapRegion?
  /// Whose memory the pipe shares; nil when the name stands for nothing else: then pipes of that name share a region.
  private(set) weak var parent: (any NetmapAdapter)?
  // Worker 0's.
  private weak var first: PipeEnd?
  private weak var second: PipeEnd?

  init(
    base: String, id: String, parent: (any NetmapAdapter)?, rings: (forth: Int, back: Int), slots: (forth: Int, back: Int),
    sibling: @escaping (PipePair) -> NetmapRegion?
  ) {
    self.sibling = sibling
    self.base = base
    self.id = id
    self.parent = parent
    self.rings = rings
    self.slots = slots
    links = ((0..<rings.forth).map { _ in PipeLink() }, (0..<rings.back).map { _ in PipeLink() })
  }

  /// An end; made when it is first asked for. On worker 0.
  func end(isFirst: Bool) throws(NetmapError) -> PipeEnd {
    if let found = isFirst ? first : second { return found }
    let made = try PipeEnd(self, isFirst: isFirst)
    if isFirst { first = made } else { second = made }
    return made
  }

  /// While an end is open. On worker 0.
  var region: NetmapRegion? { first?.krings.region ?? second?.krings.region }

  func peer(isFirst: Bool) -> PipeEnd? { isFirst ? second : first }
}

/// One end of a pipe.
public final class PipeEnd: NetmapAdapter, @unchecked Sendable {
  public let name: String
  public let krings: PortKrings
  public let counts: RingCounts
  let pair: PipePair
  let isFirst: Bool
  private let sending: [PipeLink], receiving: [PipeLink]

  init(_ pair: PipePair, isFirst: Bool) throws(NetmapError) {
    self.pair = pair
    self.isFirst = isFirst
    name = "\(pair.base)\(isFirst ? "{" : "}")\(pair.id)"
    krings = try PortKrings()
    sending = isFirst ? pair.links.forth : pair.links.back
    receiving = isFirst ? pair.links.back : pair.links.forth
    counts = RingCounts(transmit: sending.count, receive: receiving.count, hostTransmit: 0, hostReceive: 0)
  }

  public func slots(_ direction: RingDirection, host: Bool) -> Int {
    (direction == .transmit) == isFirst ? pair.slots.forth : pair.slots.back
  }
  /// Ends of pipes that a region has room for, where it is made for pipes alone.
  static let portsInRegion = 8
  public var supportsOffsets: Bool { true }
  public var returnsSentBuffers: Bool { false }

  // MARK: Control, on worker 0

  public func defaultRegion(_ memory: NetmapMemory) throws(NetmapError) -> NetmapRegion {
    if let region = pair.region { return region }
    guard let parent = pair.parent else {
      if let region = pair.sibling(pair) { return region }
      let sizes = try memory.options.privateSizes.holding(
        counts, transmitSlots: slots(.transmit, host: false), receiveSlots: slots(.receive, host: false), ports: Self.portsInRegion)
      return try memory.makePrivate(sizes, name: pair.base)
    }
    if let region = parent.krings.region { return region }
    return try parent.defaultRegion(memory)
  }

  public func admit(_ selection: RingSelection) throws(NetmapError) {
    switch selection.mode {
    case .software, .nicAndSoftware, .oneSoftware:
      throw NetmapError(.EINVAL, "\(name): a pipe has no rings to the host")
    case .allNIC, .oneNIC, .null: break
    }
  }

  public func activate(_ rings: [PortRing]) throws(NetmapError) {
    if let other = pair.peer(isFirst: isFirst)?.krings.region, let own = krings.region, other !== own {
      throw NetmapError(.EINVAL, "\(name): the other end is open in memory region \(other.id), and a pipe has one region")
    }
    for ring in rings {
      let kring = ring.kring
      if kring.id.direction == .transmit {
        link(of: kring)?.open(sender: PipeSide(kring, self))
      } else {
        link(of: kring)?.open(receiver: PipeQueue(PipeSide(kring, self)))
      }
    }
  }

  public func deactivate(_ rings: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    for ring in rings {
      let kring = ring.kring, link = link(of: kring)
      if kring.id.direction == .transmit {
        link?.closeSender()
        remains.program += RingRemains.slots(of: kring)
      } else {
        remains.program += link?.closeReceiver() ?? RingRemains.slots(of: kring)
      }
    }
    return remains
  }

  // MARK: Data

  private func link(of kring: Kring) -> PipeLink? {
    let links = kring.id.direction == .transmit ? sending : receiving, number = kring.id.number
    return number < links.count ? links[number] : nil
  }

  public func synchronise(_ kring: Kring) -> Bool {
    let isClean = synchroniseChecked(kring)
    // Room that the reader made while this sync found none, and was not done yet.
    if kring.id.direction == .transmit, let link = link(of: kring), link.isStalled { link.tryAgain(kring) }
    return isClean
  }

  public func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    guard let link = link(of: kring) else { return }
    if kring.id.direction == .transmit {
      link.send(kring)
    } else {
      link.receive(kring, released: released)
    }
  }
}

/// A kring and the end it belongs to: who is woken, and where its buffers lie.
@safe struct PipeSide: @unchecked Sendable {
  let kring: Kring
  let end: PipeEnd
  /// Of the region; nil only for an end that is not open.
  let bufferBase: UnsafeMutableRawPointer?

  /// On worker 0, while the end is being opened.
  init(_ kring: Kring, _ end: PipeEnd) {
    self.kring = kring
    self.end = end
    unsafe bufferBase = end.krings.region?.allocator.bufferBase
  }
  func wake() { end.wake(kring) }
}
