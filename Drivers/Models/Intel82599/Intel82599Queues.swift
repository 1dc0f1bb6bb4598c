// Which queues run, and what the model keeps of each (datasheet, 7.1.9, 7.2.1).

/// 128 queue numbers.
struct Intel82599QueueSet {
  var low: UInt64 = 0
  var high: UInt64 = 0

  @inline(__always) func contains(_ queue: Int) -> Bool {
    (queue < 64 ? low >> UInt64(queue) : high >> UInt64(queue - 64)) & 1 != 0
  }
  mutating func set(_ queue: Int, _ on: Bool) {
    let bit: UInt64 = 1 << UInt64(queue & 63)
    if queue < 64 { low = on ? low | bit : low & ~bit } else { high = on ? high | bit : high & ~bit }
  }
  /// The smallest number from `queue` on; 128 when there is none.
  @inline(__always) func next(_ queue: Int) -> Int {
    if queue < 64 {
      let rest = low >> UInt64(queue)
      if rest != 0 { return queue + rest.trailingZeroBitCount }
    }
    guard queue < 128 else { return 128 }
    let from = max(queue, 64) - 64
    let rest = high >> UInt64(from)
    return rest != 0 ? 64 + from + rest.trailingZeroBitCount : 128
  }
}

/// A ring as the card sees it: read from the registers at the start of each step.
struct Intel82599Ring {
  var base: UInt64 = 0
  /// Descriptors.
  var count = 0
  /// Next descriptor; also in the head register.
  var head = 0
  var tail = 0
  /// The value that the model last wrote into the head register: a driver that writes another one
  /// starts the ring anew.
  var shownHead: UInt32 = 0
  /// A DMA error stopped it.
  var isStopped = false
  /// Something of this use of the ring was complained about.
  var hasComplained = false

  @inline(__always) var waiting: Int { tail >= head ? tail - head : tail - head + count }
  @inline(__always) func address(_ index: Int) -> UInt64 { base &+ UInt64(index * 16) }
  @inline(__always) func after(_ index: Int, _ by: Int = 1) -> Int {
    let sum = index + by
    return sum >= count ? sum - count : sum
  }
}

/// A context descriptor's contents (7.2.3.2.3).
struct Intel82599Context {
  var lengths: UInt32 = 0
  var kind: UInt32 = 0
  var sizes: UInt32 = 0
  var networkLength: Int { Int(lengths & 0x1ff) }
  var macLength: Int { Int(lengths >> 9 & 0x7f) }
  var tag: UInt16 { UInt16(lengths >> 16) }
  var isIPv4: Bool { kind & 1 << 10 != 0 }
  /// 0 UDP, 1 TCP, 2 SCTP.
  var transport: Int { Int(kind >> 11 & 3) }
  var transportLength: Int { Int(sizes >> 8 & 0xff) }
  var segmentSize: Int { Int(sizes >> 16) }
}

struct Intel82599TransmitQueue {
  var ring = Intel82599Ring()
  var first = Intel82599Context()
  var second = Intel82599Context()
  var writeBack: UInt64 = 0
  var writesHead = false
}

struct Intel82599ReceiveQueue {
  var ring = Intel82599Ring()
  /// Bytes of a buffer.
  var bufferSize = 2048
  var isLegacy = false
  var stripsTags = false
  var dropsWhenFull = false
  /// Bytes of frame, check sequence included; 0: no limit of its own.
  var limit = 0
}

extension Intel82599Model {
  static func receiveBase(_ queue: Int) -> Int {
    queue < 64 ? At599.receiveQueue + queue * Ring599.stride : At599.receiveQueueHigh + (queue - 64) * Ring599.stride
  }
  static func transmitBase(_ queue: Int) -> Int { At599.transmitQueue + queue * Ring599.stride }

  // SAFETY of both: queue numbers are below 128.
  @inline(__always) func withSending<R>(_ queue: Int, _ body: (inout Intel82599TransmitQueue) -> R) -> R {
    body(&sending[queue & 127])
  }
  @inline(__always) func withReceiving<R>(_ queue: Int, _ body: (inout Intel82599ReceiveQueue) -> R) -> R {
    body(&receiving[queue & 127])
  }

  func forgetQueues() {
    for queue in 0..<Self.queueCount {
      withSending(queue) { $0 = Intel82599TransmitQueue() }
      withReceiving(queue) { $0 = Intel82599ReceiveQueue() }
    }
    sendingActive = Intel82599QueueSet()
    receivingActive = Intel82599QueueSet()
    queuesChanged = true
  }

  /// Looks at enables, and at the other registers of queues that run.
  /// - Parameter all: also at the enables of queues above 15 that do not run.
  func scanQueues(all: Bool) {
    let looks = queuesChanged || bus.sharesDoorbells
    queuesChanged = false
    if looks {
      for queue in 0..<(all ? Self.queueCount : 16) {
        let sends = get(Self.transmitBase(queue) + Ring599.control) & Bit599.queueEnable != 0
        if sends != sendingActive.contains(queue) { enableSending(queue, sends) }
        let receives = get(Self.receiveBase(queue) + Ring599.control) & Bit599.queueEnable != 0
        if receives != receivingActive.contains(queue) { enableReceiving(queue, receives) }
      }
    }
    var queue = sendingActive.next(0)
    while queue < 128 {
      refreshSending(queue)
      queue = sendingActive.next(queue + 1)
    }
    queue = receivingActive.next(0)
    while queue < 128 {
      refreshReceiving(queue)
      queue = receivingActive.next(queue + 1)
    }
  }

  private func enableSending(_ queue: Int, _ on: Bool) {
    sendingActive.set(queue, on)
    withSending(queue) { $0 = Intel82599TransmitQueue() }
  }
  private func enableReceiving(_ queue: Int, _ on: Bool) {
    receivingActive.set(queue, on)
    withReceiving(queue) { $0 = Intel82599ReceiveQueue() }
  }

  private func refreshSending(_ queue: Int) {
    let at = Self.transmitBase(queue)
    withSending(queue) { state in
      let isOn = get(At599.transmitDMA) & Bit599.transmitEnable != 0
      if refresh(&state.ring, at, isOn, "transmit queue \(queue)") {
        state.first = Intel82599Context()
        state.second = Intel82599Context()
      }
      let low = get(at + Ring599.headWriteBackLow)
      state.writesHead = low & 1 != 0
      state.writeBack = UInt64(low & ~3) | UInt64(get(at + Ring599.headWriteBackHigh)) << 32
      // A disabled queue forgets; in shared mode nobody saw the write.
      if get(at + Ring599.control) & Bit599.queueEnable == 0 { sendingActive.set(queue, false) }
    }
  }

  private func refreshReceiving(_ queue: Int) {
    let at = Self.receiveBase(queue)
    withReceiving(queue) { state in
      let isOn = get(At599.receiveControl) & Bit599.receiveEnable != 0
      _ = refresh(&state.ring, at, isOn, "receive queue \(queue)")
      let split = get(at + Ring599.split), control = get(at + Ring599.control)
      // SRRCTL (8.2.3.8.7): kibibytes; 0 is not allowed and is taken for the smallest.
      state.bufferSize = max(1, min(16, Int(split & 0x1f))) * 1024
      state.isLegacy = split >> 25 & 7 == 0
      state.dropsWhenFull = split & Bit599.dropWhenFull != 0
      state.stripsTags = control & Bit599.stripTags != 0
      state.limit = control & Bit599.limitLength != 0 ? Int(control & 0x3fff) : 0
      if control & Bit599.queueEnable == 0 { receivingActive.set(queue, false) }
    }
  }

  /// Reads base, length, head and tail. True when the ring is another one than before.
  /// - Parameter isOn: its half of the card runs; before that anything may stand in the registers.
  private func refresh(
    _ ring: inout Intel82599Ring, _ at: Int, _ isOn: Bool, _ name: @autoclosure () -> String
  ) -> Bool {
    let base = UInt64(get(at + Ring599.baseLow) & ~0x7f) | UInt64(get(at + Ring599.baseHigh)) << 32
    let count = Int(get(at + Ring599.length) & 0xf_ff80) / 16
    let head = get(at + Ring599.head)
    var isNew = false
    if base != ring.base || count != ring.count || head != ring.shownHead {
      isNew = true
      ring = Intel82599Ring()
      ring.base = base
      ring.count = count
      ring.shownHead = head
      ring.head = Int(head) < count ? Int(head) : 0
    }
    if count == 0, isOn, !ring.hasComplained {
      ring.hasComplained = true
      bus.complain("82599: \(name()) is enabled without a ring (length 0)")
    }
    let tail = Int(get(at + Ring599.tail) & 0xffff)
    if tail < ring.count || tail == 0 {
      ring.tail = ring.count == 0 ? ring.head : tail
    } else if isOn, !ring.hasComplained {
      ring.hasComplained = true
      bus.complain("82599: \(name()): tail \(tail) lies beyond the ring of \(ring.count) descriptors")
    }
    return isNew
  }

  /// Shows the head in its register.
  @inline(__always) func showHead(_ ring: inout Intel82599Ring, _ at: Int) {
    ring.shownHead = UInt32(truncatingIfNeeded: ring.head)
    put(at + Ring599.head, ring.shownHead)
  }

  /// A DMA error: the queue stands still from here on.
  func stop(_ ring: inout Intel82599Ring, _ text: @autoclosure () -> String) {
    ring.isStopped = true
    dmaErrors += 1
    bus.complain("82599: \(text()) at bus address \(hex(bus.memory.lastFault)), which is not mapped; the queue stops")
  }
}
