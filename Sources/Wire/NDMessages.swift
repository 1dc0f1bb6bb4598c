// Neighbour discovery on the wire (RFC 4861, section 4). Every parser takes untrusted bytes.

/// What the options of a message say (RFC 4861, section 4.6); an option that is not understood is skipped.
public struct NDOptions: Sendable, Equatable {
  /// A prefix information option (section 4.6.2).
  public struct Prefix: Sendable, Equatable {
    public var prefix: IPv6Address
    public var length: Int
    public var isOnLink: Bool
    public var isAutonomous: Bool
    /// Seconds; UInt32.max is for ever.
    public var validLifetime: UInt32
    public var preferredLifetime: UInt32
    public init(
      _ prefix: IPv6Address, _ length: Int, isOnLink: Bool, isAutonomous: Bool, validLifetime: UInt32, preferredLifetime: UInt32
    ) {
      self.prefix = prefix
      self.length = length
      self.isOnLink = isOnLink
      self.isAutonomous = isAutonomous
      self.validLifetime = validLifetime
      self.preferredLifetime = preferredLifetime
    }
  }
  public var source: MACAddress?
  public var target: MACAddress?
  public var mtu: Int?
  public var prefixes: [Prefix] = []
  public init() {}

  public static let sourceLink: UInt8 = 1
  public static let targetLink: UInt8 = 2
  public static let prefixInformation: UInt8 = 3
  public static let redirectedHeader: UInt8 = 4
  public static let linkMTU: UInt8 = 5

  /// Reads options from `offset` to the end; nil when one has no length, or more than is there.
  public init?(_ bytes: IPv6Bytes, from offset: Int) {
    var at = offset
    while at < bytes.count {
      guard bytes.holds(2, at: at) else { return nil }
      let length = Int(bytes.get8(at + 1)) * 8
      guard length > 0, bytes.holds(length, at: at) else { return nil }
      switch bytes.get8(at) {
      case Self.sourceLink: source = MACAddress(rawValue: bytes.mac(at + 2))
      case Self.targetLink: target = MACAddress(rawValue: bytes.mac(at + 2))
      case Self.prefixInformation where length == 32 && prefixes.count < 32:
        prefixes.append(
          Prefix(
            bytes.address(at + 16), Int(bytes.get8(at + 2)), isOnLink: bytes.get8(at + 3) & 0x80 != 0,
            isAutonomous: bytes.get8(at + 3) & 0x40 != 0, validLifetime: bytes.get32(at + 4),
            preferredLifetime: bytes.get32(at + 8)))
      case Self.linkMTU where length == 8: mtu = Int(bytes.get32(at + 4))
      default: break
      }
      at += length
    }
  }
}

/// A message of neighbour discovery, read and found well formed.
public enum NDMessage: Sendable, Equatable {
  case routerSolicitation(NDOptions)
  case routerAdvertisement(NDRouterAdvertisement, NDOptions)
  case neighbourSolicitation(target: IPv6Address, NDOptions)
  case neighbourAdvertisement(target: IPv6Address, isRouter: Bool, isSolicited: Bool, overrides: Bool, NDOptions)
  case redirect(target: IPv6Address, destination: IPv6Address, NDOptions)

  /// Reads a message; `bytes` start at its type. The checks of RFC 4861, sections 6.1, 7.1 and 8.1, that the message
  /// alone allows: its lengths, its code, its target.
  public init?(_ bytes: IPv6Bytes) {
    let need: Int
    switch bytes.get8(0) {
    case ICMPv6.routerSolicitation: need = 8
    case ICMPv6.routerAdvertisement: need = 16
    case ICMPv6.neighbourSolicitation, ICMPv6.neighbourAdvertisement: need = 24
    case ICMPv6.redirect: need = 40
    default: return nil
    }
    guard bytes.count >= need, bytes.get8(1) == 0, let options = NDOptions(bytes, from: need) else { return nil }
    let target = need >= 24 ? bytes.address(8) : .any
    switch bytes.get8(0) {
    case ICMPv6.routerSolicitation: self = .routerSolicitation(options)
    case ICMPv6.routerAdvertisement: self = .routerAdvertisement(NDRouterAdvertisement(bytes), options)
    case ICMPv6.neighbourSolicitation:
      guard !target.isMulticast else { return nil }
      self = .neighbourSolicitation(target: target, options)
    case ICMPv6.neighbourAdvertisement:
      guard !target.isMulticast else { return nil }
      let flags = bytes.get8(4)
      self = .neighbourAdvertisement(
        target: target, isRouter: flags & 0x80 != 0, isSolicited: flags & 0x40 != 0, overrides: flags & 0x20 != 0, options)
    default:
      let destination = bytes.address(24)
      guard !destination.isMulticast, target == destination || target.isLinkLocal else { return nil }
      self = .redirect(target: target, destination: destination, options)
    }
  }
}

/// The fixed part of a router advertisement (RFC 4861, section 4.2).
public struct NDRouterAdvertisement: Sendable, Equatable {
  /// 0: not said.
  public var hopLimit: UInt8
  /// Seconds as a default router; 0: none.
  public var routerLifetime: UInt16
  /// RFC 4191: 1 high, 0 medium, -1 low.
  public var preference: Int
  /// Milliseconds; 0: not said.
  public var reachableTime: UInt32
  public var retransmitTime: UInt32

  public init(hopLimit: UInt8, routerLifetime: UInt16, preference: Int = 0, reachableTime: UInt32 = 0, retransmitTime: UInt32 = 0) {
    self.hopLimit = hopLimit
    self.routerLifetime = routerLifetime
    self.preference = preference
    self.reachableTime = reachableTime
    self.retransmitTime = retransmitTime
  }

  init(_ bytes: IPv6Bytes) {
    let preference = bytes.get8(5) >> 3 & 3
    self.init(
      hopLimit: bytes.get8(4), routerLifetime: bytes.get16(6), preference: preference == 1 ? 1 : preference == 3 ? -1 : 0,
      reachableTime: bytes.get32(8), retransmitTime: bytes.get32(12))
  }
}

/// Messages as bytes, checksum zero. For control paths.
public enum NDBuilder {
  static func option(_ type: UInt8, _ mac: MACAddress?) -> [UInt8] { mac.map { [type, 1] + $0.bytes } ?? [] }

  /// A neighbour solicitation (RFC 4861, section 4.3); no source address option while detecting duplicates.
  public static func solicitation(target: IPv6Address, source: MACAddress?) -> [UInt8] {
    [ICMPv6.neighbourSolicitation, 0, 0, 0, 0, 0, 0, 0] + target.bytes + option(NDOptions.sourceLink, source)
  }

  /// A neighbour advertisement (section 4.4).
  public static func advertisement(
    target: IPv6Address, link: MACAddress?, isRouter: Bool, isSolicited: Bool, overrides: Bool
  ) -> [UInt8] {
    let flags: UInt8 = (isRouter ? 0x80 : 0) | (isSolicited ? 0x40 : 0) | (overrides ? 0x20 : 0)
    return [ICMPv6.neighbourAdvertisement, 0, 0, 0, flags, 0, 0, 0] + target.bytes + option(NDOptions.targetLink, link)
  }

  /// A router solicitation (section 4.1).
  public static func routerSolicitation(source: MACAddress?) -> [UInt8] {
    [ICMPv6.routerSolicitation, 0, 0, 0, 0, 0, 0, 0] + option(NDOptions.sourceLink, source)
  }

  /// A router advertisement (section 4.2) with the link address, the MTU and prefixes.
  public static func routerAdvertisement(
    _ message: NDRouterAdvertisement, source: MACAddress?, mtu: Int?, prefixes: [NDOptions.Prefix]
  ) -> [UInt8] {
    var out: [UInt8] = [ICMPv6.routerAdvertisement, 0, 0, 0, message.hopLimit]
    out.append(message.preference > 0 ? 0x08 : message.preference < 0 ? 0x18 : 0)
    out += [UInt8(message.routerLifetime >> 8), UInt8(message.routerLifetime & 0xff)]
    out += word(message.reachableTime) + word(message.retransmitTime) + option(NDOptions.sourceLink, source)
    if let mtu { out += [NDOptions.linkMTU, 1, 0, 0] + word(UInt32(clamping: mtu)) }
    for prefix in prefixes {
      out += [NDOptions.prefixInformation, 4, UInt8(clamping: prefix.length)]
      out.append((prefix.isOnLink ? 0x80 : 0) | (prefix.isAutonomous ? 0x40 : 0))
      out += word(prefix.validLifetime) + word(prefix.preferredLifetime) + [0, 0, 0, 0] + prefix.prefix.bytes
    }
    return out
  }

  static func word(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) } }
}
