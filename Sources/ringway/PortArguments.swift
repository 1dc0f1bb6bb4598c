// Options that every command which opens cards has.

import ArgumentParser
import DriverKit
import Ringway
import Wire

/// One card: `ADDRESS`, or `--device ADDRESS`.
struct DeviceArgument: ParsableArguments {
  @Argument(help: "The card's PCI address (0000:03:00.0 or 03:00.0), vfio-user:SOCKET, or a netmap port of the daemon's (netmap:ix0, vale0:a).")
  var address: String?
  @Option(help: ArgumentHelp("The same, as an option.", valueName: "address"))
  var device: String?

  func validate() throws {
    if (address == nil) == (device == nil) { throw ValidationError("Name one card by its PCI address or as vfio-user:SOCKET, or a netmap port as netmap:NAME.") }
  }

  var name: String { address ?? device ?? "" }
}

struct MemoryArguments: ParsableArguments {
  @Flag(name: .customLong("no-huge"), help: "Use normal pages: no hugepages are needed.")
  var noHuge = false
  @Option(help: "Where hugepages come from: memfd or hugetlbfs.")
  var memoryBacking = HugeBacking.memfd
  @Option(help: ArgumentHelp("Bytes a hugepage: 2M, 1G (default: 2M).", valueName: "size"), transform: { try Amount.bytes($0) })
  var hugepageSize: Int?
  @Option(help: ArgumentHelp("Packet buffers of 2048 bytes, for all cards together (default: 16384, or what the rings need).", valueName: "count"))
  var buffers: Int?

  func validate() throws {
    guard (512...4_194_304).contains(buffers ?? 512) else { throw ValidationError("--buffers takes 512 to 4194304.") }
  }

  /// Memory for `cards` ports with these options.
  func options(for cards: Int, _ port: PortOptions) -> MemoryOptions {
    var options = MemoryOptions()
    options.kind = noHuge ? .normal : memoryBacking == .memfd ? .memfd : .hugetlbfs
    options.hugepageSize = hugepageSize
    // Two buffers belong to nobody.
    options.buffers = buffers ?? max(16384, cards * Port.buffers(for: port) + 2)
    return options
  }
}

enum HugeBacking: String, ExpressibleByArgument, CaseIterable { case memfd, hugetlbfs }

struct PortArguments: ParsableArguments {
  @Option(help: ArgumentHelp("Descriptors in each ring: a power of two from 64 to 4096.", valueName: "count"))
  var ringSize = 512
  @Option(help: ArgumentHelp("Largest payload of a frame in bytes, without the 14-byte header.", valueName: "bytes"))
  var mtu = 1500
  @Option(help: ArgumentHelp("Queue pairs.", valueName: "count"))
  var queues = 1
  @Option(help: "When to sleep: poll, interrupt or adaptive.")
  var mode = Mode.adaptive
  @Option(help: ArgumentHelp("In adaptive mode, microseconds without a packet before sleeping.", valueName: "us"))
  var idle = 50
  @Flag(
    name: .customLong("allow-unsupported-sfp"),
    help: "Use pluggable modules that the card's maker has not approved (82599).")
  var allowUnsupportedSFP = false

  enum Mode: String, ExpressibleByArgument, CaseIterable { case poll, interrupt, adaptive }

  func validate() throws {
    guard (64...4096).contains(ringSize), ringSize & (ringSize - 1) == 0 else {
      throw ValidationError("--ring-size takes a power of two from 64 to 4096.")
    }
    guard (68...65521).contains(mtu) else { throw ValidationError("--mtu takes 68 to 65521.") }
    guard (1...16).contains(queues) else { throw ValidationError("--queues takes 1 to 16.") }
    guard (0...1_000_000).contains(idle) else { throw ValidationError("--idle takes 0 to 1000000.") }
  }

  var options: PortOptions {
    var options = PortOptions()
    options.queues = queues
    options.receiveDescriptors = ringSize
    options.transmitDescriptors = ringSize
    options.mtu = mtu
    options.allowUnsupportedSFP = allowUnsupportedSFP
    return options
  }

  var wait: WaitMode {
    switch mode {
    case .poll: .poll
    case .interrupt: .interrupt
    case .adaptive: .adaptive(idleMicroseconds: idle)
    }
  }
}

/// `--duration`, for commands that otherwise run until Ctrl-C.
struct DurationArgument: ParsableArguments {
  @Option(
    name: [.long, .customLong("seconds")], help: ArgumentHelp("Stop after this time: 10, 90s, 5m.", valueName: "time"),
    transform: { try Amount.seconds($0) })
  var duration: Double?

  /// Nanoseconds.
  var limit: UInt64? { duration.map { UInt64($0 * 1e9) } }
}

/// Numbers as people write them.
enum Amount {
  /// "64", "10k", "1.5M", "2G", with "pps" behind them or not. Decimal units.
  static func rate(_ text: String) throws -> UInt64 {
    let number = text.hasSuffix("pps") ? text.dropLast(3) : text[...]
    guard let value = scaled(number, units: ["k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9]), value >= 1, value <= 1e10 else {
      throw ValidationError("\"\(text)\" is no rate. Write packets a second: 5000, 10k, 1.5M.")
    }
    return UInt64(value.rounded())
  }

  /// "1000", "10k", "1M". Decimal units.
  static func count(_ text: String) throws -> UInt64 {
    if let whole = UInt64(text) { return whole }
    guard let value = scaled(text[...], units: ["k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9]), value < 1e18 else {
      throw ValidationError("\"\(text)\" is no count. Write 1000, 10k or 1M.")
    }
    return UInt64(value.rounded())
  }

  /// "4096", "64K", "2M", "1G". Binary units.
  static func bytes(_ text: String) throws -> Int {
    guard let value = scaled(text[...], units: ["k": 1024, "K": 1024, "M": 1_048_576, "G": 1_073_741_824]), value >= 1, value < 1e15
    else { throw ValidationError("\"\(text)\" is no size. Write 65536, 64K, 2M or 1G.") }
    return Int(value)
  }

  /// "10", "2.5", "90s", "5m", "1h", "500ms".
  static func seconds(_ text: String) throws -> Double {
    let millis = text.hasSuffix("ms")
    let value = millis ? scaled(text.dropLast(2), units: [:]).map { $0 / 1000 } : scaled(text[...], units: ["s": 1, "m": 60, "h": 3600])
    guard let value, value >= 0, value <= 1e9 else {
      throw ValidationError("\"\(text)\" is no time. Write 10, 500ms, 90s, 5m or 1h.")
    }
    return value
  }

  private static func scaled(_ text: Substring, units: [Character: Double]) -> Double? {
    guard let last = text.last else { return nil }
    let unit = units[last]
    let digits = unit == nil ? text : text.dropLast()
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == ".") }), let value = Double(digits) else { return nil }
    return value * (unit ?? 1)
  }
}

extension MACAddress {
  /// For options that take a MAC address.
  static func parse(_ text: String) throws -> MACAddress {
    guard let address = MACAddress(text) else {
      throw ValidationError("\"\(text)\" is no MAC address. Write it as 52:54:00:12:34:56.")
    }
    return address
  }
}
