// A card that breaks its word.

public import ModelKit

/// Which faults are on.
struct Intel82599Faults {
  var isGone = false
  var transmitHangs = false
  var neverReports = false
  var neverDelivers = false
  var isSilent = false
  var storms = false
  var resetNeverEnds = false
  private var length: (value: UInt32, left: Int) = (0, 0)
  private var missingEnds = 0
  private var receiveErrors = 0
  private var wrong: (value: UInt32, left: Int) = (0, 0)
  private var wrongAddresses = 0
  private var random: UInt64?

  mutating func add(_ fault: ModelFault) {
    switch fault {
    case .none: self = Intel82599Faults()
    case .gone: isGone = true
    case .transmitHang: transmitHangs = true
    case .neverReports: neverReports = true
    case .neverDelivers: neverDelivers = true
    case .receiveLength(let value, let count): length = (value, count)
    case .missingEnd(let count): missingEnds = count
    case .receiveError(let count): receiveErrors = count
    case .wrongCompletion(let value, let count): wrong = (value, count)
    // A completion reported again is the bit that is already set; an index that runs ahead is a head.
    case .duplicateCompletion: break
    case .indexJump(let by, let count): wrong = (UInt32(by), count)
    case .interruptStorm: storms = true
    case .noInterrupts: isSilent = true
    case .stuckReset: resetNeverEnds = true
    case .wrongAddress(let count): wrongAddresses = count
    case .randomRegisters(let seed): random = seed
    }
  }

  mutating func deviceWasReset() {
    transmitHangs = false
    neverReports = false
    neverDelivers = false
  }

  private static func take(_ left: inout Int) -> Bool {
    guard left > 0 else { return false }
    left -= 1
    return true
  }

  mutating func takesLength() -> UInt32? { Self.take(&length.left) ? length.value : nil }
  mutating func takesMissingEnd() -> Bool { Self.take(&missingEnds) }
  mutating func takesReceiveError() -> Bool { Self.take(&receiveErrors) }
  mutating func completion(_ right: UInt32) -> UInt32 { Self.take(&wrong.left) ? wrong.value : right }

  /// Whether this frame's data goes to, or comes from, the wrong place: nothing is mapped there.
  mutating func takesWrongAddress(_ memory: ModelMemory) -> Bool {
    guard Self.take(&wrongAddresses) else { return false }
    _ = memory.read64(0xffff_ffff_ffff_f000)
    return true
  }

  /// What a status or statistics register reads.
  mutating func scramble(_ value: UInt32) -> UInt32 {
    guard let state = random else { return value }
    // SplitMix64.
    let next = state &+ 0x9e37_79b9_7f4a_7c15
    random = next
    var mixed = (next ^ next >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return UInt32(truncatingIfNeeded: mixed >> 32)
  }
}

extension Intel82599Model {
  public func inject(_ fault: ModelFault) { faults.add(fault) }
}
