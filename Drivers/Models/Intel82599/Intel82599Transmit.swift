// From transmit rings to the wire (datasheet, 7.2).
//
// The descriptors of a frame are taken when the last of them is there. A frame in one buffer without
// offloads goes to the wire from where it lies; others are put together first.

import CRingway
import ModelKit

/// A descriptor as read from the ring.
private struct Descriptor {
  var address: UInt64
  var command: UInt32
  var status: UInt32
  var isContext: Bool { command & Send599.advanced != 0 && command & Send599.kindMask == Send599.context }
  var isLegacy: Bool { command & Send599.advanced == 0 }
  var length: Int { Int(command & 0xffff) }
  var ends: Bool { command & Send599.end != 0 }
}

/// What the first data descriptor of a frame asks for.
private struct Request {
  var segments = false
  var tag: UInt16?
  var networkChecksum = false
  var transportChecksum = false
  var context = Intel82599Context()
  /// Legacy: sums from `start` into `field`.
  var legacy: (start: Int, field: Int)?
  var hasCheckSequence = false
  var isPlain: Bool {
    !segments && tag == nil && !networkChecksum && !transportChecksum && legacy == nil && !hasCheckSequence
  }
}

extension Intel82599Model {
  /// Frames each queue may send before the next one's turn.
  private static let turn = 64

  /// One turn for each queue; frames sent.
  func transmitRound() -> Int {
    guard get(At599.transmitDMA) & Bit599.transmitEnable != 0, linkIsUp, !faults.transmitHangs else { return 0 }
    var sent = 0
    var queue = sendingActive.next(0)
    while queue < 128 {
      sent += withSending(queue) { serve(queue, &$0) }
      queue = sendingActive.next(queue + 1)
    }
    return sent
  }

  private func serve(_ queue: Int, _ state: inout Intel82599TransmitQueue) -> Int {
    let at = Self.transmitBase(queue)
    let tail = Int(get(at + Ring599.tail) & 0xffff)
    if tail < state.ring.count { state.ring.tail = tail }
    guard !state.ring.isStopped, state.ring.head != state.ring.tail else { return 0 }
    var sent = 0
    while sent < Self.turn, sendNext(queue, &state) { sent += 1 }
    showHead(&state.ring, at)
    return sent
  }

  private func descriptor(_ ring: Intel82599Ring, _ index: Int) -> Descriptor? {
    // SAFETY: 16 bytes that the mapping holds.
    guard let at = unsafe bus.memory.pointer(ring.address(index), 16, writing: false) else { return nil }
    let words = unsafe rw_read64(at + 8)
    return Descriptor(
      address: unsafe rw_read64(at), command: UInt32(truncatingIfNeeded: words), status: UInt32(words >> 32))
  }

  /// Sends one frame (or takes one lone context). False when there is no whole one.
  private func sendNext(_ queue: Int, _ state: inout Intel82599TransmitQueue) -> Bool {
    var index = state.ring.head, left = state.ring.waiting
    while left > 0 {
      guard let found = descriptor(state.ring, index) else {
        stop(&state.ring, "transmit queue \(queue) reads a descriptor")
        return false
      }
      guard found.isContext else {
        return sendData(queue, &state, data: index, found, left)
      }
      takeContext(queue, &state, index)
      index = state.ring.after(index)
      left -= 1
      state.ring.head = index
    }
    return false
  }

  private func takeContext(_ queue: Int, _ state: inout Intel82599TransmitQueue, _ index: Int) {
    guard let at = unsafe bus.memory.pointer(state.ring.address(index), 16, writing: false) else { return }
    // SAFETY: 16 bytes that the mapping holds.
    let context = Intel82599Context(
      lengths: unsafe rw_read32(at), kind: unsafe rw_read32(at + 8), sizes: unsafe rw_read32(at + 12))
    if context.sizes >> 4 & 7 == 0 { state.first = context } else { state.second = context }
    if context.sizes >> 4 & 7 > 1 { bus.complain("82599: transmit queue \(queue): context index above 1") }
  }

  /// - Parameters:
  ///   - data: the first data descriptor's index.
  ///   - left: descriptors from there to the tail.
  private func sendData(
    _ queue: Int, _ state: inout Intel82599TransmitQueue, data: Int, _ first: Descriptor, _ left: Int
  ) -> Bool {
    let request = request(state, first)
    var found = first, index = data, left = left
    let total = first.length
    if first.ends, request.isPlain, total >= 14, total >= 60 || get(At599.highLevel) & Bit599.pad == 0 {
      guard !faults.takesWrongAddress(bus.memory) else { return finish(queue, &state, data, first, data) }
      guard let bytes = unsafe bus.memory.contiguous(first.address, total, writing: false) else {
        // It may span two windows: gather it.
        return gather(queue, &state, data, first, request)
      }
      checkLength(queue, first, total)
      unsafe emit(UnsafeRawBufferPointer(start: bytes, count: total), queue)
      return finish(queue, &state, data, first, data)
    }
    while !found.ends {
      left -= 1
      index = state.ring.after(index)
      guard left > 0 else { return false }
      guard let next = descriptor(state.ring, index) else {
        stop(&state.ring, "transmit queue \(queue) reads a descriptor")
        return false
      }
      found = next
    }
    return gather(queue, &state, data, first, request)
  }

  /// Puts a frame together in the scratch buffer and sends it.
  private func gather(
    _ queue: Int, _ state: inout Intel82599TransmitQueue, _ data: Int, _ first: Descriptor, _ request: Request
  ) -> Bool {
    scratch.removeAll()
    var index = data, found = first
    let isWrong = faults.takesWrongAddress(bus.memory)
    while true {
      if !isWrong, found.length > 0, !scratch.append(bus.memory, found.address, count: found.length) {
        guard !scratch.isOverflown else { break }
        stop(&state.ring, "transmit queue \(queue) reads a buffer of \(found.length) bytes")
        return false
      }
      if found.ends { break }
      index = state.ring.after(index)
      guard let next = descriptor(state.ring, index) else {
        stop(&state.ring, "transmit queue \(queue) reads a descriptor")
        return false
      }
      found = next
    }
    if !isWrong { sendScratch(queue, first, request) }
    return finish(queue, &state, data, found, index)
  }

  private func request(_ state: Intel82599TransmitQueue, _ first: Descriptor) -> Request {
    var request = Request()
    request.hasCheckSequence = first.command & Send599.insertCheck == 0
    if first.isLegacy {
      if first.command & Send599.insertTag != 0 { request.tag = UInt16(first.status >> 16) }
      if first.command & Send599.legacyChecksum != 0 {
        request.legacy = (Int(first.status >> 8 & 0xff), Int(first.command >> 16 & 0xff))
      }
      return request
    }
    request.segments = first.command & Send599.segment != 0
    request.networkChecksum = first.status & 1 << 8 != 0
    request.transportChecksum = first.status & 1 << 9 != 0
    request.context = first.status >> 4 & 7 == 0 ? state.first : state.second
    if first.command & Send599.insertTag != 0 { request.tag = request.context.tag }
    return request
  }

  /// PAYLEN of an advanced descriptor: all of the frame, or what is behind the headers (7.2.3.2.4).
  private func checkLength(_ queue: Int, _ first: Descriptor, _ total: Int) {
    guard !first.isLegacy, Int(first.status >> 14) != total else { return }
    bus.complain("82599: transmit queue \(queue): PAYLEN is \(first.status >> 14), the data has \(total) bytes")
  }

  private func sendScratch(_ queue: Int, _ first: Descriptor, _ request: Request) {
    guard !scratch.isOverflown, scratch.count >= 14 else {
      return bus.complain("82599: transmit queue \(queue): a frame of \(scratch.count) bytes cannot be sent")
    }
    let context = request.context
    if request.segments { return segment(queue, first, request) }
    checkLength(queue, first, scratch.count)
    if request.hasCheckSequence { scratch.truncate(to: scratch.count - 4) }
    let network = context.macLength, transport = network + context.networkLength
    if request.networkChecksum, unsafe !FrameChecksum.insertIPv4Header(scratch.mutableBytes, at: network) {
      bus.complain("82599: transmit queue \(queue): no IPv4 header at MACLEN \(network)")
    }
    if request.transportChecksum { insertTransport(queue, context, transport) }
    if let legacy = request.legacy {
      unsafe FrameChecksum.insert(scratch.mutableBytes, start: legacy.start, field: legacy.field)
    }
    if let tag = request.tag { scratch.insertTag(tag) }
    if get(At599.highLevel) & Bit599.pad != 0 { scratch.pad(to: 60) }
    guard scratch.count <= 15_868 else {
      return bus.complain("82599: transmit queue \(queue): \(scratch.count) bytes are more than the card sends")
    }
    unsafe emit(scratch.bytes, queue)
  }

  private func insertTransport(_ queue: Int, _ context: Intel82599Context, _ transport: Int) {
    let bytes = unsafe scratch.mutableBytes
    var done = false
    switch context.transport {
    case 0: done = unsafe FrameChecksum.insert(bytes, start: transport, field: transport + 6, zeroBecomesOnes: true)
    case 1: done = unsafe FrameChecksum.insert(bytes, start: transport, field: transport + 16)
    case 2:
      if bytes.count >= transport + 12 {
        let packet = unsafe scratch.bytes.piece(transport, bytes.count - transport)
        unsafe bytes.setBig32(EthernetCRC.sctp(packet).byteSwapped, transport + 8)
        done = true
      }
    default: break
    }
    if !done { bus.complain("82599: transmit queue \(queue): no transport header at \(transport) for a checksum") }
  }

  /// Transmit segmentation (7.2.4).
  private func segment(_ queue: Int, _ first: Descriptor, _ request: Request) {
    let context = request.context
    let transport = context.macLength + context.networkLength
    let isTCP = context.transport == 1
    let header = transport + (isTCP ? context.transportLength : 8)
    let low = get(At599.segmentFlagsLow), high = get(At599.segmentFlagsHigh)
    var plan = SegmentationPlan(
      networkOffset: context.macLength, transportOffset: transport, headerLength: header,
      segmentSize: context.segmentSize)
    plan.transport = isTCP ? .tcp : .udp
    plan.seed = .field
    plan.insertsIPv4Checksum = request.networkChecksum || context.isIPv4
    plan.insertsTransportChecksum = true
    plan.tag = request.tag
    plan.firstFlags = UInt16(low & 0xfff)
    plan.middleFlags = UInt16(low >> 16 & 0xfff)
    plan.lastFlags = UInt16(high & 0xfff)
    let stated = Int(first.status >> 14), follow = scratch.count - header
    if stated != follow {
      bus.complain("82599: transmit queue \(queue): PAYLEN is \(stated), \(follow) bytes follow the headers")
    }
    let made = unsafe segmenter.segment(scratch.bytes, plan) { unsafe emit($0, queue) }
    if made == 0 {
      bus.complain(
        "82599: transmit queue \(queue): cannot segment \(scratch.count) bytes with MACLEN \(context.macLength), "
          + "IPLEN \(context.networkLength), L4LEN \(context.transportLength), MSS \(context.segmentSize)")
    }
  }

  /// A frame leaves: to the wire, or back to the receiver.
  private func emit(_ frame: UnsafeRawBufferPointer, _ queue: Int) {
    unsafe countSent(frame, queue)
    if get(At599.highLevel) & Bit599.loopback != 0 {
      unsafe accept(frame, [], loopback: true)
    } else {
      unsafe wire.transmit(frame, queue: queue, at: bus.now)
    }
  }

  /// Moves the head behind the frame's last descriptor and reports, where asked to.
  private func finish(
    _ queue: Int, _ state: inout Intel82599TransmitQueue, _ data: Int, _ last: Descriptor, _ index: Int
  ) -> Bool {
    state.ring.head = state.ring.after(index)
    raiseTransmitIfReported(queue, last)
    guard last.command & Send599.report != 0, !faults.neverReports else { return true }
    if state.writesHead {
      let head = faults.completion(UInt32(truncatingIfNeeded: state.ring.head))
      if !bus.memory.write32(head, at: state.writeBack) { stop(&state.ring, "transmit queue \(queue) writes its head") }
      return true
    }
    let place = Int(faults.completion(UInt32(truncatingIfNeeded: index)))
    let target = state.ring.count > 0 ? place % state.ring.count : 0
    if !bus.memory.write32(1, at: state.ring.address(target) &+ 12) {
      stop(&state.ring, "transmit queue \(queue) reports")
    }
    return true
  }

  private func raiseTransmitIfReported(_ queue: Int, _ last: Descriptor) {
    if last.command & Send599.report != 0, !faults.neverReports { raiseTransmit(queue) }
  }
}
