// Wires as a command line names them.

internal import Wire

/// A wire in words: what it is, before it is opened.
///
///     null                                        a cable that leads nowhere
///     tap:NAME[,netns=NAME-OR-PATH]               a TAP interface of the kernel
///     pcap:[IN][,out=OUT][,speed=fast|real]       frames of a capture file; what the card sends to another
///     gen:[rate=R][,size=N[-M]][,flows=N][,count=N][,seed=N][,to=MAC][,from=MAC]    numbered frames
///     pair:NAME                                   the two wires of one NAME are the ends of one cable
///     dgram:LOCAL,to=REMOTE                       a socket pair, as QEMU's -netdev dgram speaks
///
/// Each also takes `record=FILE`: everything that crosses is written to a pcap file.
public struct WireSpec: Equatable, Sendable {
  public enum Kind: Equatable, Sendable {
    case null
    case tap(name: String, namespace: String?)
    case pcap(input: String?, output: String?, speed: PcapWire.Speed)
    case generator(GeneratorSettings)
    case pair(String)
    case datagram(local: String, remote: String)
  }

  public var kind: Kind
  public var recording: String?

  public init(_ kind: Kind, recording: String? = nil) {
    self.kind = kind
    self.recording = recording
  }

  static let example = "tap:rw0,netns=lab or pcap:in.pcap,out=out.pcap or gen:rate=1M,size=64 or null"

  public init(parsing text: String) throws(WireError) {
    var fields = Fields(text)
    recording = fields.take("record")
    switch fields.kind {
    case "null", "none": kind = .null
    case "tap":
      guard let name = fields.first, !name.isEmpty else { throw fields.wrong("a TAP wants a name", example: "tap:rw0") }
      kind = .tap(name: name, namespace: fields.take("netns"))
    case "pcap":
      let output = fields.take("out")
      guard fields.first?.isEmpty == false || output != nil else {
        throw fields.wrong("a file to read or out=FILE is missing", example: "pcap:in.pcap,out=out.pcap")
      }
      let speed = fields.take("speed") ?? "fast"
      guard speed == "fast" || speed == "real" else { throw fields.wrong("speed is fast or real", example: "pcap:in.pcap,speed=real") }
      kind = .pcap(input: fields.first, output: output, speed: speed == "real" ? .real : .fast)
    case "gen": kind = .generator(try fields.generator())
    case "pair":
      guard let name = fields.first, !name.isEmpty else { throw fields.wrong("a pair wants a name", example: "pair:a") }
      kind = .pair(name)
    case "dgram":
      guard let local = fields.first, let remote = fields.take("to"), !local.isEmpty, !remote.isEmpty else {
        throw fields.wrong("both sockets' paths are wanted", example: "dgram:/run/card.sock,to=/run/guest.sock")
      }
      kind = .datagram(local: local, remote: remote)
    default: throw fields.wrong("'\(fields.kind)' is none of null, tap, pcap, gen, pair, dgram", example: WireSpec.example)
    }
    try fields.finish()
  }

  /// `KIND:FIRST,KEY=VALUE,...` in pieces.
  private struct Fields {
    let text: String
    let kind: String
    var first: String?
    var rest: [(key: String, value: String)] = []
    var stray: String?

    init(_ text: String) {
      self.text = text
      let halves = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      var parts = halves.count > 1 ? halves[1].split(separator: ",", omittingEmptySubsequences: false).map(String.init) : []
      // "null,record=x" has no colon.
      let head = halves[0].split(separator: ",", omittingEmptySubsequences: false).map(String.init)
      kind = head[0]
      if head.count > 1 { parts = Array(head.dropFirst()) + parts }
      for (index, part) in parts.enumerated() {
        if let at = part.firstIndex(of: "=") {
          rest.append((String(part[..<at]), String(part[part.index(after: at)...])))
        } else if index == 0, head.count == 1 {
          first = part.isEmpty ? nil : part
        } else {
          stray = stray ?? part
        }
      }
    }

    func wrong(_ reason: String, example: String) -> WireError { .specification(text, wrong: reason, example: example) }

    mutating func take(_ key: String) -> String? {
      guard let index = rest.firstIndex(where: { $0.key == key }) else { return nil }
      return rest.remove(at: index).value
    }

    /// Whatever nobody took is a mistake.
    func finish() throws(WireError) {
      if let stray { throw wrong("'\(stray)' is no KEY=VALUE", example: WireSpec.example) }
      if let left = rest.first { throw wrong("'\(left.key)' is not known here, or given twice", example: WireSpec.example) }
      if kind == "null" || kind == "none" || kind == "gen", let first {
        throw wrong("'\(first)' is no KEY=VALUE", example: WireSpec.example)
      }
    }

    mutating func generator() throws(WireError) -> GeneratorSettings {
      var made = GeneratorSettings()
      let example = "gen:rate=1M,size=64,flows=8,count=1000,seed=1"
      func number(_ key: String, _ value: String, _ range: ClosedRange<UInt64>) throws(WireError) -> UInt64 {
        guard let found = WireAmount.count(value), range.contains(found) else {
          throw wrong("\(key) wants a number from \(range.lowerBound) to \(range.upperBound), not '\(value)'", example: example)
        }
        return found
      }
      func address(_ key: String, _ value: String) throws(WireError) -> MACAddress {
        guard let found = MACAddress(value) else { throw wrong("\(key) wants a MAC address, not '\(value)'", example: example) }
        return found
      }
      let sizeRange = UInt64(NumberedFrame.minimumSize)...UInt64(NumberedFrame.maximumSize)
      if let value = take("rate") { made.rate = try number("rate", value, 0...1_000_000_000) }
      if let value = take("flows") { made.flows = Int(try number("flows", value, 1...50_000)) }
      if let value = take("count") { made.count = try number("count", value, 0...UInt64(Int64.max)) }
      if let value = take("seed") { made.seed = try number("seed", value, 0...UInt64.max) }
      if let value = take("to") { made.destination = try address("to", value) }
      if let value = take("from") { made.source = try address("from", value) }
      if let value = take("size") {
        let ends = value.split(separator: "-", omittingEmptySubsequences: false).map(String.init)
        let low = Int(try number("size", ends[0], sizeRange)), high = Int(try number("size", ends[ends.count - 1], sizeRange))
        guard ends.count <= 2, low <= high else { throw wrong("size wants N or N-M, not '\(value)'", example: example) }
        made.sizes = low...high
      }
      return made
    }
  }
}

/// Opens wires, and keeps what several of them share.
public final class WireRoom {
  /// Ends of pairs whose other end was opened, by name; nil when both are taken.
  private var ends: [String: PairWire?] = [:]

  public init() {}

  /// Opens a wire, with faults around it when there are any, and a recording of what the card sees
  /// around that.
  /// - Parameter seed: for faults by probability and for damage.
  public func open(_ spec: WireSpec, faults: [WireFault] = [], seed: UInt64 = 1) throws(WireError) -> any ModelWire {
    var wire = try plain(spec)
    if !faults.isEmpty { wire = FaultyWire(wire, faults: faults, seed: seed) }
    if let path = spec.recording { wire = RecordingWire(wire, to: try CaptureWriter(path: path)) }
    return wire
  }

  private func plain(_ spec: WireSpec) throws(WireError) -> any ModelWire {
    switch spec.kind {
    case .null: return NullWire()
    case .tap(let name, let namespace): return try TapWire(name: name, namespace: namespace)
    case .pcap(let input, let output, let speed): return try PcapWire(input: input, output: output, speed: speed)
    case .generator(let settings): return GeneratorWire(settings)
    case .datagram(let local, let remote): return try DatagramWire(local: local, remote: remote)
    case .pair(let name):
      if let kept = ends[name] {
        guard let end = kept else {
          throw .specification("pair:\(name)", wrong: "both ends of this cable are taken", example: "pair:\(name)2")
        }
        ends[name] = .some(nil)
        return end
      }
      let (a, b) = PairWire.make()
      ends[name] = b
      return a
    }
  }

  /// Tells a wire's fault injector, when it has one, which card it belongs to, so that `hang` works.
  public static func connect(_ model: any DeviceModel) {
    var wire: any ModelWire = model.wire
    while true {
      if let faulty = wire as? FaultyWire {
        faulty.model = model
        wire = faulty.inner
      } else if let recording = wire as? RecordingWire {
        wire = recording.inner
      } else {
        return
      }
    }
  }
}
