// Reads capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), in either
// byte order. The file is untrusted: every length is checked before it is believed.

internal import CRingway
internal import Platform
internal import SystemPackage

/// One frame of a capture file.
public struct CapturedFrame: Equatable, Sendable {
  /// Nanoseconds since 1970.
  public var time: UInt64
  public var bytes: [UInt8]
  /// Bytes that the frame had on the wire; more than `bytes` when it was cut.
  public var originalLength: Int

  public init(time: UInt64, bytes: [UInt8], originalLength: Int) {
    self.time = time
    self.bytes = bytes
    self.originalLength = originalLength
  }
}

/// A capture file that is read from its start to its end.
public final class CaptureReader {
  /// The largest record or block that is believed.
  public static let blockLimit = 16 << 20

  public let path: String
  private let file: OwnedDescriptor
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)
  private var from = 0, to = 0
  /// File offset of `from`.
  private var offset = 0
  private var isBigEndian = false
  private var isBlocks = false
  private var nanosecondsATick: UInt64 = 1000
  private var checkSequence = 0
  /// Each interface of a pcapng section: its link type, ticks a second, snap length.
  private var interfaces: [(isEthernet: Bool, ticks: UInt64, snap: Int)] = []

  /// Opens a file and reads its first header.
  public init(path: String) throws(WireError) {
    self.path = path
    do { file = try OwnedDescriptor(opening: path, flags: O_RDONLY) } catch {
      throw .system(error, advice: "name a capture file that can be read")
    }
    guard let magic = try take(4) else { throw wrong("the file is empty") }
    switch magic {
    case [0xd4, 0xc3, 0xb2, 0xa1]: break
    case [0xa1, 0xb2, 0xc3, 0xd4]: isBigEndian = true
    case [0x4d, 0x3c, 0xb2, 0xa1]: nanosecondsATick = 1
    case [0xa1, 0xb2, 0x3c, 0x4d]: (isBigEndian, nanosecondsATick) = (true, 1)
    case [0x0a, 0x0d, 0x0d, 0x0a]:
      isBlocks = true
      try section()
      return
    default: throw wrong("no capture file starts with these bytes")
    }
    guard let rest = try take(20) else { throw wrong("the header is cut off") }
    let link = number(rest, 16, 4)
    guard link & 0xffff == 1 else { throw wrong("the link type is \(link & 0xffff), not Ethernet (1)") }
    // The check sequence's length in 16-bit words, when the F bit says that it is known.
    if link & 0x0400_0000 != 0 { checkSequence = (link >> 28) * 2 }
  }

  private func wrong(_ text: String) -> WireError { .capture(path: path, offset: offset, wrong: text) }

  /// The next `count` bytes; nil when the file ends before them.
  private func take(_ count: Int) throws(WireError) -> [UInt8]? {
    guard count <= CaptureReader.blockLimit else { throw wrong("a block of \(count) bytes is not believed") }
    while to - from < count {
      if from > 0 {
        buffer.removeSubrange(0..<from)
        to -= from
        from = 0
      }
      if buffer.count < count + 65536 { buffer.append(contentsOf: repeatElement(0, count: count + 65536 - buffer.count)) }
      let room = to
      // SAFETY: the rest of the array.
      let got = unsafe buffer.withUnsafeMutableBytes { unsafe read(file.raw, $0.baseAddress! + room, $0.count - room) }
      if got < 0 {
        if rw_errno() == EINTR { continue }
        throw .system(SystemError("read", path, Errno(rawValue: rw_errno())), advice: "copy the file to a local disk")
      }
      if got == 0 { return nil }
      to += got
    }
    defer {
      from += count
      offset += count
    }
    return Array(buffer[from..<from + count])
  }

  private func number(_ bytes: [UInt8], _ at: Int, _ count: Int) -> Int {
    guard at >= 0, at + count <= bytes.count else { return 0 }
    let part = bytes[at..<at + count]
    return isBigEndian ? part.reduce(0) { $0 << 8 | Int($1) } : part.reversed().reduce(0) { $0 << 8 | Int($1) }
  }

  /// The next frame; nil at the end of the file. A record that the file's end cuts off ends it too.
  public func next() throws(WireError) -> CapturedFrame? { isBlocks ? try nextBlock() : try nextRecord() }

  private func nextRecord() throws(WireError) -> CapturedFrame? {
    guard let header = try take(16) else { return nil }
    let captured = number(header, 8, 4), original = number(header, 12, 4)
    guard var bytes = try take(captured) else { return nil }
    if captured == original, checkSequence > 0 { bytes.removeLast(min(checkSequence, bytes.count)) }
    let time = UInt64(number(header, 0, 4)) &* 1_000_000_000 &+ UInt64(number(header, 4, 4)) &* nanosecondsATick
    return CapturedFrame(time: time, bytes: bytes, originalLength: original)
  }

  // MARK: pcapng

  /// A section header block, whose type has been read.
  private func section() throws(WireError) {
    guard let start = try take(8) else { throw wrong("the section header is cut off") }
    switch Array(start[4..<8]) {
    case [0x4d, 0x3c, 0x2b, 0x1a]: isBigEndian = false
    case [0x1a, 0x2b, 0x3c, 0x4d]: isBigEndian = true
    default: throw wrong("the section header's byte order is neither")
    }
    interfaces = []
    let length = number(start, 0, 4)
    guard length >= 28, length & 3 == 0, try take(length - 12) != nil else { throw wrong("the section header is cut off") }
  }

  private func nextBlock() throws(WireError) -> CapturedFrame? {
    while let head = try take(4) {
      if head == [0x0a, 0x0d, 0x0d, 0x0a] {
        try section()
        continue
      }
      guard let size = try take(4) else { return nil }
      let type = number(head, 0, 4), length = number(size, 0, 4)
      guard length >= 12, length & 3 == 0 else { throw wrong("a block's length is \(length)") }
      guard let body = try take(length - 8) else { return nil }
      switch type {
      case 1: describe(body)
      case 6: if let frame = try enhanced(body) { return frame }
      case 3: if let frame = try simple(body) { return frame }
      default: break
      }
    }
    return nil
  }

  /// An interface description block: link type, snap length, options. if_tsresol is option 9.
  private func describe(_ body: [UInt8]) {
    var ticks: UInt64 = 1_000_000
    var at = 8
    while at + 4 <= body.count - 4 {
      let code = number(body, at, 2), length = number(body, at + 2, 2)
      if code == 0 { break }
      if code == 9, length >= 1, at + 4 < body.count {
        let value = body[at + 4], power = Int(value & 0x7f)
        if value & 0x80 != 0 {
          ticks = power < 63 ? 1 << UInt64(power) : 1 << 62
        } else {
          ticks = (0..<min(power, 18)).reduce(UInt64(1)) { total, _ in total * 10 }
        }
      }
      at += 4 + (length + 3) & ~3
    }
    interfaces.append((number(body, 0, 2) == 1, ticks, number(body, 4, 4)))
  }

  private func enhanced(_ body: [UInt8]) throws(WireError) -> CapturedFrame? {
    let index = number(body, 0, 4), captured = number(body, 12, 4)
    guard body.count >= 24, index < interfaces.count, captured <= body.count - 24 else {
      throw wrong("a packet block names an interface or a length that is not there")
    }
    guard interfaces[index].isEthernet else { return nil }
    let stamp = UInt64(number(body, 4, 4)) << 32 | UInt64(number(body, 8, 4)), ticks = interfaces[index].ticks
    let rest = (stamp % ticks).multipliedFullWidth(by: 1_000_000_000)
    let time = stamp / ticks &* 1_000_000_000 &+ ticks.dividingFullWidth(rest).quotient
    return CapturedFrame(time: time, bytes: Array(body[20..<20 + captured]), originalLength: number(body, 16, 4))
  }

  private func simple(_ body: [UInt8]) throws(WireError) -> CapturedFrame? {
    guard let first = interfaces.first, body.count >= 8 else { throw wrong("a packet block without an interface") }
    guard first.isEthernet else { return nil }
    let original = number(body, 0, 4)
    let kept = min(original, body.count - 8, first.snap > 0 ? first.snap : .max)
    return CapturedFrame(time: 0, bytes: Array(body[4..<4 + kept]), originalLength: original)
  }
}
