// What a model's cable leads to.

/// What the wire did to a frame.
public struct WireMarks: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// The frame check sequence is wrong: a card drops it and counts a CRC error.
  public static let badCheckSequence = WireMarks(rawValue: 1)
}

/// The far end of a model's cable: another model, a TAP, a file, a generator, or a wrapper around one
/// of these. Frames are Ethernet without the check sequence, 14 bytes and more.
///
/// All calls come from the model's thread.
public protocol ModelWire: AnyObject {
  /// Whether there is somebody at the other end.
  var isUp: Bool { get }
  /// A frame leaves the card. The bytes are the caller's and valid during the call only.
  /// - Parameters:
  ///   - queue: the transmit queue that it came from.
  ///   - now: nanoseconds, as in `ModelBus.now`.
  func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64)
  /// Gives the next frame that has arrived by `now` to `body`, whose pointer is valid during the call
  /// only. False when none waits. A card with no buffer for it drops it and counts that.
  func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool
  /// When the next frame arrives, as far as that is known; nil when it is not.
  var nextArrival: UInt64? { get }
  /// Becomes readable when frames arrive; -1 for wires of this process.
  var descriptor: Int32 { get }
}

extension ModelWire {
  public var isUp: Bool { true }
  public var nextArrival: UInt64? { nil }
  public var descriptor: Int32 { -1 }
}

/// A wire in a test's hands: what was sent is kept, what is to arrive is put in.
public final class TestWire: ModelWire {
  /// A frame that left the card, and from which queue.
  public struct Sent: Equatable, Sendable {
    public let bytes: [UInt8]
    public let queue: Int
    public init(bytes: [UInt8], queue: Int) {
      self.bytes = bytes
      self.queue = queue
    }
  }

  /// Oldest first.
  public var sent: [Sent] = []
  public private(set) var arriving: [(bytes: [UInt8], marks: WireMarks)] = []
  private var next = 0

  public init() {}

  /// Lets a frame arrive.
  public func send(_ frame: [UInt8], marks: WireMarks = []) { arriving.append((frame, marks)) }
  /// Frames that have not been taken by the card.
  public var waiting: Int { arriving.count - next }

  /// Frames sent since the last call.
  public func takeSent() -> [Sent] {
    defer { sent = [] }
    return sent
  }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    sent.append(Sent(bytes: unsafe [UInt8](frame), queue: queue))
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    guard next < arriving.count else { return false }
    let frame = arriving[next]
    next += 1
    if next == arriving.count {
      arriving = []
      next = 0
    }
    unsafe frame.bytes.withUnsafeBytes { unsafe body($0, frame.marks) }
    return true
  }

  public var nextArrival: UInt64? { next < arriving.count ? 0 : nil }
}
