// Ports by name, as netmap's programs write them (nmport_open in the manual page netmap(4) and libnetmap.h).
//
//   netmap:ix0            all rings of the card          netmap:ix0^      the host rings       netmap:ix0*   both
//   netmap:ix0-1          one pair of rings              netmap:ix0^1     one pair of host rings
//   netmap:ix0{3          a pipe's ends: `{` the first,  netmap:ix0}3     `}` the second
//   vale0:a               a port of a switch
//   …/x                   flags: x exclusive, z t r monitors, R T receive or transmit rings only
//   …@3                   memory region 3                …@conf:rings=2,slots=512   …@share=netmap:ix1   …@extmem=/dev/shm/x
//
// In this order: name, rings, flags; then regions and options. Flags and region may also change places.

/// A port that somebody named.
public struct PortSpecification: Equatable, Sendable {
  /// External memory: a file, and how it is to be cut.
  public struct ExternalFile: Equatable, Sendable {
    public var path: String
    /// 0 leaves a number to the daemon.
    public var pools: PoolsInfo
    public init(path: String, pools: PoolsInfo = PoolsInfo()) {
      self.path = path
      self.pools = pools
    }
  }

  /// `nr_name`: "ix0", "p{1", "vale0:a".
  public var name: String
  /// Mode, ring, flags, region and wishes for sizes.
  public var register: RegisterRequest
  public var external: ExternalFile?
  /// A port, by `nr_name`, whose region is to be used: whoever registers looks its number up (PORT_INFO_GET).
  public var share: String?
  public var offsets: OffsetsOption?

  /// All rings of the card.
  public init(name: String) {
    self.name = name
    register = RegisterRequest()
    register.setMode(.allNIC)
  }

  /// REGISTER, without the option for external memory, which needs an address.
  public var request: FlatRequest {
    var request = FlatRequest(.register, name: name, body: register)
    if let offsets { request.append(offsets) }
    return request
  }

  /// Whether the name is a switch's port.
  public var isSwitchPort: Bool { NetmapPortName.isSwitchPort(name) }
}

public enum NetmapPortName {
  /// Reads a name.
  /// - Throws: EINVAL; the sentence points at the character that cannot be there.
  public static func parse(_ text: String) throws(NetmapError) -> PortSpecification {
    var scanner = PortNameScanner(text)
    return try scanner.port()
  }

  /// "vale", whatever names the switch, ":".
  static func isSwitchPort(_ name: String) -> Bool { name.hasPrefix("vale") && name.contains(":") }

  /// With the prefix.
  static func text(_ name: String) -> String { isSwitchPort(name) ? name : "netmap:" + name }

  /// The flags' letters, in the order in which they are written.
  static let flags: [(letter: UInt8, flag: RegisterFlags)] = [
    (UInt8(ascii: "x"), .exclusive), (UInt8(ascii: "z"), .zeroCopyMonitor), (UInt8(ascii: "t"), .monitorTransmit),
    (UInt8(ascii: "r"), .monitorReceive), (UInt8(ascii: "R"), .receiveRingsOnly), (UInt8(ascii: "T"), .transmitRingsOnly),
  ]
}

extension PortSpecification: CustomStringConvertible {
  /// The name as `parse` reads it; what has no letters (flags beyond xztrRT, extra buffers) is left out.
  public var description: String {
    var text = NetmapPortName.text(name)
    switch try? register.registerMode() {
    case .software: text += "^"
    case .nicAndSoftware: text += "*"
    case .oneNIC(let ring): text += "-\(ring)"
    case .oneSoftware(let ring): text += "^\(ring)"
    case .allNIC, .null, nil: break
    }
    let letters = NetmapPortName.flags.filter { register.registerFlags.contains($0.flag) }.map(\.letter)
    if !letters.isEmpty { text += "/" + String(decoding: letters, as: UTF8.self) }
    if register.memoryID != 0 { text += "@\(register.memoryID)" }
    text += Self.option("conf", sizes)
    if let share { text += "@share=" + NetmapPortName.text(share) }
    if let external {
      let pools = Self.pools(external.pools)
      // Alone the path may have commas.
      text += pools.isEmpty ? "@extmem=" + external.path : Self.option("extmem", [("file", external.path)] + pools)
    }
    if let offsets { text += Self.option("offset", [("initial", "\(offsets.initial)")] + (offsets.bits == 0 ? [] : [("bits", "\(offsets.bits)")])) }
    return text
  }

  private static func option(_ name: String, _ keys: [(key: String, value: String)]) -> String {
    keys.isEmpty ? "" : "@\(name):" + keys.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
  }

  private var sizes: [(key: String, value: String)] {
    let all: [(String, Int)] = [
      ("tx-rings", Int(register.transmitRings)), ("rx-rings", Int(register.receiveRings)),
      ("host-tx-rings", Int(register.hostTransmitRings)), ("host-rx-rings", Int(register.hostReceiveRings)),
      ("tx-slots", Int(register.transmitSlots)), ("rx-slots", Int(register.receiveSlots)),
    ]
    return all.filter { $0.1 != 0 }.map { ($0.0, "\($0.1)") }
  }

  private static func pools(_ pools: PoolsInfo) -> [(key: String, value: String)] {
    let all: [(String, UInt32)] = [
      ("if-num", pools.interfaces.objects), ("if-size", pools.interfaces.objectSize), ("ring-num", pools.rings.objects),
      ("ring-size", pools.rings.objectSize), ("buf-num", pools.buffers.objects), ("buf-size", pools.buffers.objectSize),
    ]
    return all.filter { $0.1 != 0 }.map { ($0.0, "\($0.1)") }
  }
}
