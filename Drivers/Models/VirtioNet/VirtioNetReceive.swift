// Frames in: from the wire to a queue, and into its buffers (clause 5.1.6.4).

import ModelKit

/// Frames that were taken from the wire and wait for buffers of one queue. Their memory is used again.
final class VirtioModelBacklog {
  static let limit = 64
  private var frames: [[UInt8]] = []
  private var first = 0
  private(set) var count = 0

  func append(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard count < Self.limit else { return false }
    if frames.isEmpty { frames = Array(repeating: [], count: Self.limit) }
    let at = (first + count) % Self.limit
    frames[at].removeAll(keepingCapacity: true)
    unsafe frames[at].append(contentsOf: frame)
    count += 1
    return true
  }

  /// Lends the oldest frame; `body` says whether it is done with.
  func takeFirst(_ body: (UnsafeRawBufferPointer) -> Bool) -> Bool {
    guard count > 0, unsafe frames[first].withUnsafeBytes({ unsafe body($0) }) else { return false }
    first = (first + 1) % Self.limit
    count -= 1
    return true
  }

  func removeAll() {
    first = 0
    count = 0
  }
}

extension VirtioNetModel {
  func receive(limit: Int) -> Int {
    var moved = 0
    for pair in 0..<options.pairs where backlogs[pair].count > 0 {
      while moved < limit, isRunning, unsafe backlogs[pair].takeFirst({ unsafe deliver($0, queues[2 * pair]) }) { moved += 1 }
    }
    while moved < limit, isRunning, mayTake() {
      guard unsafe wire.receive(at: bus.now, { frame, marks in unsafe arrive(frame, marks) }) else { break }
      moved += 1
    }
    guard isRunning else { return moved }
    for pair in 0..<options.pairs where queues[2 * pair].isEnabled {
      let queue = queues[2 * pair]
      publish(queue)
      let isShort = backlogs[pair].count > 0 || !hasBuffers(queue)
      guard queue.isNotified || queue.wantsNotification != isShort || isShort else { continue }
      queue.isNotified = false
      let known = available(queue)
      // More than a moment ago: the next step has something to do.
      if offerNotification(queue, isShort), available(queue) != known { moved += 1 }
    }
    return moved
  }

  private func hasBuffers(_ queue: VirtioModelQueue) -> Bool {
    queue.isEnabled && (!queue.held.isEmpty || available(queue) > 0)
  }

  /// One queue: frames wait on the wire until it has buffers. Several: one without buffers does not
  /// hold the others up.
  private func mayTake() -> Bool {
    if steering.activePairs == 1, !steering.usesTable { return backlogs[0].count == 0 && hasBuffers(queues[0]) }
    for pair in 0..<steering.activePairs where hasBuffers(queues[2 * pair]) { return true }
    return false
  }

  /// A frame from the wire: filtered, steered, and delivered or kept.
  private func arrive(_ frame: UnsafeRawBufferPointer, _ marks: WireMarks) {
    if marks.contains(.badCheckSequence) {
      counters.damaged += 1
      return
    }
    guard registers.linkUp, unsafe accepts(frame) else {
      counters.filtered += 1
      return
    }
    var pair = 0
    if steering.activePairs > 1 || steering.usesTable {
      let headers = unsafe ParsedHeaders(frame)
      let (value, report) = unsafe steering.usesTable ? steering.hash(frame, headers) : (0, 0)
      pair = unsafe steering.pair(frame, headers, hash: value, report: report)
    }
    if backlogs[pair].count == 0, unsafe deliver(frame, queues[2 * pair]) { return }
    if unsafe !backlogs[pair].append(frame) { counters.noBuffer += 1 }
  }

  /// Puts a frame into buffers. False when there are too few for it now; true also when it is lost.
  private func deliver(_ frame: UnsafeRawBufferPointer, _ queue: VirtioModelQueue) -> Bool {
    switch collect(queue, frame.count + headerSize) {
    case .wait: return false
    case .never:
      counters.tooLong += 1
      return true
    case .broken: return true
    case .ready: break
    }
    let used = gather.chains.count
    if options.reversesCompletions {
      queue.held.removeLast(used)
    } else {
      queue.taken &+= UInt16(truncatingIfNeeded: used)
    }
    unsafe writeHeader(frame, queue, buffers: used)
    let isLost = takeWrongAddress()
    let isDamaged = habits.damagedFrames > 0
    if isDamaged { habits.damagedFrames -= 1 }
    var done = 0
    for chain in gather.chains {
      let before = done
      for part in gather.parts[chain.parts] where part.isWritable {
        let size = min(part.count, headerSize + frame.count - done)
        guard size > 0 else { break }
        if !isLost, !(unsafe write(frame, from: done, count: size, to: part.address)) {
          memoryError("a receive buffer of queue \(queue.index)")
          return true
        }
        done += size
      }
      if habits.neverDelivers { continue }
      use(queue, chain.id, count: isDamaged ? min(headerSize, done - before) : done - before)
    }
    counters.receivedFrames += 1
    counters.receivedBytes += frame.count
    return true
  }

  private enum Room { case ready, wait, never, broken }

  /// Gathers buffers for `count` bytes: one, or with mergeable buffers as many as it takes.
  private func collect(_ queue: VirtioModelQueue, _ count: Int) -> Room {
    gather.removeAll()
    guard queue.isEnabled else { return .wait }
    let waiting = available(queue)
    var room = 0
    var n = 0
    while room < count {
      guard let id = options.reversesCompletions ? newest(queue, n) : n < waiting ? head(queue, ahead: n) : nil else {
        if !isRunning { return .broken }
        // A ring that is full of buffers will not get more.
        return !options.reversesCompletions && n == queue.size ? .never : .wait
      }
      guard readChain(queue, head: id), let chain = gather.chains.last else { return .broken }
      if chain.readable > 0 { complain("a receive buffer has readable descriptors") }
      room += chain.room
      n += 1
      guard has(VirtioModelFeature.mergeableBuffers) else {
        if chain.room < 1526 { complain("a receive buffer of \(chain.room) bytes") }
        // A frame that fits no buffer of this kind is lost; the buffer stays.
        return room < count ? .never : .ready
      }
    }
    return .ready
  }

  /// The newest of up to eight buffers, then older ones.
  private func newest(_ queue: VirtioModelQueue, _ n: Int) -> UInt16? {
    while queue.held.count < max(8, n + 1), available(queue) > 0, let id = head(queue, ahead: 0) {
      queue.taken &+= 1
      if n < queue.held.count || n == 0 { queue.held.append(id) } else { queue.held.insert(id, at: 0) }
    }
    return n < queue.held.count ? queue.held[queue.held.count - 1 - n] : nil
  }

  /// The header before a received frame: checked checksums, the hash, the number of buffers.
  private func writeHeader(_ frame: UnsafeRawBufferPointer, _ queue: VirtioModelQueue, buffers: Int) {
    header.removeAll()
    header.pad(to: headerSize)
    let bytes = unsafe header.mutableBytes
    let count = takeWrongCount(queue.index) ?? UInt16(truncatingIfNeeded: buffers)
    unsafe bytes.setBig16(count.byteSwapped, 10)
    let checks = has(VirtioModelFeature.guestChecksum) && registers.checksCome
    guard checks || has(VirtioModelFeature.hashReport) else { return }
    let headers = unsafe ParsedHeaders(frame)
    // VIRTIO_NET_HDR_F_DATA_VALID.
    if checks, unsafe FrameChecksum.transportIsRight(frame, headers) == true { unsafe bytes.setByte(2, 0) }
    guard has(VirtioModelFeature.hashReport) else { return }
    let (value, report) = unsafe steering.hash(frame, headers)
    unsafe bytes.setBig32(value.byteSwapped, 12)
    unsafe bytes.setBig16(report.byteSwapped, 16)
  }

  /// Writes `count` bytes of header and frame, from byte `start` of the two, to a bus address.
  private func write(_ frame: UnsafeRawBufferPointer, from start: Int, count: Int, to address: UInt64) -> Bool {
    let first = max(0, min(headerSize - start, count))
    if first > 0, !(unsafe bus.memory.write(header.bytes.piece(start, first), at: address)) { return false }
    guard count > first else { return true }
    return unsafe bus.memory.write(frame.piece(start + first - headerSize, count - first), at: address &+ UInt64(first))
  }
}
