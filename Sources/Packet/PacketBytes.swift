// Reading and writing a frame's bytes. Every access is checked against the lengths in the record.

extension Packet {
  /// The bytes in the first buffer. Frames longer than one buffer have more: see `copyBytes`.
  @inlinable @inline(__always)
  public func withBytes<R: ~Copyable, E: Error>(_ body: (UnsafeMutableRawBufferPointer) throws(E) -> R) throws(E) -> R {
    // SAFETY: drivers and `setCount` keep offset + length inside the buffer.
    let record = unsafe raw
    return try unsafe body(
      UnsafeMutableRawBufferPointer(
        start: record.pointee.buffer + Int(record.pointee.offset), count: Int(record.pointee.length)))
  }

  /// Byte `i` of the first buffer; nil when there is none.
  @inlinable @inline(__always) public func byte(at i: Int) -> UInt8? {
    guard i >= 0, i < firstCount else { return nil }
    return unsafe raw.pointee.buffer.load(fromByteOffset: Int(raw.pointee.offset) &+ i, as: UInt8.self)
  }

  /// Changes byte `i` of the first buffer. Returns false, and does nothing, when there is none.
  @inlinable @inline(__always) @discardableResult
  public func setByte(_ value: UInt8, at i: Int) -> Bool {
    guard i >= 0, i < firstCount else { return false }
    unsafe raw.pointee.buffer.storeBytes(of: value, toByteOffset: Int(raw.pointee.offset) &+ i, as: UInt8.self)
    return true
  }

  /// How many buffers the frame has.
  public var segmentCount: Int {
    var n = 1
    var at = unsafe raw.pointee.next
    while let segment = unsafe at {
      n += 1
      unsafe at = segment.pointee.next
    }
    return n
  }

  /// Copies up to `target.count` bytes of the frame, from all its buffers.
  /// - Returns: how many were copied.
  @discardableResult
  public func copyBytes(to target: UnsafeMutableRawBufferPointer) -> Int {
    var done = 0
    var at: RawPacket? = unsafe raw
    while let segment = unsafe at, done < target.count, let start = target.baseAddress {
      let n = unsafe min(Int(segment.pointee.length), target.count - done)
      unsafe (start + done).copyMemory(from: segment.pointee.buffer + Int(segment.pointee.offset), byteCount: n)
      done += n
      unsafe at = segment.pointee.next
    }
    return done
  }

  /// The frame's bytes as an array: for control paths and tests.
  public func bytes() -> [UInt8] {
    unsafe [UInt8](unsafeUninitializedCapacity: count) { target, n in
      unsafe n = copyBytes(to: UnsafeMutableRawBufferPointer(target))
    }
  }

  /// How many bytes one buffer of this frame's pool holds.
  @inlinable public var bufferCapacity: Int { unsafe raw.pointee.pool.pointee.bufferSize }

  /// Makes the frame one buffer with `count` bytes from the start of the buffer, contents as they are.
  /// - Returns: false, with nothing changed, when they do not fit or the frame has several buffers.
  @discardableResult
  public func setCount(_ count: Int) -> Bool {
    guard count >= 0, count <= bufferCapacity, count <= UInt16.max, unsafe raw.pointee.next == nil else { return false }
    unsafe raw.pointee.setSingle(length: UInt16(count), offset: 0)
    return true
  }

  /// Fills the frame with a copy of `bytes`, in one buffer.
  /// - Returns: false, with nothing changed, when they do not fit.
  @discardableResult
  public func fill(with bytes: [UInt8]) -> Bool {
    guard setCount(bytes.count) else { return false }
    unsafe bytes.withUnsafeBytes { source in
      unsafe withBytes { target in unsafe target.copyMemory(from: source) }
    }
    return true
  }

  /// Appends a packet's buffers behind this one's: one frame over several buffers.
  public func append(_ other: consuming Packet) {
    let tail = unsafe other.intoRaw()
    unsafe raw.pointee.frameLength &+= tail.pointee.frameLength
    var last = unsafe raw
    while let next = unsafe last.pointee.next { unsafe last = next }
    unsafe last.pointee.next = tail
  }
}
