// Who would miss a network interface: addresses, routes, and what is stacked on it.

import Glibc

/// A reason not to take an interface away.
public enum NetworkUse: Hashable, Sendable, CustomStringConvertible {
  case address(interface: String, address: String)
  case route(interface: String, destination: String)
  /// The interface belongs to a bridge or bond, or carries VLANs.
  case stacked(interface: String, upper: String)
  /// A network driver without an interface here: it may be in a container's namespace.
  case elsewhere(driver: String)
  case virtualFunctions(Int)

  public var description: String {
    switch self {
    case .address(let interface, let address): "\(interface) has the address \(address)"
    case .route(let interface, "0.0.0.0/0"), .route(let interface, "::/0"): "\(interface) carries the default route"
    case .route(let interface, let destination): "\(interface) carries the route to \(destination)"
    case .stacked(let interface, let upper): "\(interface) is part of \(upper)"
    case .elsewhere(let driver):
      "the driver \(driver) shows no interface in this network namespace, so it may be in use in another"
    case .virtualFunctions(let count): "it has \(count) virtual functions"
    }
  }
}

/// An address of an interface, as text.
public struct InterfaceAddress: Hashable, Sendable {
  public let interface: String
  public let address: String

  public init(interface: String, address: String) {
    self.interface = interface
    self.address = address
  }
}

/// Looks through /proc/net and the addresses of this network namespace. What every interface that
/// is up has by itself (addresses in fe80::/10, the routes to fe80::/64 and ff00::/8) is no use.
struct NetworkUseFinder {
  let roots: SystemRoots
  /// IPv4 addresses; getifaddrs(3) on the machine itself.
  let addresses: () -> [InterfaceAddress]

  func uses(of interfaces: [String]) -> [NetworkUse] {
    var uses: [NetworkUse] = []
    var pending = interfaces
    var seen = Set(interfaces)
    while !pending.isEmpty {
      let name = pending.removeFirst()
      for upper in uppers(of: name) {
        uses.append(.stacked(interface: name, upper: upper))
        if seen.insert(upper).inserted { pending.append(upper) }
      }
    }
    for entry in addresses() + addresses6() where seen.contains(entry.interface) {
      uses.append(.address(interface: entry.interface, address: entry.address))
    }
    for route in routes4() + routes6() where seen.contains(route.interface) {
      uses.append(.route(interface: route.interface, destination: route.destination))
    }
    return uses.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
  }

  private func uppers(of name: String) -> [String] {
    SystemFiles.list("\(roots.sys)/class/net/\(name)").filter { $0.hasPrefix("upper_") }
      .map { String($0.dropFirst("upper_".count)) }
  }

  /// /proc/net/if_inet6: address, index, prefix length, scope, flags, name.
  private func addresses6() -> [InterfaceAddress] {
    rows("net/if_inet6").compactMap { row in
      guard row.count >= 6, let bytes = Self.bytes(row[0]), let length = Int(row[2], radix: 16) else { return nil }
      guard !Self.isLinkLocal(bytes) else { return nil }
      return InterfaceAddress(interface: row[5], address: "\(Self.text6(bytes))/\(length)")
    }
  }

  /// /proc/net/route: interface, destination, gateway, flags, …, mask in the eighth column; the
  /// addresses are the words of memory in the machine's byte order.
  private func routes4() -> [(interface: String, destination: String)] {
    rows("net/route").dropFirst().compactMap { row in
      guard row.count >= 8, let destination = UInt32(row[1], radix: 16), let mask = UInt32(row[7], radix: 16),
        let flags = UInt32(row[3], radix: 16), flags & 1 != 0
      else { return nil }
      let parts = (0..<4).map { String(destination.littleEndian >> (8 * UInt32($0)) & 0xff) }
      return (row[0], parts.joined(separator: ".") + "/\(mask.nonzeroBitCount)")
    }
  }

  /// /proc/net/ipv6_route: destination, its length, source, its length, next hop, metric, two
  /// counts, flags, name.
  private func routes6() -> [(interface: String, destination: String)] {
    rows("net/ipv6_route").compactMap { row in
      guard row.count >= 10, let bytes = Self.bytes(row[0]), let length = Int(row[1], radix: 16),
        let flags = UInt32(row[8], radix: 16), flags & 1 != 0, !Self.isLinkLocal(bytes), bytes[0] != 0xff
      else { return nil }
      // RTF_LOCAL and RTF_ANYCAST: the kernel's own entries for the addresses reported above.
      guard flags & 0x8010_0000 == 0 else { return nil }
      return (row[9], "\(Self.text6(bytes))/\(length)")
    }
  }

  private func rows(_ file: String) -> [[String]] {
    let text = SystemFiles.text("\(roots.proc)/\(file)") ?? ""
    return text.split(separator: "\n").map { line in
      line.split(whereSeparator: \.isWhitespace).map(String.init)
    }
  }

  private static func isLinkLocal(_ bytes: [UInt8]) -> Bool { bytes[0] == 0xfe && bytes[1] & 0xc0 == 0x80 }

  private static func bytes(_ digits: String) -> [UInt8]? {
    let nibbles = digits.compactMap(\.hexDigitValue)
    guard nibbles.count == 32, digits.count == 32 else { return nil }
    return stride(from: 0, to: 32, by: 2).map { UInt8(nibbles[$0] << 4 | nibbles[$0 + 1]) }
  }

  /// The canonical text form (RFC 5952): the longest run of zero groups becomes "::".
  static func text6(_ bytes: [UInt8]) -> String {
    let groups = stride(from: 0, to: 16, by: 2).map { Int(bytes[$0]) << 8 | Int(bytes[$0 + 1]) }
    var best = 0..<0
    for start in 0..<8 {
      let end = groups[start...].firstIndex { $0 != 0 } ?? 8
      if end - start > max(1, best.count) { best = start..<end }
    }
    func words(_ range: Range<Int>) -> String { groups[range].map { String($0, radix: 16) }.joined(separator: ":") }
    return best.isEmpty ? words(0..<8) : words(0..<best.lowerBound) + "::" + words(best.upperBound..<8)
  }
}

/// The IPv4 addresses of this network namespace (getifaddrs(3)).
public func machineAddresses() -> [InterfaceAddress] {
  var head: UnsafeMutablePointer<ifaddrs>? = nil
  // SAFETY: getifaddrs gives a list that freeifaddrs takes back; nothing of it is kept.
  guard unsafe getifaddrs(&head) == 0 else { return [] }
  defer { unsafe freeifaddrs(head) }
  var result: [InterfaceAddress] = []
  var next = unsafe head
  while let entry = unsafe next {
    unsafe next = entry.pointee.ifa_next
    // SAFETY: an entry of family AF_INET points to a sockaddr_in.
    guard let address = unsafe entry.pointee.ifa_addr, unsafe Int32(address.pointee.sa_family) == AF_INET else {
      continue
    }
    let word = unsafe UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in.self).sin_addr.s_addr.littleEndian
    let text = (0..<4).map { String(word >> (8 * UInt32($0)) & 0xff) }.joined(separator: ".")
    result.append(unsafe InterfaceAddress(interface: String(cString: entry.pointee.ifa_name), address: text))
  }
  return result
}
