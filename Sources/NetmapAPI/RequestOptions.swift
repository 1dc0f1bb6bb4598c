// Options of the control requests (net/netmap.h). An option is a header of 24 bytes (next@0, type u32@8, status u32@12,
// size u64@16) and a payload; the offsets in the code count from the payload's start, 24 less than in the header file.

/// `nro_reqtype`.
public enum NetmapOptionType: UInt32, Sendable, CaseIterable {
  case externalMemory = 1
  case loopEvents = 2
  case controlBlocks = 3
  case loopMode = 4
  case offsets = 5

  /// Bytes of the payload; nil: as many as the option's header says (`nro_size`).
  public var payloadSize: Int? {
    switch self {
    case .externalMemory: 72
    case .loopEvents: nil
    case .controlBlocks: 16
    case .loopMode: 8
    case .offsets: 32
    }
  }

  /// Which requests look at the option. Others leave its status at EOPNOTSUPP; REGISTER then fails.
  public func isFor(_ request: NetmapRequestType) -> Bool {
    switch self {
    case .externalMemory, .offsets: request == .register
    case .controlBlocks: request == .register || request == .csbEnable
    case .loopEvents, .loopMode: request == .syncLoopStart
    }
  }
}

/// The payload of an option.
public protocol NetmapOption: Equatable, Sendable {
  static var type: NetmapOptionType { get }
  /// EINVAL for a payload of another length.
  init(decoding payload: [UInt8]) throws(NetmapError)
  func encoded() -> [UInt8]
}

/// EXTMEM (`struct nmreq_opt_extmem`): the region is to lie in memory of the program's own.
public struct ExternalMemoryOption: NetmapOption {
  public static let type = NetmapOptionType.externalMemory
  /// Where the memory starts: in the program, an address; on the way to the daemon, an offset in the memory file.
  public var start: UInt64
  /// How large it is, and how it is to be cut; 0 leaves a number to the daemon. The answer says how it was cut.
  public var pools: PoolsInfo

  public init(start: UInt64, pools: PoolsInfo) {
    self.start = start
    self.pools = pools
  }
  public init(decoding payload: [UInt8]) throws(NetmapError) {
    guard payload.count == 72 else { throw wrongLength("The option EXTMEM", payload.count, 72) }
    start = payload.u64(0)
    pools = PoolsInfo(bytes: payload, at: 8)
  }
  public func encoded() -> [UInt8] {
    var payload = [UInt8](repeating: 0, count: 72)
    payload.put(start, at: 0)
    pools.encode(into: &payload, at: 8)
    return payload
  }
}

/// SYNC_KLOOP_EVENTFDS (`struct nmreq_opt_sync_kloop_eventfds`): a pair of eventfds a ring, transmit before receive.
public struct LoopEventsOption: NetmapOption {
  public static let type = NetmapOptionType.loopEvents
  public struct Ring: Equatable, Sendable {
    /// Written by the program when the ring has something to do; negative: none.
    public var toLoop: Int32
    /// Written by the loop when it has done something; negative: none.
    public var toProgram: Int32
    public init(toLoop: Int32, toProgram: Int32) {
      self.toLoop = toLoop
      self.toProgram = toProgram
    }
  }
  public var rings: [Ring]

  public init(rings: [Ring]) { self.rings = rings }
  public init(decoding payload: [UInt8]) throws(NetmapError) {
    guard payload.count % 8 == 0 else { throw wrongLength("The option EVENTFDS", payload.count, (payload.count + 7) & ~7) }
    rings = stride(from: 0, to: payload.count, by: 8).map {
      Ring(toLoop: Int32(bitPattern: payload.u32($0)), toProgram: Int32(bitPattern: payload.u32($0 + 4)))
    }
  }
  public func encoded() -> [UInt8] {
    var payload = [UInt8](repeating: 0, count: 8 * rings.count)
    for (i, ring) in rings.enumerated() {
      payload.put(UInt32(bitPattern: ring.toLoop), at: 8 * i)
      payload.put(UInt32(bitPattern: ring.toProgram), at: 8 * i + 4)
    }
    return payload
  }
}

/// CSB (`struct nmreq_opt_csb`): head, cur and tail travel in control blocks instead of the rings.
public struct ControlBlocksOption: NetmapOption {
  public static let type = NetmapOptionType.controlBlocks
  /// Addresses in the program of the blocks that it writes, and of those that it reads; multiples of 64.
  public var toLoop: UInt64
  public var toProgram: UInt64

  public init(toLoop: UInt64, toProgram: UInt64) {
    self.toLoop = toLoop
    self.toProgram = toProgram
  }
  public init(decoding payload: [UInt8]) throws(NetmapError) {
    guard payload.count == 16 else { throw wrongLength("The option CSB", payload.count, 16) }
    toLoop = payload.u64(0)
    toProgram = payload.u64(8)
  }
  public func encoded() -> [UInt8] {
    var payload = [UInt8](repeating: 0, count: 16)
    payload.put(toLoop, at: 0)
    payload.put(toProgram, at: 8)
    return payload
  }
}

/// A control block, 64 bytes; all transmit rings' first, then all receive rings'. Offsets in bytes, fields of 32 bits.
public enum ControlBlock {
  public static let size = 64
  // The program's (`struct nm_csb_atok`).
  public static let head = 0
  public static let cur = 4
  public static let programNeedsKick = 8
  public static let syncFlags = 12
  // The loop's (`struct nm_csb_ktoa`).
  public static let hwcur = 0
  public static let hwtail = 4
  public static let loopNeedsKick = 8
}

/// SYNC_KLOOP_MODE (`struct nmreq_opt_sync_kloop_mode`).
public struct LoopModeOption: NetmapOption {
  public static let type = NetmapOptionType.loopMode
  /// `NM_OPT_SYNC_KLOOP_DIRECT_TX`, `NM_OPT_SYNC_KLOOP_DIRECT_RX`: sync where the event comes in.
  public static let directTransmit: UInt32 = 1
  public static let directReceive: UInt32 = 2
  public var mode: UInt32

  public init(mode: UInt32) { self.mode = mode }
  public init(decoding payload: [UInt8]) throws(NetmapError) {
    guard payload.count == 8 else { throw wrongLength("The option MODE", payload.count, 8) }
    mode = payload.u32(0)
  }
  public func encoded() -> [UInt8] {
    var payload = [UInt8](repeating: 0, count: 8)
    payload.put(mode, at: 0)
    return payload
  }
}

/// OFFSETS (`struct nmreq_opt_offsets`): frames start at an offset in their buffers, in the low bits of `ptr`.
public struct OffsetsOption: NetmapOption {
  public static let type = NetmapOptionType.offsets
  /// Bytes: the largest offset that the program will use. The answer may have a larger one.
  public var largest: UInt64
  /// Bytes: written into every slot of a ring that nobody else has.
  public var initial: UInt64
  /// Bits of `ptr` that the offset has; 0: all 64.
  public var bits: UInt32
  /// Bytes: what transmitted frames' starts are multiples of.
  public var transmitAlignment: UInt32
  /// Bytes that stay free behind a frame.
  public var smallestGap: UInt64

  public init(largest: UInt64, initial: UInt64 = 0, bits: UInt32 = 0, transmitAlignment: UInt32 = 0, smallestGap: UInt64 = 0) {
    self.largest = largest
    self.initial = initial
    self.bits = bits
    self.transmitAlignment = transmitAlignment
    self.smallestGap = smallestGap
  }
  public init(decoding payload: [UInt8]) throws(NetmapError) {
    guard payload.count == 32 else { throw wrongLength("The option OFFSETS", payload.count, 32) }
    self.init(
      largest: payload.u64(0), initial: payload.u64(8), bits: payload.u32(16), transmitAlignment: payload.u32(20), smallestGap: payload.u64(24))
  }
  public func encoded() -> [UInt8] {
    var payload = [UInt8](repeating: 0, count: 32)
    payload.put(largest, at: 0)
    payload.put(initial, at: 8)
    payload.put(bits, at: 16)
    payload.put(transmitAlignment, at: 20)
    payload.put(smallestGap, at: 24)
    return payload
  }
}
