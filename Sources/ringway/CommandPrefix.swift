// Networks as people write them.

import Wire

enum CommandPrefix {
  /// "198.18.0.0/15" of an address and a length; nil for what is no address.
  static func network(_ address: String, _ length: Int) -> String? {
    if let v4 = IPv4Address(address) {
      let length = max(0, min(32, length))
      return "\(IPv4Address(rawValue: v4.rawValue & IPv4Address.mask(length).rawValue))/\(length)"
    }
    guard let v6 = IPv6Address(address) else { return nil }
    let length = max(0, min(128, length))
    let mask = IPv6Address.mask(length)
    return "\(IPv6Address(high: v6.high & mask.high, low: v6.low & mask.low))/\(length)"
  }

  /// "default" for everything, an address alone for a host.
  static func short(_ prefix: String) -> String {
    if prefix == "0.0.0.0/0" || prefix == "::/0" { return "default" }
    if prefix.hasSuffix("/32"), !prefix.contains(":") { return String(prefix.dropLast(3)) }
    if prefix.hasSuffix("/128") { return String(prefix.dropLast(4)) }
    return prefix
  }
}
