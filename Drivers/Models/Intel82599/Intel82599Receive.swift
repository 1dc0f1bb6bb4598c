// From the wire to receive rings (datasheet, 7.1).
//
//     frame ──> MAC checks ──> filters ──> queue ──┬─ descriptors free ──> buffers, write-back
//                                                  └─ none ──> packet buffer (or dropped: DROP_EN, full)
//
// Frames that wait in the packet buffer are in order, across all queues, as in the card's memory.

import CRingway
import ModelKit

/// What is known of a frame that goes to a queue.
struct Intel82599Arrival {
  var queue = 0
  var hash: UInt32 = 0
  /// RSS type and packet type: the descriptor's first word.
  var kind: UInt32 = 0
  /// Status and error bits but done and end of packet.
  var status: UInt32 = 0
}

extension Intel82599Model {
  /// Takes frames from the packet buffer and from the wire; frames taken.
  func receiveRound(_ limit: Int) -> Int {
    var taken = drainPacketBuffer(limit)
    while taken < limit, unsafe wire.receive(at: bus.now, { unsafe accept($0, $1, loopback: false) }) { taken += 1 }
    return taken
  }

  private func drainPacketBuffer(_ limit: Int) -> Int {
    var taken = 0
    while taken < limit, let frame = unsafe packetBuffer.first {
      let arrival = packetBuffer.firstArrival
      guard unsafe deliver(frame, arrival) else { break }
      packetBuffer.removeFirst()
      taken += 1
    }
    return taken
  }

  /// A frame arrives, without its check sequence.
  func accept(_ frame: UnsafeRawBufferPointer, _ marks: WireMarks, loopback: Bool) {
    // While the MAC talks to itself nothing comes from the cable.
    guard get(At599.receiveControl) & Bit599.receiveEnable != 0, linkIsUp || loopback,
      loopback || get(At599.highLevel) & Bit599.loopback == 0, get(At599.receiveSecurity) & Bit599.securityDisable == 0
    else {
      filteredOut += 1
      return
    }
    guard unsafe passesMAC(frame, marks) else { return }
    let headers = unsafe ParsedHeaders(frame)
    guard var arrival = unsafe classify(frame, headers) else {
      filteredOut += 1
      return
    }
    if marks.contains(.badCheckSequence) { arrival.status |= Done599.checkError }
    if loopback { arrival.status |= Done599.loopback }
    unsafe countReceived(frame, isBad: marks.contains(.badCheckSequence))
    if faults.takesReceiveError() { arrival.status |= Done599.checkError | Done599.macError }
    let isDelivered = packetBuffer.isEmpty ? unsafe deliver(frame, arrival) : false
    if !isDelivered { unsafe hold(frame, arrival) }
  }

  /// Length and check sequence (7.1.1, 8.2.3.22.8, 8.2.3.23).
  private func passesMAC(_ frame: UnsafeRawBufferPointer, _ marks: WireMarks) -> Bool {
    guard frame.count >= 14 else {
      count(Count599.undersized)
      return false
    }
    let isTagged = unsafe frame.big16(12) == UInt16(truncatingIfNeeded: get(At599.vlanControl))
    let jumbo = get(At599.highLevel) & Bit599.jumbo != 0
    let largest = (jumbo ? Int(get(At599.largestFrame) >> 16) : 1518) + (isTagged ? 4 : 0)
    if frame.count + 4 > largest {
      count(marks.contains(.badCheckSequence) ? Count599.jabbers : Count599.oversized)
      return false
    }
    guard marks.contains(.badCheckSequence) else { return true }
    count(Count599.checkErrors)
    return get(At599.filterControl) & Bit599.storeBad != 0
  }

  /// Keeps a frame until there are descriptors; drops it when the buffer is full.
  private func hold(_ frame: UnsafeRawBufferPointer, _ arrival: Intel82599Arrival) {
    if unsafe packetBuffer.append(frame, arrival) { return }
    count(Count599.missed)
    raise(other: Bit599.causeMissed)
  }

  /// QPRDC is plain memory where doorbells are shared, and reading does not clear it: there the frame
  /// is among those missed.
  private func drop(_ queue: Int) {
    guard !bus.sharesDoorbells else { return count(Count599.missed) }
    count(Count599.queueDropped + receiveStatistic(queue) * 0x40)
  }

  /// Puts a frame into a queue. False when it has to wait for descriptors.
  private func deliver(_ frame: UnsafeRawBufferPointer, _ arrival: Intel82599Arrival) -> Bool {
    let queue = arrival.queue
    guard receivingActive.contains(queue) else {
      drop(queue)
      return true
    }
    return withReceiving(queue) { unsafe fill(queue, &$0, frame, arrival) }
  }

  private func fill(
    _ queue: Int, _ state: inout Intel82599ReceiveQueue, _ frame: UnsafeRawBufferPointer, _ arrival: Intel82599Arrival
  ) -> Bool {
    let tail = Int(get(Self.receiveBase(queue) + Ring599.tail) & 0xffff)
    if tail < state.ring.count { state.ring.tail = tail }
    guard !state.ring.isStopped, state.ring.count > 0 else {
      drop(queue)
      return true
    }
    var arrival = arrival, bytes = unsafe frame, tag: UInt16 = 0
    let keepsCheck = get(At599.highLevel) & Bit599.highStripCheck == 0 && get(At599.receiveDMA) & Bit599.stripCheck == 0
    let vlanType = UInt16(truncatingIfNeeded: get(At599.vlanControl))
    let strips = state.stripsTags && frame.count >= 18 && (unsafe frame.big16(12)) == vlanType
    if strips || keepsCheck {
      received.removeAll()
      unsafe received.append(frame)
      if keepsCheck { appendCheck(unsafe EthernetCRC.of(frame)) }
      if strips, let found = received.stripTag(type: vlanType) {
        tag = found
        arrival.status |= Done599.tagStripped
      }
      unsafe bytes = received.bytes
    }
    if state.limit > 0, bytes.count + (keepsCheck ? 0 : 4) > state.limit {
      count(Count599.oversized)
      return true
    }
    let needed = max(1, (bytes.count + state.bufferSize - 1) / state.bufferSize)
    if needed > state.ring.waiting {
      guard state.dropsWhenFull || needed >= state.ring.count else { return false }
      drop(queue)
      return true
    }
    unsafe scatter(queue, &state, bytes, arrival, tag, needed)
    return true
  }

  private func appendCheck(_ value: UInt32) {
    unsafe withUnsafeBytes(of: value.littleEndian) { _ = unsafe received.append($0) }
  }

  private func scatter(
    _ queue: Int, _ state: inout Intel82599ReceiveQueue, _ frame: UnsafeRawBufferPointer,
    _ arrival: Intel82599Arrival, _ tag: UInt16, _ needed: Int
  ) {
    let isWrong = faults.takesWrongAddress(bus.memory), hasNoEnd = faults.takesMissingEnd()
    let stated = faults.takesLength()
    var done = 0
    for piece in 0..<needed {
      let size = min(state.bufferSize, frame.count - done), isLast = piece == needed - 1
      let index = state.ring.head
      // SAFETY: 16 bytes that the mapping holds; they are this device's until it writes them back.
      guard let at = unsafe bus.memory.pointer(state.ring.address(index), 16, writing: true) else {
        return stop(&state.ring, "receive queue \(queue) reads a descriptor")
      }
      let address = unsafe rw_read64(at)
      if !isWrong, unsafe !bus.memory.write(frame.piece(done, size), at: address) {
        return stop(&state.ring, "receive queue \(queue) writes a buffer of \(size) bytes")
      }
      done += size
      var status = Done599.done
      if isLast { status |= arrival.status | (hasNoEnd ? 0 : Done599.end) }
      let length = isLast ? stated ?? UInt32(size) : UInt32(size)
      state.ring.head = state.ring.after(index)
      if faults.neverDelivers { continue }
      if state.isLegacy {
        unsafe writeLegacy(at, status, length, tag)
      } else {
        unsafe rw_write64(at, UInt64(arrival.hash) << 32 | UInt64(arrival.kind))
        let words = UInt64(length & 0xffff | UInt32(isLast ? tag : 0) << 16) << 32 | UInt64(status)
        unsafe rw_store_release64(at + 8, words)
      }
    }
    showHead(&state.ring, Self.receiveBase(queue))
    countQueueReceived(queue, frame.count)
    if !faults.neverDelivers { raiseReceive(queue) }
  }

  /// The legacy write-back (7.1.5): length, status, errors, tag in the second half.
  private func writeLegacy(_ at: UnsafeMutableRawPointer, _ status: UInt32, _ length: UInt32, _ tag: UInt16) {
    let errors = status >> 24 & 0xff
    let low = status & 0xff
    let words = UInt64(length & 0xffff) | UInt64(low) << 32 | UInt64(errors) << 40 | UInt64(tag) << 48
    unsafe rw_store_release64(at + 8, words)
  }
}
