// What a broken card does, for tests of drivers.

public import ModelKit

extension E1000eModel {
  /// Everything is off at first. `inject` sets these; tests may set them one by one.
  public struct Faults: Sendable {
    /// Every register reads all ones, writes go nowhere, nothing moves.
    public var gone = false
    /// The transmitter fetches nothing more.
    public var transmitHang = false
    /// Frames go out, but are never reported.
    public var neverReports = false
    /// Frames come in, but are never reported.
    public var neverDelivers = false
    /// The length written into receive descriptors.
    public var receiveLength: UInt16?
    /// For how many frames; the others get the right one.
    public var receiveLengths = Int.max
    /// So many frames get no end-of-packet bit.
    public var missingEnds = 0
    /// Error bits (31 to 24 of the extended status word).
    public var receiveErrors: UInt32 = 0
    /// For how many frames.
    public var receiveErrorCount = Int.max
    /// CTRL.RST stays set.
    public var stuckReset = false
    /// What the head registers read.
    public var transmitHead: UInt32?
    public var receiveHead: UInt32?
    /// For how many reads of a head.
    public var wrongHeads = Int.max
    /// So many frames are reported in two descriptors each.
    public var duplicates = 0
    /// Descriptors that the receive head skips, and how often.
    public var jump = 0
    public var jumps = 0
    /// So many frames are written where nothing is mapped.
    public var wrongAddresses = 0
    /// An interrupt of every vector in each step.
    public var storm = false
    public var noInterrupts = false
    /// Status and statistics read what this generator says; nil when they are right.
    public var random: UInt64?
    public init() {}
  }

  public func inject(_ fault: ModelFault) {
    switch fault {
    case .none:
      if faults.gone { configuration.reset() }
      faults = Faults()
    case .gone:
      faults.gone = true
      configuration.set([UInt8](repeating: 0xff, count: 256), at: 0)
    case .transmitHang: faults.transmitHang = true
    case .neverReports: faults.neverReports = true
    case .neverDelivers: faults.neverDelivers = true
    case .receiveLength(let length, let count):
      faults.receiveLength = UInt16(truncatingIfNeeded: length)
      faults.receiveLengths = count
    case .missingEnd(let count): faults.missingEnds = count
    case .receiveError(let count):
      faults.receiveErrors = 1 << 31
      faults.receiveErrorCount = count
    case .wrongCompletion(let head, let count):
      faults.wrongHeads = count
      faults.transmitHead = head
      faults.receiveHead = head
    case .duplicateCompletion(let count): faults.duplicates = count
    case .indexJump(let distance, let count):
      faults.jump = Int(distance)
      faults.jumps = count
    case .interruptStorm: faults.storm = true
    case .noInterrupts: faults.noInterrupts = true
    case .stuckReset: faults.stuckReset = true
    case .wrongAddress(let count): faults.wrongAddresses = count
    case .randomRegisters(let seed): faults.random = seed | 1
    }
  }

  /// Ends what lasts until a reset.
  func forgetFaultsOfOneRun() {
    faults.transmitHang = false
    faults.neverReports = false
    faults.neverDelivers = false
  }

  /// A register's value, unless it is to be nonsense (xorshift).
  func garbled(_ value: UInt32) -> UInt32 {
    guard var state = faults.random else { return value }
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    faults.random = state
    return UInt32(truncatingIfNeeded: state >> 16)
  }

  /// A head register, as the driver reads it.
  func reportedHead(_ offset: Int, _ wrong: UInt32?) -> UInt32 {
    guard let wrong, faults.wrongHeads > 0 else { return registers[offset] }
    if faults.wrongHeads != .max { faults.wrongHeads -= 1 }
    return wrong
  }

  /// Every vector, without cause.
  func storm() -> Int {
    guard let kind = bus.interruptKind else { return 0 }
    let count = kind == .msix ? vectors : 1
    for vector in 0..<count { bus.interrupt(vector) }
    return count
  }
}
