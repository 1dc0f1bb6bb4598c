// Packet: the handle that the data path passes around, and the record behind it.
//
//    Packet (~Copyable) ──> PacketRecord, 64 bytes, private memory ──> buffer in DMA memory
//                              │ next (further buffers of one frame)      (bytes only)
//                              └ pool (where it goes when it is dropped)
//
// Invariants
// - A buffer in use belongs to exactly one handle, one descriptor or one netmap slot. The compiler
//   proves it for handles: they cannot be copied, and whoever takes one consumes it.
// - No metadata lies in DMA memory: a card that writes past its length, or a program that maps the
//   buffers, cannot forge a record.
// - A free record has `next == nil`; receive paths rely on it.
// - A packet belongs to one thread at a time. A pool that is bound to a worker takes packets back that
//   other threads free; one that is bound to none, its packets and its batches stay on one thread.


/// What is known about a buffer, beside the buffer: one cache line.
@frozen @safe public struct PacketRecord {
  /// First byte of the buffer. Changes only while a netmap ring trades the buffer for another.
  public var buffer: UnsafeMutableRawPointer
  /// Bus address of that byte.
  public var iova: UInt64
  /// Where the record goes when it is free.
  public let pool: UnsafeMutablePointer<PoolState>
  /// The next buffer of the same frame.
  public var next: RawPacket?
  /// Bytes of the frame in this buffer.
  public var length: UInt16
  /// Where they start in the buffer.
  public var offset: UInt16
  /// Bytes of the whole frame; valid in the first record of a chain.
  public var frameLength: UInt32
  /// Receive: the receive-side scaling hash, valid with `.hashed`. Send, with `.segmentation`: bytes
  /// of payload a segment in the low half, bytes of the TCP header above it.
  public var hash: UInt32
  /// VLAN tag control information, valid with `.vlan`.
  public var vlan: UInt16
  /// Index of the interface that received it; 0 is none. `generation` belongs to it.
  public var interface: UInt16
  public var flags: PacketFlags
  /// Link (7 low bits) and network (9 high bits) header lengths in bytes, for transmit offloads. 0
  /// asks for none, whatever `flags` says: so a received frame can be passed on as it is.
  public var headerLengths: UInt16
  /// Generation of the interface's index: an index is used again, with another generation, when its
  /// interface has gone.
  public var generation: UInt16
  /// Nanoseconds of the batch's software time stamp; 0 is none.
  public var timestamp: UInt64

  /// Sets the lengths of a frame that lies in one buffer: one 64-bit store.
  @inlinable @inline(__always)
  public mutating func setSingle(length: UInt16, offset: UInt16) {
    self.length = length
    self.offset = offset
    frameLength = UInt32(length)
  }
}

public typealias RawPacket = UnsafeMutablePointer<PacketRecord>

/// An interface's number. Its generation tells a stale one from that of a newer interface.
@frozen public struct InterfaceIndex: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// 1 and up; 0 is none.
  public let index: UInt16
  public let generation: UInt16

  @inlinable @inline(__always) public init(_ index: UInt16, generation: UInt16) {
    self.index = index
    self.generation = generation
  }

  /// No interface.
  public static var none: InterfaceIndex { InterfaceIndex(0, generation: 0) }
  public var description: String { "\(index)" }
}

/// What the card said of a received frame, or is asked to do with a sent one.
@frozen public struct PacketFlags: OptionSet, Sendable, BitwiseCopyable {
  public let rawValue: UInt32
  @inlinable @inline(__always) public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// `vlan` holds a tag: stripped on receive, to be inserted on send.
  public static var vlan: PacketFlags { PacketFlags(rawValue: 1 << 0) }
  public static var hashed: PacketFlags { PacketFlags(rawValue: 1 << 1) }
  /// Receive: the IPv4 header checksum was checked and is right. Send: insert it.
  public static var ipChecksum: PacketFlags { PacketFlags(rawValue: 1 << 2) }
  /// Receive: the TCP or UDP checksum was checked and is right. Send: insert TCP's.
  public static var tcpChecksum: PacketFlags { PacketFlags(rawValue: 1 << 3) }
  /// As `tcpChecksum`, for UDP.
  public static var udpChecksum: PacketFlags { PacketFlags(rawValue: 1 << 4) }
  /// Receive: the card found a wrong checksum and delivered the frame all the same.
  public static var badChecksum: PacketFlags { PacketFlags(rawValue: 1 << 5) }
  /// Send: cut the TCP payload into segments, each with headers of its own (with `tcpChecksum`, and
  /// `ipChecksum` over IPv4). `hash` then holds what `setSegmentation` put there.
  public static var segmentation: PacketFlags { PacketFlags(rawValue: 1 << 6) }
  /// Receive: sent to every station of the link (the BSDs' M_BCAST).
  public static var linkBroadcast: PacketFlags { PacketFlags(rawValue: 1 << 8) }
  /// Receive: sent to a group of stations (M_MCAST).
  public static var linkMulticast: PacketFlags { PacketFlags(rawValue: 1 << 9) }
}

/// Move-only owner of a frame. Dropping it gives its buffers back to their pool.
@frozen @safe public struct Packet: ~Copyable {
  @usableFromInline let raw: RawPacket

  /// Takes ownership of a record (and the chain behind it) that nobody else holds.
  @inlinable @inline(__always) public init(unsafe owning: RawPacket) { unsafe raw = owning }

  /// Gives ownership up: the caller now answers for the record.
  @inlinable @inline(__always) public consuming func intoRaw() -> RawPacket {
    let record = unsafe raw
    discard self
    return unsafe record
  }

  // SAFETY: the record is this handle's alone, so reading it through the pointer races with nobody.
  @inlinable deinit { unsafe PoolState.put(raw) }

  /// Bytes in the frame, over all its buffers.
  @inlinable public var count: Int { unsafe Int(raw.pointee.frameLength) }
  /// Bytes of the frame in its first buffer.
  @inlinable public var firstCount: Int { unsafe Int(raw.pointee.length) }
  @inlinable public var flags: PacketFlags {
    get { unsafe raw.pointee.flags }
    nonmutating set { unsafe raw.pointee.flags = newValue }
  }
  @inlinable public var vlan: UInt16 {
    get { unsafe raw.pointee.vlan }
    nonmutating set { unsafe raw.pointee.vlan = newValue }
  }
  /// Receive-side scaling's hash or a flow's number, valid with `.hashed`.
  @inlinable public var hash: UInt32 {
    get { unsafe raw.pointee.hash }
    nonmutating set { unsafe raw.pointee.hash = newValue }
  }
  @inlinable public var interface: InterfaceIndex {
    get { unsafe InterfaceIndex(raw.pointee.interface, generation: raw.pointee.generation) }
    nonmutating set {
      unsafe raw.pointee.interface = newValue.index
      unsafe raw.pointee.generation = newValue.generation
    }
  }
  @inlinable public var timestamp: UInt64 {
    get { unsafe raw.pointee.timestamp }
    nonmutating set { unsafe raw.pointee.timestamp = newValue }
  }
  /// The record itself, for drivers and inlined code that must look at several fields.
  @inlinable @inline(__always) public var record: RawPacket { unsafe raw }

  /// Link and network header lengths in bytes (at most 127 and 511), for transmit offloads.
  @inlinable public func setHeaderLengths(link: Int, network: Int) {
    unsafe raw.pointee.headerLengths = UInt16(truncatingIfNeeded: (link & 0x7f) | (network & 0x1ff) << 7)
  }

  /// Asks the card to cut the frame's TCP payload into segments. The TCP checksum field holds the
  /// pseudo header's sum without the length (what Linux and the BSDs hand to their cards).
  /// - Parameters:
  ///   - size: bytes of payload a segment (1 to 65535).
  ///   - transport: bytes of the TCP header with its options (20 to 60).
  public func setSegmentation(size: Int, transport: Int) {
    unsafe raw.pointee.flags.formUnion([.segmentation, .tcpChecksum])
    unsafe raw.pointee.hash = UInt32(truncatingIfNeeded: size & 0xffff) | UInt32(truncatingIfNeeded: transport & 0xff) << 16
  }
}
