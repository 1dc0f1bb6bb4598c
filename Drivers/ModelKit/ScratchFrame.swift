// A frame that is being put together.

/// A buffer for one frame, used again and again: filled from the driver's memory, changed in place,
/// and looked at as bytes. Never grows, never allocates after `init`.
///
///     | headroom | frame ... | free |
///                ^ start
@safe public final class ScratchFrame {
  private let base: UnsafeMutableRawPointer
  private let size: Int
  /// Room for tags in front of the frame.
  private static let headroom = 64
  private var start = ScratchFrame.headroom
  /// Bytes of the frame.
  public private(set) var count = 0
  /// Something did not fit since `removeAll`; the frame is not whole.
  public private(set) var isOverflown = false

  /// - Parameter capacity: bytes of frame. The default holds what 82599's transmit segmentation takes:
  ///   256 KiB of payload and headers.
  public init(capacity: Int = 256 * 1024 + 1024) {
    size = ScratchFrame.headroom + max(capacity, 64)
    unsafe base = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: size)
  }

  // SAFETY: this object's own memory.
  deinit { unsafe base.deallocate() }

  public var capacity: Int { size - ScratchFrame.headroom }
  public var isEmpty: Bool { count == 0 }

  /// The frame, until the next change.
  public var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: base + start, count: count) }
  /// The frame, to be changed in place, until the next change by other means.
  public var mutableBytes: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: base + start, count: count)
  }

  public func removeAll() {
    start = ScratchFrame.headroom
    count = 0
    isOverflown = false
  }

  private func room(_ wanted: Int) -> UnsafeMutableRawBufferPointer? {
    guard wanted >= 0, wanted <= size - start - count else {
      isOverflown = true
      return nil
    }
    // SAFETY: inside the buffer, as just checked.
    return unsafe UnsafeMutableRawBufferPointer(start: base + start + count, count: wanted)
  }

  /// Adds `count` bytes from a bus address; false on a DMA error or when they do not fit.
  public func append(_ memory: ModelMemory, _ address: UInt64, count wanted: Int) -> Bool {
    guard let target = unsafe room(wanted), unsafe memory.read(address, into: target) else { return false }
    count += wanted
    return true
  }

  @discardableResult public func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let target = unsafe room(bytes.count) else { return false }
    unsafe target.copyMemory(from: bytes)
    count += bytes.count
    return true
  }

  @discardableResult public func append(_ bytes: [UInt8]) -> Bool { unsafe bytes.withUnsafeBytes { unsafe append($0) } }

  /// Adds zeros up to `length` bytes in all.
  public func pad(to length: Int) {
    guard length > count, let target = unsafe room(length - count) else { return }
    unsafe target.initializeMemory(as: UInt8.self, repeating: 0)
    count = length
  }

  /// Cuts the frame to `length` bytes.
  public func truncate(to length: Int) { count = min(count, max(0, length)) }

  /// Puts a tag behind the addresses; false when the frame is too short or has no room for it.
  @discardableResult public func insertTag(_ tag: UInt16, type: UInt16 = 0x8100) -> Bool {
    guard count >= 12, start >= 4, count + 4 <= capacity else { return false }
    // SAFETY: four bytes of headroom are there.
    unsafe (base + start - 4).copyMemory(from: base + start, byteCount: 12)
    start -= 4
    count += 4
    unsafe mutableBytes.setBig16(type, 12)
    unsafe mutableBytes.setBig16(tag, 14)
    return true
  }

  /// Takes the outermost tag out and gives its control information; nil, and no change, without one.
  /// - Parameter type: the type that counts as a tag's; nil for any that is known.
  public func stripTag(type: UInt16? = 0x8100) -> UInt16? {
    let found = unsafe bytes.big16(12)
    guard count >= 18, type.map({ $0 == found }) ?? FrameParser.isTag(found) else { return nil }
    let tag = unsafe bytes.big16(14)
    // SAFETY: inside the frame; the 12 bytes move on by four, which memmove allows.
    unsafe (base + start + 4).copyMemory(from: base + start, byteCount: 12)
    start += 4
    count -= 4
    return tag
  }
}
