// The fault injector: a wrapper around any wire.
//
//     card <── receive ── [ rules ] <── inner.receive        frames are counted as the inner wire gives them
//     card ── transmit ─> [ rules ] ──> inner.transmit       or as the card sends them, from 1
//
// Same seed, same frames and same times give the same faults: each rule draws from a generator of its
// own, once for each frame of its direction. The first rule that selects a frame decides; `hang` and
// `stall` act beside it.

/// A wire that harms frames by number.
public final class FaultyWire: ModelWire {
  /// What happened to the frames of one direction. Of those that came in, `passed` went on unharmed
  /// and at once; every other one is in exactly one of the counts below.
  public struct Counts: Equatable, Sendable {
    public var seen: UInt64 = 0
    public var passed: UInt64 = 0
    public var dropped: UInt64 = 0
    public var duplicated: UInt64 = 0
    public var reordered: UInt64 = 0
    /// Damaged, with a wrong check sequence. Those that leave the card are gone with that.
    public var corrupted: UInt64 = 0
    public var corruptedSilently: UInt64 = 0
    public var delayed: UInt64 = 0
    /// Handed on: to the card, or to the inner wire. More than were seen where copies were made.
    public var delivered: UInt64 = 0
    public var stalls: UInt64 = 0
    public var hangs: UInt64 = 0
    public init() {}
  }

  private struct Rule {
    let fault: WireFault
    var random: SeededGenerator

    mutating func selects(_ number: UInt64) -> Bool {
      switch fault.selector {
      case .numbers(let ranges): ranges.contains { $0.contains(number) }
      case .every(let step): number % step == 0
      case .probability(let chance): random.fraction() < chance
      }
    }
  }

  /// A frame that waits for its time, or for others to pass.
  private struct Held {
    let bytes: [UInt8]
    let marks: WireMarks
    let queue: Int
    let due: UInt64
    /// Frames that must pass first; it goes when they have, or when it is due.
    var toPass: Int
  }

  private struct Side {
    var rules: [Rule] = []
    var counts = Counts()
    var held: [Held] = []
    var stalledUntil: UInt64 = 0
  }

  /// What becomes of a frame.
  private enum Verdict { case pass, drop, hold(toPass: Int, for: UInt64), copies(Int), damage(marked: Bool) }

  public let inner: any ModelWire
  /// The card whose transmitter hangs when a rule says so.
  public weak var model: (any DeviceModel)?
  private var arriving = Side()
  private var leaving = Side()
  private var random: SeededGenerator
  private var scratch: [UInt8] = []
  /// How long a frame is held that nothing passes: 1 ms.
  public static let patience: UInt64 = 1_000_000
  /// Frames looked at in one `receive` before it says that none waits.
  private static let glance = 256

  public init(_ inner: any ModelWire, faults: [WireFault], seed: UInt64, model: (any DeviceModel)? = nil) {
    self.inner = inner
    self.model = model
    random = SeededGenerator(seed: seed)
    for fault in faults {
      let rule = Rule(fault: fault, random: SeededGenerator(seed: random.next()))
      if fault.direction == .leaving || fault.kind == .hang { leaving.rules.append(rule) } else { arriving.rules.append(rule) }
    }
  }

  /// Frames on their way to the card.
  public var arrivingCounts: Counts { arriving.counts }
  /// Frames that the card sent.
  public var leavingCounts: Counts { leaving.counts }
  /// Frames that are held in either direction.
  public var heldFrames: Int { arriving.held.count + leaving.held.count }

  public var isUp: Bool { inner.isUp }
  public var descriptor: Int32 { inner.descriptor }

  /// Counts a frame, asks every rule, and says what to do.
  private func judge(_ side: inout Side, at now: UInt64) -> Verdict {
    side.counts.seen += 1
    let number = side.counts.seen
    var verdict: Verdict?
    for index in side.rules.indices where side.rules[index].selects(number) {
      switch side.rules[index].fault.kind {
      case .stall(let time):
        side.counts.stalls += 1
        side.stalledUntil = max(side.stalledUntil, now &+ time)
      case .hang:
        side.counts.hangs += 1
        model?.inject(.transmitHang)
      case .drop: verdict = verdict ?? .drop
      case .duplicate(let copies): verdict = verdict ?? .copies(copies)
      case .reorder(let others): verdict = verdict ?? .hold(toPass: others, for: FaultyWire.patience)
      case .delay(let time): verdict = verdict ?? .hold(toPass: 0, for: time)
      case .corrupt(let marked): verdict = verdict ?? .damage(marked: marked)
      }
    }
    var final = verdict ?? .pass
    // A frame that meets a standstill waits with those behind it.
    if side.stalledUntil > now, verdict == nil { final = .hold(toPass: 0, for: side.stalledUntil - now) }
    count(final, &side.counts)
    return final
  }

  private func count(_ verdict: Verdict, _ counts: inout Counts) {
    switch verdict {
    case .pass: counts.passed += 1
    case .drop: counts.dropped += 1
    case .hold(let others, _): if others > 0 { counts.reordered += 1 } else { counts.delayed += 1 }
    case .copies: counts.duplicated += 1
    case .damage(let marked): if marked { counts.corrupted += 1 } else { counts.corruptedSilently += 1 }
    }
  }

  /// The next held frame that may go: the one that is due first.
  private func release(_ side: inout Side, at now: UInt64) -> Held? {
    guard side.stalledUntil <= now else { return nil }
    var best: Int?
    for index in side.held.indices where side.held[index].due <= now {
      if best.map({ side.held[index].due < side.held[$0].due }) ?? true { best = index }
    }
    guard let best else { return nil }
    side.counts.delivered += 1
    return side.held.remove(at: best)
  }

  /// One more frame has gone by: those that waited for it come nearer.
  private func passed(_ side: inout Side, at now: UInt64) {
    side.counts.delivered += 1
    for index in side.held.indices where side.held[index].toPass > 0 {
      side.held[index].toPass -= 1
      if side.held[index].toPass == 0 {
        let frame = side.held[index]
        side.held[index] = Held(bytes: frame.bytes, marks: frame.marks, queue: frame.queue, due: min(frame.due, now), toPass: 0)
      }
    }
  }

  private func hold(
    _ side: inout Side, _ frame: UnsafeRawBufferPointer, _ marks: WireMarks, _ queue: Int, due: UInt64, toPass: Int
  ) {
    side.held.append(Held(bytes: unsafe [UInt8](frame), marks: marks, queue: queue, due: due, toPass: toPass))
  }

  /// Changes one bit behind the Ethernet header (of the header, in the shortest frames).
  private func damage(_ frame: UnsafeRawBufferPointer) {
    scratch.removeAll(keepingCapacity: true)
    unsafe scratch.append(contentsOf: frame)
    guard !scratch.isEmpty else { return }
    let first = scratch.count > 14 ? 14 : 0
    let draw = random.next()
    scratch[first + Int(draw >> 8 % UInt64(scratch.count - first))] ^= 1 << UInt8(draw & 7)
  }

  // MARK: Arriving

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    pumpLeaving(at: now)
    for _ in 0..<FaultyWire.glance {
      if let frame = release(&arriving, at: now) {
        unsafe frame.bytes.withUnsafeBytes { unsafe body($0, frame.marks) }
        return true
      }
      guard arriving.stalledUntil <= now else { return false }
      var isDelivered = false
      let isThere = unsafe inner.receive(at: now) { frame, marks in
        isDelivered = unsafe arrive(frame, marks, at: now, body)
      }
      if isDelivered { return true }
      guard isThere else { return false }
    }
    return false
  }

  /// Whether the frame went on to the card.
  private func arrive(
    _ frame: UnsafeRawBufferPointer, _ marks: WireMarks, at now: UInt64,
    _ body: (UnsafeRawBufferPointer, WireMarks) -> Void
  ) -> Bool {
    switch judge(&arriving, at: now) {
    case .drop: return false
    case .hold(let others, let time):
      unsafe hold(&arriving, frame, marks, 0, due: now &+ time, toPass: others)
      return false
    case .copies(let copies):
      passed(&arriving, at: now)
      for _ in 0..<copies { unsafe hold(&arriving, frame, marks, 0, due: now, toPass: 0) }
      unsafe body(frame, marks)
    case .damage(let marked):
      unsafe damage(frame)
      passed(&arriving, at: now)
      unsafe scratch.withUnsafeBytes { unsafe body($0, marked ? marks.union(.badCheckSequence) : marks) }
    case .pass:
      passed(&arriving, at: now)
      unsafe body(frame, marks)
    }
    return true
  }

  // MARK: Leaving

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    pumpLeaving(at: now)
    switch judge(&leaving, at: now) {
    case .drop: break
    case .hold(let others, let time): unsafe hold(&leaving, frame, [], queue, due: now &+ time, toPass: others)
    case .copies(let copies):
      for _ in 0...copies {
        passed(&leaving, at: now)
        unsafe inner.transmit(frame, queue: queue, at: now)
      }
    case .damage(let marked):
      unsafe damage(frame)
      guard !marked else { break }
      passed(&leaving, at: now)
      unsafe scratch.withUnsafeBytes { unsafe inner.transmit($0, queue: queue, at: now) }
    case .pass:
      passed(&leaving, at: now)
      unsafe inner.transmit(frame, queue: queue, at: now)
    }
    pumpLeaving(at: now)
  }

  /// Sends what was held and may go now. `receive` and `transmit` do it too.
  private func pumpLeaving(at now: UInt64) {
    while !leaving.held.isEmpty, let frame = release(&leaving, at: now) {
      unsafe frame.bytes.withUnsafeBytes { unsafe inner.transmit($0, queue: frame.queue, at: now) }
    }
  }

  public var nextArrival: UInt64? {
    var next = arriving.held.map(\.due).min()
    if let inner = inner.nextArrival { next = min(next ?? inner, inner) }
    if let time = next, arriving.stalledUntil > time { next = arriving.stalledUntil }
    // Frames that leave late need somebody to look, too.
    if let time = leaving.held.map(\.due).min() { next = min(next ?? time, max(time, leaving.stalledUntil)) }
    return next
  }
}
