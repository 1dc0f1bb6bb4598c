// Bytes on their way to a file or a pipe.

internal import CRingway
internal import Glibc
internal import Platform
internal import SystemPackage

/// A buffer in front of a descriptor. Little endian. Its memory is made once.
///
/// What is appended must fit: callers ask `reserve` first.
@safe struct CaptureOutput: ~Copyable {
  private let descriptor: OwnedDescriptor
  let path: String
  private let buffer: UnsafeMutableRawPointer
  let capacity: Int
  private(set) var used = 0
  /// A write failed: the file may end in the middle of a block, nothing is added to it.
  private(set) var failure: CaptureError?

  /// - Parameter capacity: bytes; at least the largest reservation.
  init(_ descriptor: consuming OwnedDescriptor, path: String, capacity: Int) {
    self.descriptor = descriptor
    self.path = path
    self.capacity = capacity
    unsafe buffer = .allocate(byteCount: capacity, alignment: 16)
  }

  deinit { unsafe buffer.deallocate() }

  /// Makes room for `count` bytes, writing out what is there when necessary.
  @inline(__always) mutating func reserve(_ count: Int) throws(CaptureError) {
    if capacity - used < count { try flush() }
  }

  /// Writes everything out.
  mutating func flush() throws(CaptureError) {
    if let failure { throw failure }
    var done = 0
    while done < used {
      // SAFETY: [done, used) lies inside the buffer.
      let count = unsafe write(descriptor.raw, buffer + done, used - done)
      if count > 0 {
        done += count
        continue
      }
      let errno = Errno(rawValue: rw_errno())
      if errno == .interrupted { continue }
      if errno == .wouldBlock {
        waitUntilWritable()
        continue
      }
      let error = CaptureError(writing: path, count == 0 ? .ioError : errno)
      failure = error
      throw error
    }
    used = 0
  }

  /// A pipe that somebody else made non-blocking.
  private func waitUntilWritable() {
    var watched = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
    // SAFETY: one local structure; a failed or interrupted wait only means that the write is tried again.
    _ = unsafe poll(&watched, 1, 1000)
  }

  // SAFETY of the appends: the caller reserved the bytes.
  @inline(__always) mutating func append16(_ value: UInt16) {
    unsafe buffer.storeBytes(of: value.littleEndian, toByteOffset: used, as: UInt16.self)
    used &+= 2
  }

  @inline(__always) mutating func append32(_ value: UInt32) {
    unsafe buffer.storeBytes(of: value.littleEndian, toByteOffset: used, as: UInt32.self)
    used &+= 4
  }

  /// A 64-bit time stamp: the high half comes first (pcapng, section 4.3).
  @inline(__always) mutating func appendTime(_ value: UInt64) {
    append32(UInt32(truncatingIfNeeded: value >> 32))
    append32(UInt32(truncatingIfNeeded: value))
  }

  /// `count` bytes and the zeros that fill them up to a multiple of four.
  @inline(__always) mutating func appendPadded(_ bytes: UnsafeRawBufferPointer) {
    if let start = bytes.baseAddress { unsafe (buffer + used).copyMemory(from: start, byteCount: bytes.count) }
    used &+= bytes.count
    while used & 3 != 0 {
      unsafe buffer.storeBytes(of: 0, toByteOffset: used, as: UInt8.self)
      used &+= 1
    }
  }
}
