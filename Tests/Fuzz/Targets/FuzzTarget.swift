// Fuzz targets: what does not trust its other side, in front of one that lies.
//
//     bytes ──> a program of steps ──┬─> driver: receive, send, tick, filters, stop, start
//                                    ├─> time, link, frames on the wire
//                                    └─> lies: registers that read wrong, memory scribbled over,
//                                        faults of the model, interrupts for nothing
//
// The bytes are libFuzzer's, so it finds the steps that reach new code; a file of them replays a run
// exactly. After each run the account is drawn up: every buffer back in its pool once, nothing
// mapped, no DMA allowed, counters that agree. A trap is a finding too, and the process tells.
//
// The rules for an input: each step is an opcode byte and its arguments; past the end everything
// reads zero, and the run is over.

/// What is fuzzed.
public enum FuzzTarget: String, CaseIterable, Sendable {
  case e1000e, ixgbe
  case virtioNet = "virtio-net"
  case server
  /// ARP, IPv4 and IPv6 in front of a network that sends anything.
  case stack
  /// The control socket's bytes.
  case control
  /// netmap's ports in front of a program that writes anything into its rings.
  case netmap
  /// netmap's requests and messages as bytes.
  case netmapRequests = "netmap-requests"

  /// Runs one input.
  /// - Returns: what did not hold; empty when all did.
  public func run(_ bytes: [UInt8]) -> [String] {
    var input = FuzzInput(bytes)
    switch self {
    case .e1000e, .ixgbe, .virtioNet: return DriverRun.run(self, &input)
    case .server: return ServerRun.run(&input)
    case .stack: return StackRun.run(&input)
    case .control: return ControlReads.run(&input)
    case .netmap: return NetmapRun.run(&input)
    case .netmapRequests: return NetmapRequests.run(&input)
    }
  }
}

/// The bytes of a run, taken from the front.
struct FuzzInput {
  private let bytes: [UInt8]
  private var at = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isAtEnd: Bool { at >= bytes.count }

  mutating func byte() -> UInt8 {
    guard at < bytes.count else { return 0 }
    defer { at += 1 }
    return bytes[at]
  }
  mutating func word16() -> UInt16 { UInt16(byte()) | UInt16(byte()) << 8 }
  mutating func word32() -> UInt32 { UInt32(word16()) | UInt32(word16()) << 16 }
  mutating func word64() -> UInt64 { UInt64(word32()) | UInt64(word32()) << 32 }
  /// Below `limit`, from one byte or two.
  mutating func below(_ limit: Int) -> Int { limit <= 0 ? 0 : Int(limit <= 256 ? UInt16(byte()) : word16()) % limit }
  mutating func flag() -> Bool { byte() & 1 != 0 }
  mutating func take(_ count: Int) -> [UInt8] {
    let end = min(bytes.count, at + max(0, count))
    defer { at = end }
    return Array(bytes[at..<end])
  }
}
