// Messages between a program and the daemon, over the descriptor itself.
//
//   A program's netmap descriptor is a SOCK_SEQPACKET socket, connected to the daemon's netmap socket. It may be shared by
//   fork and passed on, so nobody can be sure to read the answer to a request of his own from it. Hence:
//
//   request   one packet to the daemon: header, payload; with it the sending end of a fresh socket pair (SOCK_SEQPACKET)
//             as the first descriptor (SCM_RIGHTS), a memory file for EXTMEM as the second
//   answer    one packet on that pair: header, payload, text; with it the descriptors that the request is for
//   wakeup    packets of one byte from the daemon on the descriptor itself; they mean "look again"
//
// A request whose bytes make no sense is answered with EINVAL; one without an answering end is dropped.

/// What a message asks.
public enum NetmapMessageKind: UInt16, Sendable {
  /// An ioctl(2) that carries a structure; `number` says which. The payload is the structure: `nmreq`, `nm_ifreq`, or
  /// a control request laid flat (see `FlatRequest`).
  case ioctl = 1
  /// A process wants to use the descriptor: the answer is `AttachReply`; its descriptors are the region, the sync page
  /// and the doorbells' eventfds, in this order. ENXIO before REGISTER.
  case attach = 2
  /// What the daemon knows of an interface, by name: MAC address, MTU, flags, rings (`PortQuery`, answered with `PortQueryReply`).
  case query = 3
}

/// The head of a request: 32 bytes, little-endian as the machine.
///
///     magic u32@0 · kind u16@4 · zero u16@6 · number u64@8 · payload length u32@16 · zero u32@20 · extra u64@24
public struct NetmapRequestHead: Equatable, Sendable {
  public static let size = 32
  public static let magic: UInt32 = 0x5257_4e51
  public var kind: NetmapMessageKind
  /// The ioctl's number.
  public var number: UInt64
  public var payloadLength: UInt32
  /// EXTMEM: bytes of the memory file that may be used, from the offset in the option's `usrptr`.
  public var extra: UInt64

  public init(_ kind: NetmapMessageKind, number: UInt64 = 0, payloadLength: Int = 0, extra: UInt64 = 0) {
    self.kind = kind
    self.number = number
    self.payloadLength = UInt32(truncatingIfNeeded: payloadLength)
    self.extra = extra
  }
}

/// The head of an answer: 32 bytes.
///
///     magic u32@0 · errno i32@4 (0: done) · payload length u32@8 · text length u32@12 · descriptors u32@16 · zero@20
///
/// The payload is there on errors too, where the request has one: statuses of options are always written back.
/// The text is a sentence about the error, UTF-8, for those who can show it.
public struct NetmapReplyHead: Equatable, Sendable {
  public static let size = 32
  public static let magic: UInt32 = 0x5257_4e41
  public var errno: Int32
  public var payloadLength: UInt32
  public var textLength: UInt32
  public var descriptors: UInt32

  public init(errno: Int32 = 0, payloadLength: Int = 0, textLength: Int = 0, descriptors: Int = 0) {
    self.errno = errno
    self.payloadLength = UInt32(truncatingIfNeeded: payloadLength)
    self.textLength = UInt32(truncatingIfNeeded: textLength)
    self.descriptors = UInt32(truncatingIfNeeded: descriptors)
  }
}

/// Bytes of the largest message, both ways.
public enum NetmapMessageLimit {
  public static let bytes = 64 << 10
  public static let descriptors = 2 + SyncPage.mostDoorbells
}

/// What `attach` answers: 48 bytes, then 32 for each ring that the descriptor holds, in the order of the sync page.
///
///     region bytes u64@0 · interface offset u64@8 · register flags u64@16 · page bytes u32@24 · rings u32@28 ·
///     doorbells u32@32 · region id u16@36 · register mode u16@38 · port flags u32@40 ·
///     region's start in its file u32@44, in units of 4096 bytes (not 0 for external memory alone)
///     ring: offset in the region u64@0 · slots u32@8 · doorbell u32@12 · direction u16@16 · host u16@18 · number u16@20
public struct NetmapAttachReply: Equatable, Sendable {
  public static let size = 48
  public static let ringSize = 32
  public struct Ring: Equatable, Sendable {
    public var offset: UInt64
    public var slots: UInt32
    /// Which doorbell wakes its worker.
    public var doorbell: UInt32
    public var isReceive: Bool
    public var isHost: Bool
    public var number: UInt16
    public init(offset: UInt64, slots: UInt32, doorbell: UInt32, isReceive: Bool, isHost: Bool, number: UInt16) {
      self.offset = offset
      self.slots = slots
      self.doorbell = doorbell
      self.isReceive = isReceive
      self.isHost = isHost
      self.number = number
    }
  }
  public var regionBytes: UInt64 = 0
  public var interfaceOffset: UInt64 = 0
  public var flags: RegisterFlags = []
  public var pageBytes: UInt32 = 0
  public var doorbells: UInt32 = 0
  public var regionID: UInt16 = 0
  public var mode: UInt16 = 0
  /// What the port is: `valeSwitch`, `externalMemory`; other bits are ignored.
  public var portFlags: UInt32 = 0
  /// Where the region starts in its file, in units of 4096 bytes.
  public var regionStart: UInt32 = 0
  public var rings: [Ring] = []

  /// A port of a VALE switch: the library copies what INDIRECT slots point to before a transmit sync. The daemon takes the
  /// slot's buffer for the packet and never looks at `ptr`.
  public static let valeSwitch: UInt32 = 1
  /// The region is a program's own memory (EXTMEM), from `regionStart` of its file on.
  public static let externalMemory: UInt32 = 2

  public init() {}
}
