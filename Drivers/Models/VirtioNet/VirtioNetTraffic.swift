// What the device does in a step: commands, frames out, frames in (clauses 5.1.6.2 to 5.1.6.4).

import ModelKit

extension VirtioNetModel {
  public func step(budget: Int) -> Int {
    guard !habits.isGone else { return 0 }
    noticeLink()
    if habits.storms { storm() }
    var moved = endCoalescing()
    guard isRunning else {
      if registers.status & VirtioModelStatus.driverOK == 0 { moved += discard(limit: budget) }
      return moved
    }
    moved += runCommands()
    let share = max(1, budget / 2)
    for pair in 0..<options.pairs where moved < share { moved += transmit(queues[2 * pair + 1], limit: share) }
    if isRunning { moved += receive(limit: max(1, budget - moved)) }
    return moved
  }

  public var deadline: UInt64? {
    var first: UInt64?
    for queue in queues {
      if let until = queue.coalescedUntil { first = min(first ?? until, until) }
    }
    return first
  }

  /// Bytes before a frame (clause 5.1.6.1).
  var headerSize: Int { has(VirtioModelFeature.hashReport) ? 20 : 12 }

  /// Frames for nobody: no driver is there.
  private func discard(limit: Int) -> Int {
    var gone = 0
    while gone < limit, unsafe wire.receive(at: bus.now, { _, _ in }) { gone += 1 }
    counters.unattended += gone
    return gone
  }

  // MARK: Frames out

  private func transmit(_ queue: VirtioModelQueue, limit: Int) -> Int {
    guard queue.isEnabled, !habits.stopsTransmitting, !habits.hangs, bus.sharesDoorbells || queue.isNotified else {
      return 0
    }
    queue.isNotified = false
    finished.removeAll(keepingCapacity: true)
    var moved = 0
    repeat {
      while moved < limit, isRunning, available(queue) > 0, let id = head(queue, ahead: 0) {
        gather.removeAll()
        guard readChain(queue, head: id) else { break }
        queue.taken &+= 1
        moved += 1
        guard send(gather.chains[0], queue) else { break }
        if habits.neverReports { continue }
        if options.reversesCompletions { finished.append(id) } else { use(queue, id, count: 0) }
      }
      while let id = finished.popLast() { use(queue, id, count: 0) }
      publish(queue)
      if moved >= limit {
        queue.isNotified = true
        break
      }
      // Saying up to where the device has looked, and looking again: a driver may have added in between.
    } while isRunning && offerNotification(queue, true)
    return moved
  }

  /// Sends a chain's frame. False on a DMA error.
  private func send(_ chain: VirtioModelGather.Chain, _ queue: VirtioModelQueue) -> Bool {
    if chain.room > 0 { complain("a frame to send has writable descriptors") }
    guard chain.readable >= headerSize, chain.readable - headerSize <= Self.largestFrame else {
      complain("a frame to send of \(chain.readable) bytes, header included")
      counters.sentDropped += 1
      return true
    }
    if takeWrongAddress() { return true }
    header.removeAll()
    scratch.removeAll()
    var missing = headerSize
    for part in gather.parts[chain.parts] where !part.isWritable {
      let first = min(missing, part.count)
      guard first == 0 || header.append(bus.memory, part.address, count: first),
        first == part.count
          || scratch.append(bus.memory, part.address &+ UInt64(first), count: part.count - first)
      else { return memoryError("a frame to send on queue \(queue.index)") }
      missing -= first
    }
    guard registers.linkUp else {
      counters.sentDropped += 1
      return true
    }
    finish(pair: queue.index / 2)
    return true
  }

  /// Does what the header asks for (clause 5.1.6.2), and sends.
  private func finish(pair: Int) {
    let flags = unsafe header.bytes.byte(0), kind = unsafe header.bytes.byte(1)
    guard flags != 0 || kind != 0 else { return unsafe emit(scratch.bytes, pair: pair) }
    guard flags == 0 || has(VirtioModelFeature.checksum), kind == 0 || isSegmentation(kind) else {
      complain("a frame asks for offloads that were not agreed on: flags \(flags), segmentation \(kind)")
      return unsafe emit(scratch.bytes, pair: pair)
    }
    if kind != 0 { return cut(pair: pair) }
    if flags & 1 != 0 {
      let start = field(6), offset = field(8)
      // UDP's checksum field is its fourth word: zero there means "none" (RFC 768).
      if unsafe FrameChecksum.insert(
        scratch.mutableBytes, start: start, field: start + offset, zeroBecomesOnes: offset == 6)
      {
        counters.checksums += 1
      } else {
        complain("a checksum at \(start) + \(offset) in a frame of \(scratch.count) bytes")
      }
    }
    unsafe emit(scratch.bytes, pair: pair)
  }

  /// A 16-bit field of the header, least significant byte first.
  private func field(_ at: Int) -> Int { Int(unsafe header.bytes.big16(at).byteSwapped) }

  /// VIRTIO_NET_HDR_GSO_TCPV4 and TCPV6, with or without ECN.
  private func isSegmentation(_ kind: UInt8) -> Bool {
    if kind & 0x80 != 0, !has(VirtioModelFeature.hostECN) { return false }
    return switch kind & 0x7f {
    case 1: has(VirtioModelFeature.hostTSO4)
    case 4: has(VirtioModelFeature.hostTSO6)
    default: false
    }
  }

  private func cut(pair: Int) {
    let headers = unsafe ParsedHeaders(scratch.bytes)
    let size = field(4)
    guard headers.isTCP, !headers.isFragment, size > 0 else {
      complain("segments of \(size) bytes of what is not TCP")
      counters.sentDropped += 1
      return
    }
    let plan = SegmentationPlan(
      networkOffset: headers.networkOffset, transportOffset: headers.transportOffset,
      headerLength: headers.payloadOffset, segmentSize: size)
    let made = unsafe segmenter.segment(scratch.bytes, plan) { unsafe emit($0, pair: pair) }
    if made == 0 {
      complain("segments of \(size) bytes cannot be made")
      counters.sentDropped += 1
    }
    counters.segments += made
  }

  private func emit(_ frame: UnsafeRawBufferPointer, pair: Int) {
    counters.sentFrames += 1
    counters.sentBytes += frame.count
    if steering.activePairs > 1, !steering.usesTable {
      unsafe steering.learn(frame, ParsedHeaders(frame), pair: pair)
    }
    unsafe wire.transmit(frame, queue: pair, at: bus.now)
  }
}
