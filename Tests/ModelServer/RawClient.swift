// A client's side of vfio-user, written for these tests alone: it can also say things that make no sense.

import CRingway
import Platform
import SystemPackage
import Testing

/// Little-endian bytes.
func le16(_ value: UInt16) -> [UInt8] { [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)] }
func le32(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) } }
func le64(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } }
func number(_ bytes: some Collection<UInt8>) -> UInt64 {
  bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

/// A reply, in pieces.
struct RawReply {
  var id: UInt16
  var command: UInt16
  var flags: UInt32
  var errno: Int32
  var payload: [UInt8]
  var descriptors: [Int32]
  var isError: Bool { flags & 0x20 != 0 }
  func field32(_ at: Int) -> UInt32 { UInt32(number(payload[at..<at + 4])) }
  func field64(_ at: Int) -> UInt64 { number(payload[at..<at + 8]) }
}

struct ConnectionOver: Error {}

final class RawClient {
  let raw: Int32
  private var nextID: UInt16 = 1
  private var isClosed = false
  /// Lives as long as this client.
  var keeps: AnyObject?

  init(path: String) throws {
    raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
      for (index, byte) in path.utf8.enumerated() { unsafe place[index] = byte }
    }
    let raw = raw
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe connect(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    try #require(result == 0, "connecting to \(path)")
    // No test waits for ever.
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    unsafe setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    unsafe setsockopt(raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { close() }
  func close() {
    if !isClosed { _ = CRingway.close(raw) }
    isClosed = true
  }

  /// Bytes as they are, with descriptors beside them.
  @discardableResult func push(_ bytes: [UInt8], _ descriptors: [Int32] = []) -> Int {
    let room = 16 + descriptors.count * 4 + 8
    return unsafe withUnsafeTemporaryAllocation(byteCount: room, alignment: 8) { control in
      unsafe bytes.withUnsafeBytes { source in
        var piece = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: source.baseAddress), iov_len: source.count)
        return unsafe withUnsafeMutablePointer(to: &piece) { piece in
          var message = unsafe msghdr()
          unsafe message.msg_iov = piece
          unsafe message.msg_iovlen = 1
          if !descriptors.isEmpty {
            var head = cmsghdr()
            head.cmsg_len = 16 + descriptors.count * 4
            head.cmsg_level = SOL_SOCKET
            head.cmsg_type = Int32(SCM_RIGHTS)
            unsafe control.storeBytes(of: head, as: cmsghdr.self)
            for (index, descriptor) in descriptors.enumerated() {
              unsafe control.storeBytes(of: descriptor, toByteOffset: 16 + 4 * index, as: Int32.self)
            }
            unsafe message.msg_control = control.baseAddress
            unsafe message.msg_controllen = (16 + descriptors.count * 4 + 7) & ~7
          }
          return unsafe sendmsg(raw, &message, Int32(MSG_NOSIGNAL))
        }
      }
    }
  }

  static func header(id: UInt16, _ command: UInt16, size: Int, flags: UInt32 = 0) -> [UInt8] {
    le16(id) + le16(command) + le32(UInt32(size)) + le32(flags) + le32(0)
  }

  @discardableResult
  func send(_ command: UInt16, _ payload: [UInt8] = [], _ descriptors: [Int32] = [], flags: UInt32 = 0) -> UInt16 {
    defer { nextID &+= 1 }
    push(RawClient.header(id: nextID, command, size: 16 + payload.count, flags: flags) + payload, descriptors)
    return nextID
  }

  /// So many bytes, and what came with them.
  private func pull(_ count: Int, _ descriptors: inout [Int32]) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let (got, passed): (Int, Int32) = unsafe withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { control in
        unsafe bytes.withUnsafeMutableBytes { target in
          var piece = unsafe iovec(iov_base: target.baseAddress! + done, iov_len: count - done)
          return unsafe withUnsafeMutablePointer(to: &piece) { piece in
            var message = unsafe msghdr()
            unsafe message.msg_iov = piece
            unsafe message.msg_iovlen = 1
            unsafe message.msg_control = control.baseAddress
            unsafe message.msg_controllen = 64
            let got = unsafe recvmsg(raw, &message, Int32(MSG_CMSG_CLOEXEC))
            guard got > 0, unsafe message.msg_controllen >= 20 else { return (got, -1) }
            return (got, unsafe control.load(fromByteOffset: 16, as: Int32.self))
          }
        }
      }
      if passed >= 0 { descriptors.append(passed) }
      if got <= 0 { throw ConnectionOver() }
      done += got
    }
    return bytes
  }

  func receive() throws -> RawReply {
    var descriptors: [Int32] = []
    let header = try pull(16, &descriptors)
    let size = Int(number(header[4..<8]))
    let payload = size > 16 ? try pull(size - 16, &descriptors) : []
    return RawReply(
      id: UInt16(number(header[0..<2])), command: UInt16(number(header[2..<4])), flags: UInt32(number(header[8..<12])),
      errno: Int32(number(header[12..<16])), payload: payload, descriptors: descriptors)
  }

  /// One command and its reply, which is checked to be one.
  func ask(_ command: UInt16, _ payload: [UInt8] = [], _ descriptors: [Int32] = []) throws -> RawReply {
    let id = send(command, payload, descriptors)
    let reply = try receive()
    #expect(reply.id == id && reply.command == command && reply.flags & 0xf == 1)
    return reply
  }

  // MARK: The commands

  static let capabilities =
    #"{"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}"#
  @discardableResult func greet(_ text: String = RawClient.capabilities, minor: UInt16 = 0) throws -> RawReply {
    try ask(1, le16(0) + le16(minor) + Array(text.utf8) + [0])
  }
  func map(_ address: UInt64, _ size: UInt64, file: Int32? = nil, offset: UInt64 = 0, flags: UInt32 = 3) throws -> RawReply {
    try ask(2, le32(32) + le32(flags) + le64(offset) + le64(address) + le64(size), file.map { [$0] } ?? [])
  }
  func unmap(_ address: UInt64, _ size: UInt64, flags: UInt32 = 0) throws -> RawReply {
    try ask(3, le32(24) + le32(flags) + le64(address) + le64(size))
  }
  func regionInfo(_ region: UInt32, room: UInt32 = 32) throws -> RawReply {
    try ask(5, le32(room) + le32(0) + le32(region) + le32(0) + le64(0) + le64(0))
  }
  func interruptInfo(_ index: UInt32) throws -> RawReply { try ask(7, le32(16) + le32(0) + le32(index) + le32(0)) }
  func setInterrupts(
    _ flags: UInt32, _ index: UInt32, _ start: UInt32, _ count: UInt32, data: [UInt8] = [], _ events: [Int32] = []
  ) throws -> RawReply {
    try ask(8, le32(20 + UInt32(data.count)) + le32(flags) + le32(index) + le32(start) + le32(count) + data, events)
  }
  func read(_ region: UInt32, _ offset: UInt64, _ count: UInt32) throws -> RawReply {
    try ask(9, le64(offset) + le32(region) + le32(count))
  }
  func write(_ region: UInt32, _ offset: UInt64, _ bytes: [UInt8]) throws -> RawReply {
    try ask(10, le64(offset) + le32(region) + le32(UInt32(bytes.count)) + bytes)
  }

  func register(_ offset: UInt64) throws -> UInt32 {
    let reply = try read(0, offset, 4)
    try #require(reply.payload.count == 20)
    return reply.field32(16)
  }
  func setRegister(_ offset: UInt64, _ value: UInt32) throws {
    let reply = try write(0, offset, le32(value))
    try #require(!reply.isError && reply.payload.count == 16)
  }
  func setBusMaster() throws { _ = try write(7, 4, le16(6)) }
}
