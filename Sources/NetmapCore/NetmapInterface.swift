// What a program finds first in shared memory: the list of a port's rings.

internal import CRingway

/// Byte offsets of `struct netmap_if` (net/netmap.h, API 14).
public enum InterfaceOffset {
  public static let name = 0
  /// Bytes of the name, the final zero included.
  public static let nameSize = 16
  public static let version = 16
  public static let flags = 20
  public static let transmitRings = 24
  public static let receiveRings = 28
  public static let extraBuffers = 32
  public static let hostTransmitRings = 36
  public static let hostReceiveRings = 40
  /// 64-bit offsets from the interface's first byte: card transmit, host transmit, card receive,
  /// host receive. 0 when the descriptor does not hold that ring.
  public static let ringOffsets = 56
}

/// How many rings of each kind a port has.
public struct RingCounts: Equatable, Sendable {
  public var transmit: Int
  public var receive: Int
  public var hostTransmit: Int
  public var hostReceive: Int

  public init(transmit: Int, receive: Int, hostTransmit: Int = 1, hostReceive: Int = 1) {
    self.transmit = transmit
    self.receive = receive
    self.hostTransmit = hostTransmit
    self.hostReceive = hostReceive
  }

  public var total: Int { transmit + receive + hostTransmit + hostReceive }

  /// The place of a ring in the list of offsets.
  public func place(of direction: RingDirection, _ ring: Int, host: Bool) -> Int {
    switch (direction, host) {
    case (.transmit, false): ring
    case (.transmit, true): transmit + ring
    case (.receive, false): transmit + hostTransmit + ring
    case (.receive, true): transmit + hostTransmit + receive + ring
    }
  }
}

/// A view of an interface. Knows the trusted numbers of rings; owns nothing.
@safe public struct NetmapInterface: @unchecked Sendable {
  /// First byte; 64-byte aligned.
  public let base: UnsafeMutableRawPointer
  public let counts: RingCounts

  /// - Parameter base: `56 + 8 * counts.total` bytes that stay mapped while the view is used.
  init(unsafe base: UnsafeMutableRawPointer, counts: RingCounts) {
    unsafe self.base = base
    self.counts = counts
  }

  /// `NETMAP_API` of the structures here.
  public static let version: UInt32 = 14
  /// `NI_PRIV_MEM`: the memory is the port's own.
  public static let privateMemory: UInt32 = 1

  // SAFETY: all offsets lie in the header or, for ring offsets, below `counts.total`.

  /// Fills zeroed memory: no ring is held yet.
  func initialize(name: String, privateMemory: Bool) {
    for (i, byte) in name.utf8.prefix(InterfaceOffset.nameSize - 1).enumerated() {
      unsafe rw_write8(base + InterfaceOffset.name + i, byte)
    }
    unsafe rw_write32(base + InterfaceOffset.version, Self.version)
    unsafe rw_write32(base + InterfaceOffset.flags, privateMemory ? Self.privateMemory : 0)
    unsafe rw_write32(base + InterfaceOffset.transmitRings, UInt32(counts.transmit))
    unsafe rw_write32(base + InterfaceOffset.receiveRings, UInt32(counts.receive))
    unsafe rw_write32(base + InterfaceOffset.hostTransmitRings, UInt32(counts.hostTransmit))
    unsafe rw_write32(base + InterfaceOffset.hostReceiveRings, UInt32(counts.hostReceive))
  }

  /// Tells the program where a ring is, in bytes from the interface; 0 takes it away.
  /// - Returns: false, and nothing is written, for a ring that the port does not have.
  @discardableResult public func setRingOffset(_ offset: Int, at place: Int) -> Bool {
    guard place >= 0, place < counts.total else { return false }
    unsafe rw_write64(base + InterfaceOffset.ringOffsets + 8 * place, UInt64(bitPattern: Int64(offset)))
    return true
  }

  /// What the program is told about a ring; nil for one that the port does not have.
  public func ringOffset(at place: Int) -> Int? {
    guard place >= 0, place < counts.total else { return nil }
    return Int(truncatingIfNeeded: unsafe rw_read64(base + InterfaceOffset.ringOffsets + 8 * place))
  }

  /// `bufs_head`: the first of the extra buffers, a list that the program links through their first
  /// four bytes. Not trusted when it is read back.
  public var extraBuffers: UInt32 {
    get { unsafe rw_read32(base + InterfaceOffset.extraBuffers) }
    nonmutating set { unsafe rw_write32(base + InterfaceOffset.extraBuffers, newValue) }
  }
}
