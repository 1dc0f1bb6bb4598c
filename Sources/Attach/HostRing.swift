// Host rings: where a program and the host's stack meet while the card is the program's.
//
//    receive    the stack sends (any worker) ── copied ──> slot at hwtail ── rxsync ──> program
//    transmit   program ── txsync ──> copied into packets of the stack ── Interface.input ──> up
//
// What the stack sends is copied at once, on the worker that sends it, so that no packet of the
// stack waits in a program's queue. Full, or too long for a buffer: dropped and counted. What the
// program sends always drains: slots that hold no frame are skipped and counted.

internal import DriverKit
internal import Ifnet
internal import NetmapCore
internal import Packet
internal import Platform
internal import Wire

/// One pair of host rings. The receive ring is under a lock, because any worker may send.
final class HostRing: @unchecked Sendable {
  private let receive = Guarded<Receive?>(nil)
  /// Used on the pair's owner alone.
  private(set) var transmit: Kring?
  private var allocator: NetmapAllocator?
  /// Bytes of the shortest frame that goes up.
  static let shortest = 14

  /// The receive ring, and the memory that it lies in.
  private struct Receive {
    let slots: ReceiveSlots
    let allocator: NetmapAllocator
  }

  func begin(receive slots: ReceiveSlots, in allocator: NetmapAllocator) {
    receive.withLock { $0 = Receive(slots: slots, allocator: allocator) }
  }
  func endReceive() -> ReceiveSlots? {
    receive.withLock { ring in
      defer { ring = nil }
      return ring?.slots
    }
  }
  /// On the pair's owner.
  func begin(transmit kring: Kring, in allocator: NetmapAllocator) {
    transmit = kring
    self.allocator = allocator
  }
  func endTransmit() {
    transmit = nil
    allocator = nil
  }

  /// What the stack sends. The batch is empty afterwards.
  /// - Returns: the ring's wakeup, when frames were put into it.
  func take(_ batch: inout PacketBatch, drops: DropLedger, interface: InterfaceIndex, queue: Int) -> KringWakeup? {
    let slots = unsafe batch.fullSlots, count = batch.count
    let wakeup = receive.withLock { ring -> KringWakeup? in
      var placed = false
      for k in 0..<count {
        let packet = unsafe Packet(unsafe: slots[k])
        if let reason = Self.place(packet, in: ring) {
          drops.drop(packet, reason, interface: interface, queue: UInt8(truncatingIfNeeded: queue))
        } else {
          placed = true
        }
      }
      return placed ? ring?.slots.kring.wakeup : nil
    }
    batch.removePrefix(count)
    return wakeup
  }

  /// Copies one frame into the ring.
  /// - Returns: why it could not be; nil when it is there.
  private static func place(_ packet: borrowing Packet, in open: Receive?) -> DropReason? {
    guard let open else { return .hostRingClosed }
    let ring = open.slots, kring = ring.kring, size = kring.bufferSize
    guard packet.count + (packet.flags.contains(.vlan) ? 4 : 0) <= size else {
      kring.counters.drops &+= 1
      return .tooLong
    }
    guard kring.space > 0 else {
      kring.counters.drops &+= 1
      return .hostRingFull
    }
    let index = ring.buffer(kring.hwtail)
    // SAFETY: the ring's own list names buffers of the region, each `size` bytes long.
    let at = ReceiveOffset.place(kring, length: packet.count + 4)
    let target = unsafe UnsafeMutableRawBufferPointer(start: open.allocator.bufferBase + Int(index) * size + at, count: size - at)
    let length = unsafe WireFrame.write(packet, to: target)
    ReceiveOffset.show(at, kring)
    _ = ring.fill(index, length: length, flags: [])
    kring.counters.packets &+= 1
    kring.counters.bytes &+= UInt64(length)
    return nil
  }

  /// The program's sync of the receive ring: takes slots back, shows what came.
  /// - Parameter target: a transmit ring of the card's that gets the slots which the program marked.
  /// - Returns: slots that went to `target`; nil when the ring is no longer this pair's.
  func synchronise(receive kring: Kring, onto target: Kring?) -> Int? {
    receive.withLock { ring in
      guard let slots = ring?.slots, slots.kring === kring else { return nil }
      var forwarded = 0
      if let released = kring.prologue() {
        if let tap = kring.tap { tap.handedOver(kring, released) }
        if let target { forwarded = ForwardDown.move(released, of: kring, onto: target) }
        slots.release(released)
        if let tap = kring.tap { tap.willShow(kring) }
      }
      kring.finalise()
      return forwarded
    }
  }

  /// Takes everything off the transmit ring. On the pair's owner.
  /// - Parameters:
  ///   - up: gets the frames, a batch at a time.
  ///   - lost: gets frames for which the stack has no packet: bytes.
  func drain(_ kring: Kring, stack: PacketPool, up: (inout PacketBatch) -> Void, lost: (Int) -> Void) {
    guard let base = unsafe allocator?.bufferBase else { return }
    var batch = PacketBatch(capacity: 64)
    while kring.hwcur != kring.rhead {
      let i = kring.hwcur
      guard kring.ledger.isHeld(kring.ring.slot(i).bufferIndex, by: kring.holder) else {
        kring.hwcur = kring.rhead
        kring.counters.drops &+= 1
        kring.lose(i)
        break
      }
      kring.hwcur = kring.next(i)
      guard let slot = kring.checkedSlot(i), Int(slot.length) >= Self.shortest else {
        kring.counters.badLengths &+= 1
        kring.counters.drops &+= 1
        continue
      }
      // SAFETY: index and length were checked, and are this copy's.
      let bytes = unsafe UnsafeRawBufferPointer(
        start: base + Int(slot.bufferIndex) * kring.bufferSize + kring.offset(of: slot), count: Int(slot.length))
      guard let packet = unsafe StackCopy.make(of: bytes, from: stack) else {
        lost(bytes.count)
        continue
      }
      kring.counters.packets &+= 1
      kring.counters.bytes &+= UInt64(slot.length)
      if let refused = batch.append(packet) { lost(refused.count) }
      if batch.room == 0 { up(&batch) }
    }
    kring.hwtail = kring.previous(kring.hwcur)
    if !batch.isEmpty { up(&batch) }
  }
}

/// Where a received frame starts in its buffer (option OFFSETS): where the slot says, as the program left it.
enum ReceiveOffset {
  /// - Parameter length: bytes that must fit, and the ring's gap behind them; otherwise a frame starts with its buffer.
  @inline(__always) static func place(_ kring: Kring, length: Int) -> Int {
    guard kring.offsetMask != 0 else { return 0 }
    let wanted = kring.offset(of: kring.ring.slot(kring.hwtail))
    return wanted + length + kring.smallestGap <= kring.bufferSize ? wanted : 0
  }

  /// Writes the offset into the slot that is about to be filled.
  @inline(__always) static func show(_ offset: Int, _ kring: Kring) {
    guard kring.offsetMask != 0 else { return }
    kring.ring.setPointer(kring.hwtail, kring.pointer(offset: offset, old: kring.ring.slot(kring.hwtail).pointer))
  }
}

/// A frame of the stack's as it would be on the wire: what the card was asked to finish is finished.
enum WireFrame {
  /// - Parameter target: at least the frame's bytes and four more with a VLAN tag.
  /// - Returns: bytes written.
  static func write(_ packet: borrowing Packet, to target: UnsafeMutableRawBufferPointer) -> Int {
    var count = unsafe packet.copyBytes(to: target)
    let record = unsafe packet.record
    let lengths = unsafe record.pointee.headerLengths, flags = packet.flags
    if lengths != 0 {
      let link = Int(lengths & 0x7f), transport = link + Int(lengths >> 7)
      if flags.contains(.ipChecksum) { unsafe finishIP(target, link, transport, count) }
      if flags.contains(.tcpChecksum) { unsafe finish(target, transport, field: transport + 16, count) }
      if flags.contains(.udpChecksum) { unsafe finish(target, transport, field: transport + 6, count) }
    }
    guard flags.contains(.vlan), count >= 12, count + 4 <= target.count, let start = target.baseAddress else { return count }
    // SAFETY: four bytes behind the frame are inside `target`.
    unsafe (start + 16).copyMemory(from: start + 12, byteCount: count - 12)
    unsafe (start + 12).storeBytes(of: UInt16(0x8100).bigEndian, as: UInt16.self)
    unsafe (start + 14).storeBytes(of: packet.vlan.bigEndian, as: UInt16.self)
    count += 4
    return count
  }

  private static func finishIP(_ bytes: UnsafeMutableRawBufferPointer, _ from: Int, _ to: Int, _ count: Int) {
    guard from + 20 <= to, to <= count else { return }
    unsafe put(0, bytes, from + 10)
    unsafe put(sum(bytes, from, to), bytes, from + 10)
  }

  /// The field holds the pseudo header's sum, which the sum over everything takes in.
  private static func finish(_ bytes: UnsafeMutableRawBufferPointer, _ from: Int, field: Int, _ count: Int) {
    guard field + 2 <= count else { return }
    unsafe put(sum(bytes, from, count), bytes, field)
  }

  private static func put(_ value: UInt16, _ bytes: UnsafeMutableRawBufferPointer, _ at: Int) {
    unsafe bytes[at] = UInt8(value >> 8)
    unsafe bytes[at + 1] = UInt8(truncatingIfNeeded: value)
  }

  /// The Internet checksum (RFC 1071) of the bytes `from ..< to`.
  private static func sum(_ bytes: UnsafeMutableRawBufferPointer, _ from: Int, _ to: Int) -> UInt16 {
    var total: UInt32 = 0, i = from
    while i + 1 < to {
      unsafe total &+= UInt32(bytes[i]) << 8 | UInt32(bytes[i + 1])
      i += 2
    }
    if i < to { unsafe total &+= UInt32(bytes[i]) << 8 }
    while total > 0xffff { total = (total & 0xffff) + total >> 16 }
    return ~UInt16(truncatingIfNeeded: total)
  }
}
