// Messages as bytes: everything is little endian, and nothing that a client sends is believed.

internal import CRingway
internal import SystemPackage

/// Commands (vfio-user specification, "Commands").
enum Command: UInt16 {
  case version = 1
  case dmaMap = 2
  case dmaUnmap = 3
  case deviceInfo = 4
  case regionInfo = 5
  case regionDescriptors = 6
  case interruptInfo = 7
  case setInterrupts = 8
  case regionRead = 9
  case regionWrite = 10
  case reset = 13
  case regionWriteMultiple = 15
}

/// The sixteen bytes before every message.
struct MessageHeader: Equatable {
  static let size = 16
  /// Header, region access, and the most data that one access may carry.
  static let largestMessage = size + 16 + largestTransfer
  /// `max_data_xfer_size`: 1 MiB, the specification's own default.
  static let largestTransfer = 1 << 20
  /// `max_msg_fds`: QEMU takes no more than this from a server.
  static let mostDescriptors = 16

  var id: UInt16
  var command: UInt16
  /// Bytes, header included.
  var size: UInt32
  var flags: UInt32
  var errno: UInt32

  init(id: UInt16, command: UInt16, size: Int, flags: UInt32, errno: UInt32 = 0) {
    self.id = id
    self.command = command
    self.size = UInt32(truncatingIfNeeded: size)
    self.flags = flags
    self.errno = errno
  }

  /// nil when there are fewer than sixteen bytes.
  init?(_ bytes: some RandomAccessCollection<UInt8>) {
    guard bytes.count >= MessageHeader.size else { return nil }
    let fields = Fields(bytes.prefix(MessageHeader.size))
    id = UInt16(truncatingIfNeeded: fields.le32(0))
    command = UInt16(truncatingIfNeeded: fields.le32(0) >> 16)
    size = fields.le32(4)
    flags = fields.le32(8)
    errno = fields.le32(12)
  }

  var isCommand: Bool { flags & 0xf == 0 }
  var isReply: Bool { flags & 0xf == 1 }
  var wantsReply: Bool { flags & 0x10 == 0 }
  /// Whether the length can be believed: the stream can be followed beyond this message.
  var isPlausible: Bool { size >= UInt32(MessageHeader.size) && size <= UInt32(MessageHeader.largestMessage) }

  /// The header of the answer with so many bytes behind it.
  func reply(payload: Int) -> MessageHeader {
    MessageHeader(id: id, command: command, size: MessageHeader.size + payload, flags: 1)
  }
  /// A refusal: a header alone.
  func refusal(_ errno: Errno) -> [UInt8] {
    MessageHeader(id: id, command: command, size: MessageHeader.size, flags: 0x21, errno: UInt32(bitPattern: errno.rawValue))
      .bytes
  }

  var bytes: [UInt8] {
    var out: [UInt8] = []
    out.reserveCapacity(MessageHeader.size)
    out.append16(id)
    out.append16(command)
    out.append32(size)
    out.append32(flags)
    out.append32(errno)
    return out
  }
}

/// Little-endian fields of a payload. What lies beyond its end reads 0: lengths are checked first.
struct Fields {
  let bytes: [UInt8]

  init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

  var count: Int { bytes.count }

  func le32(_ offset: Int) -> UInt32 {
    guard offset >= 0, offset + 4 <= bytes.count else { return 0 }
    return UInt32(bytes[offset]) | UInt32(bytes[offset + 1]) << 8 | UInt32(bytes[offset + 2]) << 16
      | UInt32(bytes[offset + 3]) << 24
  }
  func le64(_ offset: Int) -> UInt64 { UInt64(le32(offset)) | UInt64(le32(offset + 4)) << 32 }

  /// At least so many bytes, or EINVAL.
  func require(_ count: Int) throws(Errno) {
    if bytes.count < count { throw .invalidArgument }
  }
}

extension [UInt8] {
  mutating func append16(_ value: UInt16) {
    append(UInt8(truncatingIfNeeded: value))
    append(UInt8(truncatingIfNeeded: value >> 8))
  }
  mutating func append32(_ value: UInt32) {
    append16(UInt16(truncatingIfNeeded: value))
    append16(UInt16(truncatingIfNeeded: value >> 16))
  }
  mutating func append64(_ value: UInt64) {
    append32(UInt32(truncatingIfNeeded: value))
    append32(UInt32(truncatingIfNeeded: value >> 32))
  }
}

/// Descriptors that came with a message. Those that nobody takes are closed with it.
final class PassedDescriptors {
  private(set) var list: [Int32]

  init(_ list: [Int32] = []) { self.list = list }
  deinit { for descriptor in list where descriptor >= 0 { _ = close(descriptor) } }

  var count: Int { list.count }

  /// Hands one over to the caller, who closes it.
  func take(_ index: Int) -> OwnedEvent { 
    let raw = list[index]
    list[index] = -1
    return OwnedEvent(raw)
  }
  subscript(_ index: Int) -> Int32 { list[index] }
}

/// A descriptor that is closed with its last holder.
final class OwnedEvent {
  let raw: Int32
  init(_ raw: Int32) { self.raw = raw }
  deinit { _ = close(raw) }
}
