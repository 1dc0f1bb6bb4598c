// The legacy requests, NIOCGINFO and NIOCREGIF: `struct nmreq`, 60 bytes, translated to control requests and back.
//
//   nr_cmd       ioctl   becomes                      what the legacy structure gets back
//   0            REGIF   REGISTER                     offset, sizes, rings, region, extra buffers
//   0            GINFO   PORT_INFO_GET                sizes, rings, region
//   BDG_LIST     GINFO   VALE_LIST                    name, numbers in nr_arg1 and nr_arg2
//   BDG_ATTACH   REGIF   VALE_ATTACH                  as REGISTER
//   others       REGIF   VALE_…, PORT_HDR_…           see `take`
//
// Before there was a register mode, `nr_ringid` had bits for it; they count where `nr_flags` names no mode.

/// `nr_cmd`.
public enum LegacyCommand: UInt16, Sendable, CaseIterable {
  case plain = 0
  case attach = 1
  case detach = 2
  case registerOperations = 3
  case list = 4
  case headerSet = 5
  case newInterface = 6
  case deleteInterface = 7
  case passthroughCreate = 8
  case passthroughDelete = 9
  case pollingOn = 10
  case pollingOff = 11
  case headerGet = 12
  case poolsInfo = 13

  /// `NETMAP_BDG_HOST` in `nr_arg1`: the host rings are attached too.
  public static let host: UInt16 = 1
}

/// Bits of `nr_ringid`.
public enum LegacyRing {
  public static let hardware: UInt16 = 0x4000
  public static let software: UInt16 = 0x2000
  public static let noTransmitPoll: UInt16 = 0x1000
  public static let receivePoll: UInt16 = 0x8000
  public static let mask: UInt16 = 0x0fff
  /// `NR_REG_MASK`: where in `nr_flags` the mode is.
  public static let modeMask: UInt32 = 0xf
}

/// `struct nmreq`.
public struct LegacyRequest: Equatable, Sendable {
  /// `nr_name`, 16 bytes, the last one zero.
  public private(set) var nameBytes = [UInt8](repeating: 0, count: 16)
  public var version: UInt32 = 14
  public var offset: UInt32 = 0
  public var memorySize: UInt32 = 0
  public var transmitSlots: UInt32 = 0
  public var receiveSlots: UInt32 = 0
  public var transmitRings: UInt16 = 0
  public var receiveRings: UInt16 = 0
  public var ringID: UInt16 = 0
  public var command: UInt16 = 0
  public var arg1: UInt16 = 0
  /// The region, for most commands.
  public var arg2: UInt16 = 0
  /// Extra buffers.
  public var arg3: UInt32 = 0
  public var flags: UInt32 = 0
  public var spare: UInt32 = 0

  public init(name: String = "") { self.name = name }

  public var name: String {
    get { String(decoding: nameBytes.prefix { $0 != 0 }, as: UTF8.self) }
    set { nameBytes.put(newValue, at: 0, 16) }
  }

  /// EINVAL unless there are exactly 60 bytes. A name without an end is cut at 15 bytes, as netmap does.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count == NetmapLayout.legacySize else { throw wrongLength("A legacy request", bytes.count, NetmapLayout.legacySize) }
    nameBytes = bytes.part(0, 15) + [0]
    version = bytes.u32(16)
    offset = bytes.u32(20)
    memorySize = bytes.u32(24)
    transmitSlots = bytes.u32(28)
    receiveSlots = bytes.u32(32)
    transmitRings = bytes.u16(36)
    receiveRings = bytes.u16(38)
    ringID = bytes.u16(40)
    command = bytes.u16(42)
    arg1 = bytes.u16(44)
    arg2 = bytes.u16(46)
    arg3 = bytes.u32(48)
    flags = bytes.u32(52)
    spare = bytes.u32(56)
  }

  public func encoded() -> [UInt8] {
    var bytes = nameBytes + [UInt8](repeating: 0, count: NetmapLayout.legacySize - 16)
    bytes.put(version, at: 16)
    bytes.put(offset, at: 20)
    bytes.put(memorySize, at: 24)
    bytes.put(transmitSlots, at: 28)
    bytes.put(receiveSlots, at: 32)
    bytes.put(transmitRings, at: 36)
    bytes.put(receiveRings, at: 38)
    bytes.put(ringID, at: 40)
    bytes.put(command, at: 42)
    bytes.put(arg1, at: 44)
    bytes.put(arg2, at: 46)
    bytes.put(arg3, at: 48)
    bytes.put(flags, at: 52)
    bytes.put(spare, at: 56)
    return bytes
  }

  // MARK: To a control request

  /// What NIOCGINFO asks: a port, the memory alone (no name), or the ports of switches.
  /// - Throws: EINVAL for versions below 14.
  public func information() throws(NetmapError) -> FlatRequest {
    try checkVersion()
    if command == LegacyCommand.list.rawValue {
      return flat(.valeList, ValeList(bridgeIndex: arg1, portIndex: UInt32(arg2)))
    }
    var info = PortInfo()
    info.memorySize = UInt64(memorySize)
    info.transmitSlots = transmitSlots
    info.receiveSlots = receiveSlots
    info.transmitRings = transmitRings
    info.receiveRings = receiveRings
    info.memoryID = arg2
    return flat(.portInfo, info)
  }

  /// What NIOCREGIF asks.
  /// - Throws: EINVAL for versions below 14 and commands that are none, EOPNOTSUPP for those of virtual machines.
  public func registration() throws(NetmapError) -> FlatRequest {
    try checkVersion()
    switch LegacyCommand(rawValue: command) {
    case .plain:
      let (name, register) = try registerBody()
      return FlatRequest(.register, name: name, body: register)
    case .attach:
      var body = ValeAttach()
      let (name, register) = try registerBody()
      body.register = register
      body.register.setMode(arg1 & LegacyCommand.host != 0 ? .nicAndSoftware : .allNIC)
      body.register.ringID = register.ringID
      return FlatRequest(.valeAttach, name: name, body: body)
    case .detach: return flat(.valeDetach, ValeDetach())
    case .headerSet: return flat(.portHeaderSet, PortHeader(length: UInt32(arg1)))
    case .headerGet: return flat(.portHeaderGet, PortHeader(length: UInt32(arg1)))
    case .newInterface:
      var body = ValeNewInterface()
      body.transmitSlots = transmitSlots
      body.receiveSlots = receiveSlots
      body.transmitRings = transmitRings
      body.receiveRings = receiveRings
      body.memoryID = arg2
      return flat(.valeNewInterface, body)
    case .deleteInterface: return FlatRequest(.valeDeleteInterface, name: name)
    case .pollingOn, .pollingOff:
      let modes = [RegisterModeNumber.oneNIC: ValePolling.severalCPUs, RegisterModeNumber.allNIC: ValePolling.oneCPU]
      let body = ValePolling(
        mode: modes[flags & LegacyRing.modeMask] ?? 0, firstCPU: UInt32(ringID & LegacyRing.mask), cpus: UInt32(arg1))
      return flat(command == LegacyCommand.pollingOn.rawValue ? .valePollingEnable : .valePollingDisable, body)
    case .passthroughCreate, .passthroughDelete:
      throw NetmapError(.EOPNOTSUPP, "\(name): a virtual machine's rings are not offered; attach it to a VALE port.")
    case .registerOperations, .list, .poolsInfo, nil:
      throw NetmapError(.EINVAL, "\(name): NIOCREGIF has no command \(command).")
    }
  }

  private func checkVersion() throws(NetmapError) {
    guard version >= 14 else {
      throw NetmapError(.EINVAL, "Version \(version) of netmap's interface is too old; programs built with version 14 or later are served.")
    }
  }

  private func flat(_ type: NetmapRequestType, _ body: some NetmapBody) -> FlatRequest { FlatRequest(type, name: name, body: body) }

  /// The name too: an end of a pipe was a mode, and is a name.
  private func registerBody() throws(NetmapError) -> (name: String, RegisterRequest) {
    var register = RegisterRequest()
    var name = name
    register.offset = UInt64(offset)
    register.memorySize = UInt64(memorySize)
    register.transmitSlots = transmitSlots
    register.receiveSlots = receiveSlots
    register.transmitRings = transmitRings
    register.receiveRings = receiveRings
    register.memoryID = arg2
    register.ringID = ringID & LegacyRing.mask
    register.extraBuffers = arg3
    register.mode = flags & LegacyRing.modeMask
    if register.mode == 0 {
      register.mode =
        ringID & LegacyRing.software != 0
        ? RegisterModeNumber.software : ringID & LegacyRing.hardware != 0 ? RegisterModeNumber.oneNIC : RegisterModeNumber.allNIC
    }
    if register.mode == RegisterModeNumber.pipeMaster || register.mode == RegisterModeNumber.pipeSlave {
      name += "\(register.mode == RegisterModeNumber.pipeMaster ? "{" : "}")\(register.ringID)"
      register.setMode(.allNIC)
    }
    var bits = RegisterFlags(rawValue: UInt64(flags & ~LegacyRing.modeMask))
    if ringID & LegacyRing.noTransmitPoll != 0 { bits.insert(.noTransmitPoll) }
    if ringID & LegacyRing.receivePoll != 0 { bits.insert(.receivePoll) }
    register.flags = bits.rawValue
    return (name, register)
  }

  // MARK: From its answer

  /// Takes what the legacy structure has room for: sizes beyond 32 bits are cut. After errors nothing is taken.
  public mutating func take(_ answer: FlatRequest) throws(NetmapError) {
    switch answer.kind {
    case .register: take(try RegisterRequest(decoding: answer.body))
    case .valeAttach: take(try ValeAttach(decoding: answer.body).register)
    case .portInfo:
      let info = try PortInfo(decoding: answer.body)
      memorySize = UInt32(truncatingIfNeeded: info.memorySize)
      (transmitSlots, receiveSlots) = (info.transmitSlots, info.receiveSlots)
      (transmitRings, receiveRings) = (info.transmitRings, info.receiveRings)
      arg2 = info.memoryID
    case .valeList:
      let list = try ValeList(decoding: answer.body)
      name = answer.name
      arg1 = list.bridgeIndex
      arg2 = UInt16(truncatingIfNeeded: list.portIndex)
    case .portHeaderSet, .portHeaderGet: arg1 = UInt16(truncatingIfNeeded: try PortHeader(decoding: answer.body).length)
    case .valeNewInterface:
      let made = try ValeNewInterface(decoding: answer.body)
      (transmitSlots, receiveSlots) = (made.transmitSlots, made.receiveSlots)
      (transmitRings, receiveRings) = (made.transmitRings, made.receiveRings)
      arg2 = made.memoryID
    default: break
    }
  }

  private mutating func take(_ register: RegisterRequest) {
    offset = UInt32(truncatingIfNeeded: register.offset)
    memorySize = UInt32(truncatingIfNeeded: register.memorySize)
    (transmitSlots, receiveSlots) = (register.transmitSlots, register.receiveSlots)
    (transmitRings, receiveRings) = (register.transmitRings, register.receiveRings)
    arg2 = register.memoryID
    arg3 = register.extraBuffers
  }
}
