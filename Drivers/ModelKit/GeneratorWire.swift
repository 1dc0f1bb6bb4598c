// Traffic out of nothing: numbered frames at a rate.

public import Wire

/// The frames of generators, so that whoever receives them can tell which are missing, doubled or
/// damaged. The layout is that of `ringway pktgen`, which can therefore judge them too:
///
///     14  IPv4, 198.18.0.1 to 198.19.0.1
///     34  UDP, port 9000 + flow to port 9, with a checksum
///     42  0x5257 | run, 16 bits | sequence, 48 bits | time, 64 bits
///     60  byte i of the frame is 31 i + 7
public struct NumberedFrame: Equatable, Sendable {
  public static let minimumSize = 60
  public static let maximumSize = 14 + 65535

  public var run: UInt16
  public var flow: Int
  public var sequence: UInt64
  /// Nanoseconds on the sender's clock.
  public var time: UInt64

  public init(run: UInt16, flow: Int, sequence: UInt64, time: UInt64 = 0) {
    self.run = run
    self.flow = flow
    self.sequence = sequence
    self.time = time
  }

  /// Fills all of `frame` (60 bytes and more).
  public func write(_ frame: UnsafeMutableRawBufferPointer, to destination: MACAddress, from source: MACAddress) {
    for (at, value) in [(0, destination.rawValue >> 32), (2, destination.rawValue >> 16), (4, destination.rawValue),
      (6, source.rawValue >> 32), (8, source.rawValue >> 16), (10, source.rawValue)]
    { unsafe frame.setBig16(UInt16(truncatingIfNeeded: value), at) }
    unsafe frame.setBig16(0x0800, 12)
    unsafe frame.setBig32(0x4500_0000 | UInt32(truncatingIfNeeded: frame.count - 14), 14)
    unsafe frame.setBig32(0x0000_4000, 18)
    unsafe frame.setBig32(0x4011_0000, 22)
    unsafe frame.setBig32(0xc612_0001, 26)
    unsafe frame.setBig32(0xc613_0001, 30)
    unsafe FrameChecksum.insertIPv4Header(frame, at: 14)
    unsafe frame.setBig16(UInt16(truncatingIfNeeded: 9000 + flow), 34)
    unsafe frame.setBig16(9, 36)
    unsafe frame.setBig32(UInt32(truncatingIfNeeded: frame.count - 34) << 16, 38)
    unsafe frame.setBig32(0x5257_0000 | UInt32(run), 42)
    unsafe frame.setBig16(UInt16(truncatingIfNeeded: sequence >> 32), 46)
    unsafe frame.setBig32(UInt32(truncatingIfNeeded: sequence), 48)
    unsafe frame.setBig32(UInt32(truncatingIfNeeded: time >> 32), 52)
    unsafe frame.setBig32(UInt32(truncatingIfNeeded: time), 56)
    for at in NumberedFrame.minimumSize..<max(NumberedFrame.minimumSize, frame.count) {
      unsafe frame.setByte(UInt8(truncatingIfNeeded: at &* 31 &+ 7), at)
    }
    unsafe FrameChecksum.insertTransport(frame, ParsedHeaders(UnsafeRawBufferPointer(frame)))
  }

  /// A whole frame of `size` bytes (at least 60).
  public func bytes(
    size: Int, to destination: MACAddress = .broadcast, from source: MACAddress = GeneratorSettings.station
  ) -> [UInt8] {
    var frame = [UInt8](repeating: 0, count: min(max(size, Self.minimumSize), Self.maximumSize))
    unsafe frame.withUnsafeMutableBytes { unsafe write($0, to: destination, from: source) }
    return frame
  }

  /// What a frame says, and whether its checksums are right; nil for frames of others. A VLAN tag
  /// does not matter.
  public static func read(_ frame: UnsafeRawBufferPointer) -> (NumberedFrame, isWhole: Bool)? {
    let headers = unsafe ParsedHeaders(frame), at = headers.payloadOffset
    guard headers.isIPv4, headers.isUDP, headers.payloadLength >= 18, unsafe frame.big16(at) == 0x5257 else { return nil }
    let sequence = UInt64(unsafe frame.big16(at + 4)) << 32 | UInt64(unsafe frame.big32(at + 6))
    let time = UInt64(unsafe frame.big32(at + 10)) << 32 | UInt64(unsafe frame.big32(at + 14))
    let flow = Int(unsafe frame.big16(headers.transportOffset)) - 9000
    let isWhole = unsafe FrameChecksum.transportIsRight(frame, headers) == true
      && FrameChecksum.ipv4HeaderIsRight(frame, headers) == true
    return (NumberedFrame(run: unsafe frame.big16(at + 2), flow: flow, sequence: sequence, time: time), isWhole)
  }
}

/// What a generator sends.
public struct GeneratorSettings: Equatable, Sendable {
  /// The generator's own address, unless told otherwise.
  public static let station = MACAddress(0x02, 0x52, 0x57, 0, 0, 0xfe)

  /// Frames a second; 0: as fast as they are taken.
  public var rate: UInt64 = 0
  /// Bytes without the check sequence, 60 to 65549; each frame's is drawn from these by the seed.
  public var sizes: ClosedRange<Int> = 60...60
  /// UDP source ports, one frame each in turn: 1 to 50000.
  public var flows = 1
  /// Frames in all; nil: no end.
  public var count: UInt64?
  public var seed: UInt64 = 1
  public var destination = MACAddress.broadcast
  public var source = GeneratorSettings.station

  public init() {}
}

/// A station that sends numbered frames, and checks those that come back.
///
/// The clock starts with the first `receive`; frame n arrives n / rate seconds later. Frames that the
/// card did not fetch in time wait.
@safe public final class GeneratorWire: ModelWire {
  public let settings: GeneratorSettings
  private let buffer: UnsafeMutableRawBufferPointer
  private var random: SeededGenerator
  private var start: UInt64?
  /// Frames that have arrived at the card.
  public private(set) var sent: UInt64 = 0
  /// Frames that the card sent, and their bytes.
  public private(set) var returned = 0
  public private(set) var returnedBytes = 0
  /// Of these: numbered frames with a wrong checksum; numbered frames behind a later one of the same flow.
  public private(set) var damaged = 0
  public private(set) var outOfOrder = 0
  private var nextOfFlow: [UInt64]

  public init(_ settings: GeneratorSettings) {
    var checked = settings
    let low = min(max(settings.sizes.lowerBound, NumberedFrame.minimumSize), NumberedFrame.maximumSize)
    checked.sizes = low...min(max(settings.sizes.upperBound, low), NumberedFrame.maximumSize)
    checked.flows = min(max(settings.flows, 1), 50_000)
    self.settings = checked
    random = SeededGenerator(seed: settings.seed)
    nextOfFlow = [UInt64](repeating: 0, count: checked.flows)
    unsafe buffer = .allocate(byteCount: checked.sizes.upperBound, alignment: 64)
  }

  // SAFETY: this object's own memory.
  deinit { unsafe buffer.deallocate() }

  private var isOver: Bool { settings.count.map { sent >= $0 } ?? false }

  /// When the next frame is due, counted from the first.
  private var due: UInt64 {
    guard settings.rate > 0 else { return 0 }
    let rest = (sent % settings.rate).multipliedFullWidth(by: 1_000_000_000)
    return sent / settings.rate &* 1_000_000_000 &+ settings.rate.dividingFullWidth(rest).quotient
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    let began = start ?? now
    start = began
    guard !isOver, now &- began >= due else { return false }
    let size = settings.sizes.count == 1 ? settings.sizes.lowerBound : Int.random(in: settings.sizes, using: &random)
    // SAFETY: sizes are at most the buffer's.
    let frame = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[0..<size])
    let number = NumberedFrame(
      run: UInt16(truncatingIfNeeded: settings.seed), flow: Int(sent % UInt64(settings.flows)), sequence: sent, time: now)
    unsafe number.write(frame, to: settings.destination, from: settings.source)
    sent += 1
    unsafe body(UnsafeRawBufferPointer(frame), [])
    return true
  }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    returned += 1
    returnedBytes += frame.count
    guard let (number, isWhole) = unsafe NumberedFrame.read(frame) else { return }
    if !isWhole { damaged += 1 }
    guard isWhole, number.flow >= 0, number.flow < nextOfFlow.count else { return }
    if number.sequence < nextOfFlow[number.flow] {
      outOfOrder += 1
    } else {
      nextOfFlow[number.flow] = number.sequence + 1
    }
  }

  public var nextArrival: UInt64? { isOver ? nil : (start ?? 0) &+ due }
}
