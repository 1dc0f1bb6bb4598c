// NetmapAPI: netmap's binary interface as bytes, and how a program reaches the daemon with it.
//
//   program ── ioctl(2) structures (net/netmap.h, API 14) ──> library ── messages ──> daemon
//                                                                └── sync page, shared ──┘
//
// - Numbers and layouts of the public interface: requests, options, flags, names of ports.
// - The messages that carry requests over a program's socket (Messages.swift).
// - The page by which a sync costs no request (SyncPage.swift).
//
// Bytes and nothing else: no descriptor, no memory of anybody's, no system call. Whatever comes from
// outside is read once, checked, and refused with the errno that netmap has for it.

/// Request numbers of netmap's descriptors (net/netmap.h; x86-64).
public enum NetmapIoctl {
  /// Legacy: what a port has.
  public static let info: UInt64 = 0xc03c_6991
  /// Legacy: registers a port.
  public static let register: UInt64 = 0xc03c_6992
  public static let transmitSync: UInt64 = 0x6994
  public static let receiveSync: UInt64 = 0x6995
  public static let configure: UInt64 = 0xc110_6996
  /// Every request since API 12.
  public static let control: UInt64 = 0xc058_6997
}

/// What `nr_reqtype` asks for.
public enum NetmapRequestType: UInt16, Sendable, CaseIterable {
  case register = 1
  case portInfo = 2
  case valeAttach = 3
  case valeDetach = 4
  case valeList = 5
  case portHeaderSet = 6
  case portHeaderGet = 7
  case valeNewInterface = 8
  case valeDeleteInterface = 9
  case valePollingEnable = 10
  case valePollingDisable = 11
  case poolsInfo = 12
  case syncLoopStart = 13
  case syncLoopStop = 14
  case csbEnable = 15

  /// Bytes of the request's body; 0: it has none, and may have none.
  public var bodySize: Int {
    switch self {
    case .register: 56
    case .portInfo: 32
    case .valeAttach: 64
    case .valeDetach, .valeList, .portHeaderSet, .portHeaderGet, .syncLoopStart: 8
    case .valeNewInterface, .valePollingEnable, .valePollingDisable: 16
    case .poolsInfo: 64
    case .valeDeleteInterface, .syncLoopStop, .csbEnable: 0
    }
  }
}

/// Sizes and limits of the requests.
public enum NetmapLayout {
  /// `struct nmreq_header`.
  public static let headerSize = 88
  /// `struct nmreq`, of the legacy requests.
  public static let legacySize = 60
  /// `struct nm_ifreq` (NIOCCONFIG).
  public static let configureSize = 272
  /// `struct nmreq_option`: what every option starts with.
  public static let optionHeaderSize = 24
  /// Bytes of body and options together; more is EMSGSIZE.
  public static let mostBytes = 4096
  public static let nameSize = 64
  /// `NETMAP_API`, and the versions that are understood.
  public static let version: UInt16 = 14
  public static let versions: ClosedRange<UInt16> = 14...15
}

/// The body of REGISTER, and the first 56 bytes of VALE_ATTACH's (`struct nmreq_register`).
public struct RegisterRequest: Equatable, Sendable {
  /// Where the interface lies in the region, and how large that is, in bytes. Written by the answer.
  public var offset: UInt64 = 0
  public var memorySize: UInt64 = 0
  /// Slots of each ring; 0 leaves it to the port. Written by the answer.
  public var transmitSlots: UInt32 = 0
  public var receiveSlots: UInt32 = 0
  public var transmitRings: UInt16 = 0
  public var receiveRings: UInt16 = 0
  public var hostTransmitRings: UInt16 = 0
  public var hostReceiveRings: UInt16 = 0
  /// The region: 0 leaves it to the port.
  public var memoryID: UInt16 = 0
  public var ringID: UInt16 = 0
  /// `nr_mode`.
  public var mode: UInt32 = 0
  /// Buffers beside the rings; the answer says how many there are.
  public var extraBuffers: UInt32 = 0
  /// `nr_flags`: see `RegisterFlags`. Unknown bits are ignored.
  public var flags: UInt64 = 0

  public init() {}
}
