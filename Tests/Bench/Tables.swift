// Routing tables as the Internet's look: half of the routes are /24s.

import Routes
import Wire

/// The same numbers for the same seed.
struct BenchGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}

enum BenchTables {
  /// Percent of routes a length; the rest are /24s.
  private static let shares: [(length: Int, percent: Int)] = [
    (8, 1), (12, 1), (14, 1), (16, 4), (17, 2), (18, 3), (19, 4), (20, 6), (21, 6), (22, 11), (23, 8), (28, 1),
  ]

  /// Different prefixes outside 0/8, 127/8 and 224/3; a single one is the default route.
  static func routes(_ count: Int) -> [IPv4Prefix] {
    if count == 1 { return [IPv4Prefix(.any, 0)] }
    var random = BenchGenerator(state: UInt64(count))
    var seen: Set<IPv4Prefix> = [], all: [IPv4Prefix] = []
    while all.count < count {
      var roll = Int(random.next() % 100), length = 24
      for share in shares {
        if roll < share.percent {
          length = share.length
          break
        }
        roll -= share.percent
      }
      let raw = UInt32(truncatingIfNeeded: random.next())
      guard raw >> 24 != 0, raw >> 24 != 127, raw >> 29 != 7, raw >> 24 != 198 else { continue }
      // There are not as many short prefixes as a large table's share of them.
      let prefix = IPv4Prefix(IPv4Address(rawValue: raw), seen.contains(IPv4Prefix(IPv4Address(rawValue: raw), length)) ? 24 : length)
      if seen.insert(prefix).inserted { all.append(prefix) }
    }
    return all
  }

  /// Addresses below the routes, in no order.
  static func addresses(_ count: Int, below routes: [IPv4Prefix]) -> [IPv4Address] {
    var random = BenchGenerator(state: 7)
    return (0..<count).map { _ in
      while true {
        let prefix = routes[Int(random.next() % UInt64(routes.count))]
        let host = UInt32(truncatingIfNeeded: random.next()) & ~IPv4Address.mask(prefix.length).rawValue
        let raw = prefix.address.rawValue | host
        if raw >> 24 != 0, raw >> 24 != 127, raw >> 29 != 7, raw >> 24 != 198 { return IPv4Address(rawValue: raw) }
      }
    }
  }
}
