// The bodies of the control requests (net/netmap.h), each at its offsets. Padding stays as the program left it.

/// The body of a request.
public protocol NetmapBody: Equatable, Sendable {
  /// Bytes.
  static var size: Int { get }
  /// From bytes of which at least `size` follow `offset`; the caller has checked that.
  init(bytes: [UInt8], at offset: Int)
  /// Writes every field, and nothing between them.
  func encode(into bytes: inout [UInt8], at offset: Int)
}

extension NetmapBody {
  /// EINVAL unless there are exactly `size` bytes.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count == Self.size else { throw wrongLength("The request's body", bytes.count, Self.size) }
    self.init(bytes: bytes, at: 0)
  }

  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.size)
    encode(into: &bytes, at: 0)
    return bytes
  }
}

extension RegisterRequest: NetmapBody {
  public static let size = 56

  public init(bytes: [UInt8], at base: Int) {
    self.init()
    offset = bytes.u64(base)
    memorySize = bytes.u64(base + 8)
    transmitSlots = bytes.u32(base + 16)
    receiveSlots = bytes.u32(base + 20)
    transmitRings = bytes.u16(base + 24)
    receiveRings = bytes.u16(base + 26)
    hostTransmitRings = bytes.u16(base + 28)
    hostReceiveRings = bytes.u16(base + 30)
    memoryID = bytes.u16(base + 32)
    ringID = bytes.u16(base + 34)
    mode = bytes.u32(base + 36)
    extraBuffers = bytes.u32(base + 40)
    flags = bytes.u64(base + 48)
  }

  public func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(offset, at: base)
    bytes.put(memorySize, at: base + 8)
    bytes.put(transmitSlots, at: base + 16)
    bytes.put(receiveSlots, at: base + 20)
    bytes.put(transmitRings, at: base + 24)
    bytes.put(receiveRings, at: base + 26)
    bytes.put(hostTransmitRings, at: base + 28)
    bytes.put(hostReceiveRings, at: base + 30)
    bytes.put(memoryID, at: base + 32)
    bytes.put(ringID, at: base + 34)
    bytes.put(mode, at: base + 36)
    bytes.put(extraBuffers, at: base + 40)
    bytes.put(flags, at: base + 48)
  }
}

/// PORT_INFO_GET (`struct nmreq_port_info_get`). What is not zero in the question is a wish, for ports that are made by it.
public struct PortInfo: NetmapBody {
  public static let size = 32
  /// Bytes of the region.
  public var memorySize: UInt64 = 0
  public var transmitSlots: UInt32 = 0
  public var receiveSlots: UInt32 = 0
  public var transmitRings: UInt16 = 0
  public var receiveRings: UInt16 = 0
  public var hostTransmitRings: UInt16 = 0
  public var hostReceiveRings: UInt16 = 0
  public var memoryID: UInt16 = 0

  public init() {}
  public init(bytes: [UInt8], at base: Int) {
    memorySize = bytes.u64(base)
    transmitSlots = bytes.u32(base + 8)
    receiveSlots = bytes.u32(base + 12)
    transmitRings = bytes.u16(base + 16)
    receiveRings = bytes.u16(base + 18)
    hostTransmitRings = bytes.u16(base + 20)
    hostReceiveRings = bytes.u16(base + 22)
    memoryID = bytes.u16(base + 24)
  }
  public func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(memorySize, at: base)
    bytes.put(transmitSlots, at: base + 8)
    bytes.put(receiveSlots, at: base + 12)
    bytes.put(transmitRings, at: base + 16)
    bytes.put(receiveRings, at: base + 18)
    bytes.put(hostTransmitRings, at: base + 20)
    bytes.put(hostReceiveRings, at: base + 22)
    bytes.put(memoryID, at: base + 24)
  }
}

/// VALE_ATTACH (`struct nmreq_vale_attach`).
public struct ValeAttach: NetmapBody {
  public static let size = 64
  public var register = RegisterRequest()
  /// The port's number in the switch: written by the answer.
  public var portIndex: UInt32 = 0

  public init() {}
  public init(bytes: [UInt8], at base: Int) {
    register = RegisterRequest(bytes: bytes, at: base)
    portIndex = bytes.u32(base + 56)
  }
  public func encode(into bytes: inout [UInt8], at base: Int) {
    register.encode(into: &bytes, at: base)
    bytes.put(portIndex, at: base + 56)
  }
}

/// VALE_DETACH (`struct nmreq_vale_detach`).
public struct ValeDetach: NetmapBody {
  public static let size = 8
  /// The number that the port had: written by the answer.
  public var portIndex: UInt32 = 0

  public init(portIndex: UInt32 = 0) { self.portIndex = portIndex }
  public init(bytes: [UInt8], at base: Int) { portIndex = bytes.u32(base) }
  public func encode(into bytes: inout [UInt8], at base: Int) { bytes.put(portIndex, at: base) }
}

/// VALE_LIST (`struct nmreq_vale_list`): with a name, its numbers; without one, the first port from these numbers on.
public struct ValeList: NetmapBody {
  public static let size = 8
  public var bridgeIndex: UInt16 = 0
  public var portIndex: UInt32 = 0

  public init(bridgeIndex: UInt16 = 0, portIndex: UInt32 = 0) {
    self.bridgeIndex = bridgeIndex
    self.portIndex = portIndex
  }
  public init(bytes: [UInt8], at base: Int) {
    bridgeIndex = bytes.u16(base)
    portIndex = bytes.u32(base + 4)
  }
  public func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(bridgeIndex, at: base)
    bytes.put(portIndex, at: base + 4)
  }
}

/// PORT_HDR_SET and PORT_HDR_GET (`struct nmreq_port_hdr`).
public struct PortHeader: NetmapBody {
  public static let size = 8
  /// Bytes of the virtio-net header before each frame: 0, 10 or 12.
  public var length: UInt32 = 0

  public init(length: UInt32 = 0) { self.length = length }
  public init(bytes: [UInt8], at base: Int) { length = bytes.u32(base) }
  public func encode(into bytes: inout [UInt8], at base: Int) { bytes.put(length, at: base) }
}

/// VALE_NEWIF (`struct nmreq_vale_newif`). 0 leaves a number to the switch.
public struct ValeNewInterface: NetmapBody {
  public static let size = 16
  public var transmitSlots: UInt32 = 0
  public var receiveSlots: UInt32 = 0
  public var transmitRings: UInt16 = 0
  public var receiveRings: UInt16 = 0
  public var memoryID: UInt16 = 0

  public init() {}
  public init(bytes: [UInt8], at base: Int) {
    transmitSlots = bytes.u32(base)
    receiveSlots = bytes.u32(base + 4)
    transmitRings = bytes.u16(base + 8)
    receiveRings = bytes.u16(base + 10)
    memoryID = bytes.u16(base + 12)
  }
  public func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(transmitSlots, at: base)
    bytes.put(receiveSlots, at: base + 4)
    bytes.put(transmitRings, at: base + 8)
    bytes.put(receiveRings, at: base + 10)
    bytes.put(memoryID, at: base + 12)
  }
}

/// VALE_POLLING_ENABLE and VALE_POLLING_DISABLE (`struct nmreq_vale_polling`).
public struct ValePolling: NetmapBody {
  public static let size = 16
  /// `NETMAP_POLLING_MODE_SINGLE_CPU`, `NETMAP_POLLING_MODE_MULTI_CPU`.
  public static let oneCPU: UInt32 = 1
  public static let severalCPUs: UInt32 = 2
  public var mode: UInt32 = 0
  public var firstCPU: UInt32 = 0
  public var cpus: UInt32 = 0

  public init(mode: UInt32 = 0, firstCPU: UInt32 = 0, cpus: UInt32 = 0) {
    self.mode = mode
    self.firstCPU = firstCPU
    self.cpus = cpus
  }
  public init(bytes: [UInt8], at base: Int) {
    mode = bytes.u32(base)
    firstCPU = bytes.u32(base + 4)
    cpus = bytes.u32(base + 8)
  }
  public func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(mode, at: base)
    bytes.put(firstCPU, at: base + 4)
    bytes.put(cpus, at: base + 8)
  }
}

/// POOLS_INFO_GET, and what EXTMEM says about its memory (`struct nmreq_pools_info`).
public struct PoolsInfo: NetmapBody {
  public static let size = 64
  public struct Pool: Equatable, Sendable {
    /// Where the pool starts in the region, in bytes.
    public var offset: UInt64 = 0
    public var objects: UInt32 = 0
    /// Bytes each.
    public var objectSize: UInt32 = 0

    public init(offset: UInt64 = 0, objects: UInt32 = 0, objectSize: UInt32 = 0) {
      self.offset = offset
      self.objects = objects
      self.objectSize = objectSize
    }
    init(bytes: [UInt8], at base: Int) {
      self.init(offset: bytes.u64(base), objects: bytes.u32(base + 8), objectSize: bytes.u32(base + 12))
    }
    func encode(into bytes: inout [UInt8], at base: Int) {
      bytes.put(offset, at: base)
      bytes.put(objects, at: base + 8)
      bytes.put(objectSize, at: base + 12)
    }
  }
  /// Bytes of the region.
  public var memorySize: UInt64 = 0
  public var memoryID: UInt16 = 0
  public var interfaces = Pool()
  public var rings = Pool()
  public var buffers = Pool()

  public init() {}
  public init(bytes: [UInt8], at base: Int) {
    memorySize = bytes.u64(base)
    memoryID = bytes.u16(base + 8)
    interfaces = Pool(bytes: bytes, at: base + 16)
    rings = Pool(bytes: bytes, at: base + 32)
    buffers = Pool(bytes: bytes, at: base + 48)
  }
  public func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(memorySize, at: base)
    bytes.put(memoryID, at: base + 8)
    interfaces.encode(into: &bytes, at: base + 16)
    rings.encode(into: &bytes, at: base + 32)
    buffers.encode(into: &bytes, at: base + 48)
  }
}

/// SYNC_KLOOP_START (`struct nmreq_sync_kloop_start`).
public struct SyncLoopStart: NetmapBody {
  public static let size = 8
  /// The longest sleep that is accepted: a second.
  public static let longestSleep: UInt32 = 1_000_000
  /// Microseconds between two rounds that find nothing.
  public var sleep: UInt32 = 0

  public init(sleep: UInt32 = 0) { self.sleep = sleep }
  public init(bytes: [UInt8], at base: Int) { sleep = bytes.u32(base) }
  public func encode(into bytes: inout [UInt8], at base: Int) { bytes.put(sleep, at: base) }
}
