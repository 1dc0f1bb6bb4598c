// One client's connection without its socket: messages in, answers out.

internal import CRingway
internal import ModelKit
internal import SystemPackage

/// How a driver's accesses reach a model.
public enum AccessMode: Sendable {
  /// Every access is a message, and virtual time goes on with each: repeatable.
  case trapped
  /// Pages of doorbells are memory of both sides; time is real.
  case shared
}

/// What came over one connection.
public struct SessionCounts: Equatable, Sendable {
  public var messages: UInt64 = 0
  /// Answers that refuse something.
  public var refusals: UInt64 = 0
  public var reads: UInt64 = 0
  public var writes: UInt64 = 0
  public var maps: UInt64 = 0
  public var unmaps: UInt64 = 0
  /// Of the device, by command or by configuration space.
  public var resets: UInt64 = 0
  /// Eventfds signalled.
  public var interrupts: UInt64 = 0
}

/// What a message is answered with.
struct SessionReply {
  var bytes: [UInt8] = []
  /// Goes with the answer; stays its owner's.
  var descriptor: Int32 = -1
  /// The connection cannot go on.
  var ends = false
}

/// A client's view of a model, from its first message to its last.
///
/// Ends with `end` or with its last reference: everything that the client mapped is unmapped, its
/// interrupts are disconnected, and the device is reset.
final class ModelSession {
  let model: any DeviceModel
  let mode: AccessMode
  /// Nanoseconds of virtual time for each access, in trapped mode.
  let nanosecondsAnAccess: UInt64
  let memory: ClientMemory
  let interrupts: InterruptLines
  private(set) var counts = SessionCounts()
  private var isGreeted = false
  private var hasEnded = false
  /// Device regions 0 to 8: six BARs, ROM, configuration space, VGA.
  static let regionCount = 9

  init(_ model: any DeviceModel, mode: AccessMode, nanosecondsAnAccess: UInt64 = 1000) {
    self.model = model
    self.mode = mode
    self.nanosecondsAnAccess = nanosecondsAnAccess
    memory = ClientMemory(model.bus.memory)
    let space = model.configuration
    interrupts = InterruptLines(
      model.bus,
      counts: [space.read(0x3d, 1) != 0 ? 1 : 0, space.hasCapability(0x05) ? 1 : 0, model.vectors, 1, 1])
    model.bus.sharesDoorbells = mode == .shared
    model.bus.deliver = { [unowned self] kind, vector in interrupts.deliver(kind.rawValue, vector) }
    model.configuration.onFunctionReset = { [unowned self] in resetDevice() }
  }

  deinit { end() }

  /// Leaves the model as a card without a driver.
  func end() {
    guard !hasEnded else { return }
    hasEnded = true
    model.bus.deliver = { _, _ in }
    model.configuration.onFunctionReset = {}
    interrupts.switchAllOff()
    // Before the memory goes: nothing may move once it is gone.
    resetDevice()
    memory.unmapAll()
  }

  var currentCounts: SessionCounts {
    var now = counts
    now.interrupts = interrupts.delivered
    return now
  }

  private func resetDevice() {
    counts.resets &+= 1
    model.configuration.reset()
    model.bus.memory.isBusMaster = false
    model.reset()
    interrupts.forgetPending()
  }

  /// Does what one message asks for. `message` is as long as its header says.
  func handle(_ message: ArraySlice<UInt8>, _ passed: PassedDescriptors) -> SessionReply {
    guard let header = MessageHeader(message) else { return SessionReply(ends: true) }
    // An answer to nothing: this server asks nothing.
    guard header.isCommand else { return SessionReply(ends: !header.isReply) }
    counts.messages &+= 1
    var reply = SessionReply()
    do throws(Errno) {
      guard passed.count <= MessageHeader.mostDescriptors else { throw .invalidArgument }
      guard let command = Command(rawValue: header.command) else { throw .noFunction }
      guard isGreeted != (command == .version) else { throw .invalidArgument }
      let payload = try answer(command, Fields(message.dropFirst(MessageHeader.size)), passed, &reply)
      if header.wantsReply { reply.bytes = header.reply(payload: payload.count).bytes + payload }
    } catch {
      counts.refusals &+= 1
      if header.wantsReply { reply.bytes = header.refusal(error) }
      reply.descriptor = -1
      if !isGreeted { reply.ends = true }
    }
    return reply
  }

  private func answer(
    _ command: Command, _ fields: Fields, _ passed: PassedDescriptors, _ reply: inout SessionReply
  ) throws(Errno) -> [UInt8] {
    switch command {
    case .version:
      let negotiated = try Negotiation(fields)
      isGreeted = true
      return negotiated.reply
    case .dmaMap: return try dmaMap(fields, passed)
    case .dmaUnmap: return try dmaUnmap(fields)
    case .deviceInfo: return try deviceInfo(fields)
    case .regionInfo: return try regionInfo(fields, &reply)
    case .regionDescriptors: throw .notSupported
    case .interruptInfo: return try interruptInfo(fields)
    case .setInterrupts:
      try interrupts.set(fields, passed)
      return []
    case .regionRead:
      counts.reads &+= 1
      return try regionRead(fields)
    case .regionWrite:
      counts.writes &+= 1
      return try regionWrite(fields)
    case .regionWriteMultiple: return try regionWriteMultiple(fields)
    case .reset:
      resetDevice()
      return []
    }
  }

  func countWrite() { counts.writes &+= 1 }

  // MARK: Memory

  private func dmaMap(_ fields: Fields, _ passed: PassedDescriptors) throws(Errno) -> [UInt8] {
    try fields.require(32)
    guard fields.le32(0) >= 32, passed.count <= 1 else { throw .invalidArgument }
    try memory.map(
      fields.le64(16), size: fields.le64(24), offset: fields.le64(8), flags: fields.le32(4),
      file: passed.count == 1 ? passed[0] : nil)
    counts.maps &+= 1
    return []
  }

  /// The answer repeats the question, as the specification wants it.
  private func dmaUnmap(_ fields: Fields) throws(Errno) -> [UInt8] {
    try fields.require(24)
    let flags = fields.le32(4), address = fields.le64(8), size = fields.le64(16)
    guard fields.le32(0) >= 24, flags & ~2 == 0 else { throw .invalidArgument }
    if flags & 2 != 0 {
      guard address == 0, size == 0 else { throw .invalidArgument }
      memory.unmapAll()
    } else {
      memory.unmap(address, size: size)
    }
    counts.unmaps &+= 1
    return Array(fields.bytes.prefix(24))
  }

  // MARK: Descriptions

  private func deviceInfo(_ fields: Fields) throws(Errno) -> [UInt8] {
    try fields.require(4)
    guard fields.le32(0) >= 16 else { throw .invalidArgument }
    var out: [UInt8] = []
    out.append32(16)
    out.append32(3)
    out.append32(UInt32(ModelSession.regionCount))
    out.append32(UInt32(InterruptIndex.count))
    return out
  }

  private func interruptInfo(_ fields: Fields) throws(Errno) -> [UInt8] {
    try fields.require(12)
    let index = Int(fields.le32(8))
    guard fields.le32(0) >= 16, index < InterruptIndex.count else { throw .invalidArgument }
    let info = interrupts.info(index)
    var out: [UInt8] = []
    out.append32(16)
    out.append32(info.flags)
    out.append32(UInt32(index))
    out.append32(UInt32(info.count))
    return out
  }
}

extension ModelConfiguration {
  /// Whether the list of capabilities has one with this identifier.
  func hasCapability(_ id: UInt8) -> Bool {
    var at = Int(read(0x34, 1)) & ~3
    var steps = 0
    while at >= 0x40, steps < 48 {
      if read(at, 1) == UInt32(id) { return true }
      at = Int(read(at + 1, 1)) & ~3
      steps += 1
    }
    return false
  }
}
