// A monitor's receive ring: filled by whoever syncs the monitored rings, read by the monitor's program.

internal import NetmapCore
internal import Platform

/// What meets here meets under the lock: it is not the fast path.
@safe final class MonitorRing: @unchecked Sendable {
  let kring: Kring
  private let wake: @Sendable (Kring) -> Void
  private let bufferBase: UnsafeMutableRawPointer
  private struct State {
    /// The slot behind the last one filled; the slot behind the last one given back.
    var produced: UInt32 = 0, consumed: UInt32 = 0
    /// The empty buffer in each slot that is to be filled.
    var spare: [UInt32]
    var packets: UInt64 = 0, bytes: UInt64 = 0, drops: UInt64 = 0
    /// The slots of one packet, each read once.
    var packet: [NetmapSlot] = []
  }
  private let state: Guarded<State>
  /// Most slots of a packet (netmap's limit).
  static let mostFragments = 64

  /// - Parameters:
  ///   - kring: a fresh ring.
  ///   - bufferBase: of its region, which outlives this object.
  init(_ kring: Kring, bufferBase: UnsafeMutableRawPointer, wake: @escaping @Sendable (Kring) -> Void) {
    self.kring = kring
    self.wake = wake
    unsafe self.bufferBase = bufferBase
    state = Guarded(State(spare: RingRemains.slots(of: kring)))
    kring.reader = self
  }

  /// The monitor's own sync.
  func receive(_ released: (from: UInt32, to: UInt32)) {
    let bad = state.withLock { state -> UInt32? in
      var i = released.from, bad: UInt32?
      while i != released.to {
        let index = kring.ring.slot(i).bufferIndex
        guard kring.ledger.isHeld(index, by: kring.holder) else {
          bad = i
          break
        }
        state.spare[Int(i)] = index
        i = kring.next(i)
      }
      state.consumed = i
      kring.hwcur = i
      kring.hwtail = state.produced
      kring.counters.packets = state.packets
      kring.counters.bytes = state.bytes
      kring.counters.drops = state.drops
      return bad
    }
    if let bad { kring.lose(bad, head: bad) }
  }

  /// Takes the packets in slots `from ..< to` of a ring, as many as fit, each whole.
  /// - Parameters:
  ///   - swaps: takes the buffers and leaves empty ones; otherwise copies.
  ///   - base: of the source's region.
  func take(_ source: Kring, from: UInt32, to: UInt32, swaps: Bool, base: UnsafeMutableRawPointer) {
    guard from != to else { return }
    let came = state.withLock { state -> Bool in
      let before = state.produced
      var i = from
      while i != to {
        let start = i, isWhole = read(source, &i, to: to, &state.packet)
        let room = kring.count &- 1 &- kring.distance(state.consumed, state.produced)
        guard isWhole, state.packet.count <= Int(room) else {
          state.drops &+= 1
          continue
        }
        for (n, slot) in state.packet.enumerated() {
          let at = source.advance(start, by: UInt32(truncatingIfNeeded: n))
          unsafe put(slot, source, at, &state, swaps: swaps, base: base)
        }
        state.packets &+= 1
      }
      return state.produced != before
    }
    if came { wake(kring) }
  }

  /// Reads one packet, and goes behind it.
  /// - Returns: false for one that cannot be taken: too many slots, too long for a buffer here, or not right.
  private func read(_ source: Kring, _ i: inout UInt32, to end: UInt32, _ packet: inout [NetmapSlot]) -> Bool {
    packet.removeAll(keepingCapacity: true)
    var isRight = true, more = true
    while more, i != end {
      if let slot = source.checkedSlot(i), Int(slot.length) <= kring.bufferSize, packet.count < Self.mostFragments {
        packet.append(slot)
        more = slot.flags.contains(.moreFragments)
      } else {
        isRight = false
        more = source.ring.slot(i).flags.contains(.moreFragments)
      }
      i = source.next(i)
    }
    return isRight && !packet.isEmpty
  }

  private func put(
    _ slot: NetmapSlot, _ source: Kring, _ at: UInt32, _ state: inout State, swaps: Bool, base: UnsafeMutableRawPointer
  ) {
    let i = state.produced, empty = state.spare[Int(i)]
    var flags = slot.flags.intersection(.moreFragments)
    if source.id.direction == .transmit { flags.insert(.transmitMonitor) }
    if swaps {
      kring.ring.setSlot(i, bufferIndex: slot.bufferIndex, length: slot.length, flags: flags.union(.bufferChanged))
      source.ring.setSlot(at, bufferIndex: empty, length: slot.length, flags: slot.flags.union(.bufferChanged))
    } else {
      // SAFETY: the ledger says that the source's index is a buffer, offset and length were held against its size; the
      // spare buffer is the monitor's, and no shorter than the length.
      let from = unsafe base + Int(slot.bufferIndex) &* source.bufferSize + source.offset(of: slot)
      unsafe (bufferBase + Int(empty) &* kring.bufferSize).copyMemory(from: from, byteCount: Int(slot.length))
      kring.ring.setSlot(i, bufferIndex: empty, length: slot.length, flags: flags)
    }
    state.bytes &+= UInt64(slot.length)
    state.produced = kring.next(i)
  }

  /// The end of the ring, with its taps gone: every buffer in it, as far as the program's slots are true.
  func dissolve() -> [UInt32] {
    state.withLock { state in
      let filled = kring.distance(state.consumed, state.produced)
      return (0..<kring.count).map { n in
        let i = kring.advance(state.consumed, by: n)
        return n < filled ? kring.ring.slot(i).bufferIndex : state.spare[Int(i)]
      }
    }
  }
}

/// Gives what passes one ring to its monitors.
@safe final class MonitorTap: KringTap, @unchecked Sendable {
  struct Taker: Sendable {
    let ring: MonitorRing
    let takesBuffers: Bool
  }
  let takers: [Taker]
  private let bufferBase: UnsafeMutableRawPointer
  private let returnsSent: Bool
  /// Up to where handed-over transmit slots have been copied: behind the last whole packet.
  private var seen: UInt32?

  /// - Parameters:
  ///   - bufferBase: of the monitored ring's region.
  ///   - returnsSent: transmit slots come back with what was sent.
  init(_ takers: [Taker], bufferBase: UnsafeMutableRawPointer, returnsSent: Bool) {
    self.takers = takers
    unsafe self.bufferBase = bufferBase
    self.returnsSent = returnsSent
  }

  func handedOver(_ kring: Kring, _ released: (from: UInt32, to: UInt32)) {
    guard kring.id.direction == .transmit else { return takeBuffers(kring, released.from, released.to) }
    var from = seen ?? released.from
    if kring.distance(kring.hwcur, from) > kring.distance(kring.hwcur, released.from) { from = released.from }
    let end = lastEnd(kring, from, released.to)
    for taker in takers where !(taker.takesBuffers && returnsSent) {
      unsafe taker.ring.take(kring, from: from, to: end, swaps: false, base: bufferBase)
    }
    seen = end
  }

  func willShow(_ kring: Kring) {
    if kring.id.direction == .transmit {
      // What the adapter is done with: the slot at `hwtail` is, though the program gets it later.
      if returnsSent { takeBuffers(kring, kring.next(kring.rtail), kring.next(kring.hwtail)) }
      return
    }
    for taker in takers where !taker.takesBuffers {
      unsafe taker.ring.take(kring, from: kring.rtail, to: kring.hwtail, swaps: false, base: bufferBase)
    }
  }

  /// One monitor gets the buffers themselves; others that would take them get copies before.
  private func takeBuffers(_ kring: Kring, _ from: UInt32, _ to: UInt32) {
    let wanting = takers.filter(\.takesBuffers)
    for taker in wanting.dropFirst() { unsafe taker.ring.take(kring, from: from, to: to, swaps: false, base: bufferBase) }
    if let first = wanting.first { unsafe first.ring.take(kring, from: from, to: to, swaps: true, base: bufferBase) }
  }

  /// Behind the last packet that is complete. One of more slots than a packet may have counts as complete.
  private func lastEnd(_ kring: Kring, _ from: UInt32, _ to: UInt32) -> UInt32 {
    var end = from, i = from, open = 0
    while i != to {
      let more = kring.ring.slot(i).flags.contains(.moreFragments)
      i = kring.next(i)
      open += 1
      if !more || open > MonitorRing.mostFragments {
        end = i
        open = 0
      }
    }
    return end
  }
}
