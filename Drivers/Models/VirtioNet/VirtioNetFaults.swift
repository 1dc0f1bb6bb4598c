// What the device does wrong on purpose, for tests of drivers.

public import ModelKit

/// What a device does wrong, once, at the next opportunity on a queue. Finer than `ModelFault`.
public enum VirtioModelFault: Hashable, Sendable {
  /// Uses a buffer under this id.
  case id(UInt32)
  /// Uses the same buffer twice.
  case duplicate
  /// Reports this length instead of the right one.
  case length(UInt32)
  /// Moves the used index this much too far.
  case indexJump(UInt16)
  /// Writes this number of buffers into a received frame's header.
  case bufferCount(UInt16)
}

/// What the device keeps doing, and what it will do so many times.
struct VirtioModelHabits {
  var isGone = false
  var ignoresCommands = false
  var refusesCommands = false
  var ignoresReset = false
  var refusesFeatures = false
  var stopsTransmitting = false
  /// Until a reset.
  var hangs = false
  var neverReports = false
  var neverDelivers = false
  var storms = false
  var noInterrupts = false
  /// State of the generator behind random registers; nil: they are right.
  var random: UInt64?
  var damagedFrames = 0
  var wrongAddresses = 0
  /// On whatever queue comes first: receive queues, or both directions.
  var onReceive: [(fault: VirtioModelFault, left: Int)] = []
  var onAny: [(fault: VirtioModelFault, left: Int)] = []

  mutating func endAtReset() {
    hangs = false
    neverReports = false
    neverDelivers = false
  }

  /// SplitMix64.
  mutating func nextRandom() -> UInt32 {
    let state = (random ?? 0) &+ 0x9e37_79b9_7f4a_7c15
    random = state
    var z = (state ^ state >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return UInt32(truncatingIfNeeded: z ^ z >> 31)
  }
}

extension VirtioNetModel {
  public func misbehave(_ fault: VirtioModelFault, queue: Int) {
    if misdeeds.indices.contains(queue) { misdeeds[queue].append(fault) }
  }

  /// The control queue does not answer.
  public var ignoresCommands: Bool {
    get { habits.ignoresCommands }
    set { habits.ignoresCommands = newValue }
  }
  /// The control queue refuses every command.
  public var refusesCommands: Bool {
    get { habits.refusesCommands }
    set { habits.refusesCommands = newValue }
  }
  /// The device status never reads 0 after a reset.
  public var ignoresReset: Bool {
    get { habits.ignoresReset }
    set { habits.ignoresReset = newValue }
  }
  /// FEATURES_OK is never accepted.
  public var refusesFeatures: Bool {
    get { habits.refusesFeatures }
    set { habits.refusesFeatures = newValue }
  }
  /// Sent frames stay on the ring, resets or not.
  public var stopsTransmitting: Bool {
    get { habits.stopsTransmitting }
    set { habits.stopsTransmitting = newValue }
  }

  /// `receiveError`: virtio has no mark for damage; the device uses a buffer with a header and no frame.
  /// `missingEnd`: a frame that claims more buffers than any ring has.
  public func inject(_ fault: ModelFault) {
    switch fault {
    case .none:
      habits = VirtioModelHabits()
      misdeeds = Array(repeating: [], count: queues.count)
    case .gone: habits.isGone = true
    case .transmitHang: habits.hangs = true
    case .neverReports: habits.neverReports = true
    case .neverDelivers: habits.neverDelivers = true
    case .receiveLength(let length, let count): habits.onReceive.append((.length(length), count))
    case .missingEnd(let count): habits.onReceive.append((.bufferCount(.max), count))
    case .receiveError(let count): habits.damagedFrames += max(0, count)
    case .wrongCompletion(let id, let count): habits.onAny.append((.id(id), count))
    case .duplicateCompletion(let count): habits.onAny.append((.duplicate, count))
    case .indexJump(let by, let count): habits.onAny.append((.indexJump(by), count))
    case .interruptStorm: habits.storms = true
    case .noInterrupts: habits.noInterrupts = true
    case .stuckReset: habits.ignoresReset = true
    case .wrongAddress(let count): habits.wrongAddresses += max(0, count)
    case .randomRegisters(let seed): habits.random = seed
    }
  }

  /// What to do wrong with the next used buffer of a queue.
  func takeMisdeed(_ index: Int) -> VirtioModelFault? {
    if let first = misdeeds[index].first {
      if case .bufferCount = first { return nil }
      return misdeeds[index].removeFirst()
    }
    if isControl(queues[index]) { return nil }
    if index & 1 == 0, !habits.onReceive.isEmpty, let found = Self.next(&habits.onReceive, ofHeader: false) { return found }
    return habits.onAny.isEmpty ? nil : Self.next(&habits.onAny, ofHeader: false)
  }

  /// A wrong number of buffers for the next received frame's header.
  func takeWrongCount(_ index: Int) -> UInt16? {
    if case .bufferCount(let value)? = misdeeds[index].first {
      misdeeds[index].removeFirst()
      return value
    }
    if !habits.onReceive.isEmpty, case .bufferCount(let value)? = Self.next(&habits.onReceive, ofHeader: true) {
      return value
    }
    return nil
  }

  private static func next(_ list: inout [(fault: VirtioModelFault, left: Int)], ofHeader: Bool) -> VirtioModelFault? {
    list.removeAll { $0.left <= 0 }
    for i in list.indices {
      var isHeader = false
      if case .bufferCount = list[i].fault { isHeader = true }
      guard isHeader == ofHeader else { continue }
      list[i].left -= 1
      return list[i].fault
    }
    return nil
  }

  func takeWrongAddress() -> Bool {
    guard habits.wrongAddresses > 0 else { return false }
    habits.wrongAddresses -= 1
    // Nothing is mapped so high; the IOMMU counts it.
    _ = bus.memory.read32(0xffff_dead_beef_0000)
    counters.memoryErrors += 1
    return true
  }

  /// Every vector, for nothing.
  func storm() {
    for vector in 0..<max(1, vectors) { raise(vector: UInt16(vector), cause: 1) }
  }
}
