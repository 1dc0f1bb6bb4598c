// Capture files as wires, and wires as capture files.

/// Frames of a capture file arrive; frames that the card sends are written to another.
public final class PcapWire: ModelWire {
  public enum Speed: Sendable {
    /// One after the other as fast as they are taken.
    case fast
    /// With the file's own distances, counted from the first `receive`.
    case real
  }

  private let input: CaptureReader?
  private let output: CaptureWriter?
  private let speed: Speed
  private var next: CapturedFrame?
  private var first: UInt64 = 0
  private var start: UInt64?
  /// Frames that arrived at the card; frames that the card sent.
  public private(set) var received = 0
  public private(set) var sent = 0
  /// Frames that arrived although the file holds only their beginning.
  public private(set) var cut = 0
  /// Frames of less than a header, which no wire carries.
  public private(set) var skipped = 0
  /// Where the input turned out not to be readable further; frames before that have arrived.
  public private(set) var failure: WireError?

  /// - Parameters:
  ///   - input: frames that arrive; nil for none.
  ///   - output: the file for frames that the card sends; nil lets them go.
  public init(input: String?, output: String? = nil, speed: Speed = .fast) throws(WireError) {
    self.input = if let input { try CaptureReader(path: input) } else { nil }
    self.output = if let output { try CaptureWriter(path: output) } else { nil }
    self.speed = speed
    fetch()
    first = next?.time ?? 0
  }

  private func fetch() {
    next = nil
    guard failure == nil, let input else { return }
    do throws(WireError) {
      while let frame = try input.next() {
        if frame.bytes.count >= 14 {
          next = frame
          return
        }
        skipped += 1
      }
    } catch { failure = error }
  }

  private func due(_ frame: CapturedFrame) -> UInt64 {
    speed == .real ? (start ?? 0) &+ (frame.time > first ? frame.time - first : 0) : 0
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    if start == nil { start = now }
    guard let frame = next, due(frame) <= now else { return false }
    received += 1
    if frame.originalLength > frame.bytes.count { cut += 1 }
    fetch()
    unsafe frame.bytes.withUnsafeBytes { unsafe body($0, []) }
    return true
  }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    sent += 1
    unsafe output?.add(frame, at: now)
  }

  public var nextArrival: UInt64? { next.map(due) }
  /// Writes what is buffered of the output.
  public func flush() { output?.flush() }
  /// Whether a frame of the file has not yet arrived.
  public var isOver: Bool { next == nil }
}

/// Another wire whose frames are also written to a capture file, as the card saw them.
public final class RecordingWire: ModelWire {
  public let inner: any ModelWire
  public let writer: CaptureWriter

  public init(_ inner: any ModelWire, to writer: CaptureWriter) {
    self.inner = inner
    self.writer = writer
  }

  public var isUp: Bool { inner.isUp }
  public var nextArrival: UInt64? { inner.nextArrival }
  public var descriptor: Int32 { inner.descriptor }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    unsafe writer.add(frame, at: now)
    unsafe inner.transmit(frame, queue: queue, at: now)
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    unsafe inner.receive(at: now) { frame, marks in
      unsafe writer.add(frame, at: now)
      unsafe body(frame, marks)
    }
  }
}
