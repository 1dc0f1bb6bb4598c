// Addresses, prefixes, flags and capabilities as people write them.

public import Ifnet
public import Routes
internal import Wire

/// "198.18.0.1", "198.18.0.1/24", "2001:2::1/64"; link-level "02:00:00:00:00:01".
public struct AddressText: Equatable, Sendable {
  public let address: SocketAddress
  /// nil: none was written.
  public let length: Int?

  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count <= 2 else { return nil }
    var length: Int?
    if parts.count == 2 {
      guard !parts[1].isEmpty, parts[1].utf8.count <= 3, parts[1].utf8.allSatisfy({ (48...57).contains($0) }), let number = Int(parts[1]) else { return nil }
      length = number
    }
    if let ipv4 = IPv4Address(parts[0]) {
      guard length ?? 0 <= 32 else { return nil }
      address = .ipv4(ipv4)
    } else if let ipv6 = IPv6Address(parts[0]) {
      guard length ?? 0 <= 128 else { return nil }
      address = .ipv6(ipv6)
    } else if length == nil, let mac = MACAddress(String(parts[0])) {
      address = .link(0, mac)
    } else {
      return nil
    }
    self.length = length
  }

  public var family: AddressFamily? { address.family }
}

/// A route's destination: "default" (of a family), a prefix, a host.
public enum PrefixText: Equatable, Sendable {
  case ipv4(IPv4Prefix)
  case ipv6(IPv6Prefix)

  /// - Parameter family: what "default" means; nil: IPv4.
  public init?(_ text: String, like family: AddressFamily? = nil) {
    if text == "default" {
      self = family == .ipv6 ? .ipv6(IPv6Prefix(.any, 0)) : .ipv4(IPv4Prefix(.any, 0))
      return
    }
    guard let parsed = AddressText(text) else { return nil }
    switch parsed.address {
    case .ipv4(let address): self = .ipv4(IPv4Prefix(address, parsed.length ?? 32))
    case .ipv6(let address): self = .ipv6(IPv6Prefix(address, parsed.length ?? 128))
    default: return nil
    }
  }
}

extension InterfaceFlags {
  /// As `ifconfig` writes them, lowest bit first.
  static let words: [(InterfaceFlags, String)] = [
    (.up, "UP"), (.broadcast, "BROADCAST"), (.debug, "DEBUG"), (.loopback, "LOOPBACK"), (.pointToPoint, "POINTOPOINT"),
    (.smart, "SMART"), (.running, "RUNNING"), (.noARP, "NOARP"), (.promisc, "PROMISC"), (.allMulti, "ALLMULTI"),
    (.oactive, "OACTIVE"), (.simplex, "SIMPLEX"), (.link0, "LINK0"), (.link1, "LINK1"), (.link2, "LINK2"),
    (.multicast, "MULTICAST"), (.permanentPromisc, "PPROMISC"), (.monitor, "MONITOR"), (.staticARP, "STATICARP"), (.polling, "POLLING"),
  ]
  public var names: [String] { Self.words.filter { contains($0.0) }.map(\.1) }
  /// nil: there is no such flag. Letters may be small.
  public init?(named name: String) {
    guard let found = Self.words.first(where: { $0.1 == name.uppercased() }) else { return nil }
    self = found.0
  }
}

extension InterfaceCapabilities {
  static let words: [(InterfaceCapabilities, String)] = [
    (.rxcsum, "RXCSUM"), (.txcsum, "TXCSUM"), (.vlanMTU, "VLAN_MTU"), (.vlanHardwareTagging, "VLAN_HWTAGGING"),
    (.jumboMTU, "JUMBO_MTU"), (.polling, "POLLING"), (.tso4, "TSO4"), (.tso6, "TSO6"), (.linkState, "LINKSTATE"),
    (.netmap, "NETMAP"), (.rss, "RSS"),
  ]
  public var names: [String] { Self.words.filter { contains($0.0) }.map(\.1) }
  public init?(named name: String) {
    guard let found = Self.words.first(where: { $0.1 == name.uppercased() }) else { return nil }
    self = found.0
  }
}

extension InterfaceType {
  public var word: String {
    switch self {
    case .other: "other"
    case .ethernet: "ethernet"
    case .loopback: "loopback"
    case .tunnel: "tunnel"
    case .vlan: "vlan"
    case .lag: "lag"
    case .bridge: "bridge"
    }
  }
}

extension AddressFamily {
  var word: String {
    switch self {
    case .ipv4: "inet"
    case .ipv6: "inet6"
    case .link: "link"
    }
  }
}
