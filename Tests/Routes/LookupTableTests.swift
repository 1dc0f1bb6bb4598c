// The tables against a naive model: every prefix in a dictionary, every length tried.

import Testing
import Wire

@testable import Routes

/// Longest-prefix match as slow and plain as can be.
private struct Naive<Prefix: Hashable, Address> {
  var routes: [Prefix: UInt32] = [:]
  let width: Int
  let make: (Address, Int) -> Prefix
  func lookup(_ address: Address) -> UInt32 {
    for length in stride(from: width, through: 0, by: -1) {
      if let value = routes[make(address, length)] { return value }
    }
    return 0
  }
}

/// The same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}

@Suite struct LookupTableTests {
  /// An address out of few, so that prefixes nest and meet.
  private func address4(_ random: inout SeededGenerator) -> IPv4Address {
    let spread = [UInt32.max, 0xff, 0xf00f_0003, 0xffff_f000][Int.random(in: 0..<4, using: &random)]
    return IPv4Address(rawValue: 0x0a00_0000 ^ (UInt32(truncatingIfNeeded: random.next()) & spread))
  }
  private func address6(_ random: inout SeededGenerator) -> IPv6Address {
    let spread: (UInt64, UInt64) = [(0, 0xff), (0xf00f, 0x3), (.max, .max), (0xffff, 0xf000_0000_0000_0001)][Int.random(in: 0..<4, using: &random)]
    return IPv6Address(high: 0x2001_0002_0000_0000 ^ (random.next() & spread.0), low: random.next() & spread.1)
  }

  @Test("IPv4: 6,000 random changes and lookups agree with the model", arguments: [1, 2, 3, 20260101] as [UInt64])
  func model4(seed: UInt64) throws {
    var random = SeededGenerator(seed)
    let table = LookupTable4()
    var model = Naive<IPv4Prefix, IPv4Address>(width: 32) { IPv4Prefix($0, $1) }
    for step in 0..<6_000 {
      // Short prefixes are rare: each writes a large part of the root.
      let length = step % 64 == 0 ? Int.random(in: 0...9, using: &random) : Int.random(in: 10...32, using: &random)
      let prefix = IPv4Prefix(address4(&random), length)
      if random.next() % 5 < 3 - UInt64(step / 3_000) {
        let value = UInt32.random(in: 1...0xff_ffff, using: &random)
        #expect(try table.set(prefix, to: value) == model.routes.updateValue(value, forKey: prefix) ?? 0)
      } else {
        let victim = random.next() % 2 == 0 ? prefix : model.routes.keys.first ?? prefix
        #expect(table.remove(victim) == model.routes.removeValue(forKey: victim) ?? 0)
      }
      let probe = random.next() % 2 == 0 ? address4(&random) : prefix.address
      #expect(table.lookup(probe) == model.lookup(probe), "step \(step), \(probe)")
      #expect(table.find(prefix) == model.routes[prefix] ?? 0)
    }
    #expect(table.count == model.routes.count)
    for prefix in model.routes.keys { #expect(table.remove(prefix) != 0) }
    #expect(table.count == 0)
    #expect(table.nodeCount == 0, "nodes are given back with the last prefix in them")
    for _ in 0..<1000 { #expect(table.lookup(address4(&random)) == 0) }
  }

  @Test("IPv6: 4,000 random changes and lookups agree with the model", arguments: [1, 2, 3, 20260101] as [UInt64])
  func model6(seed: UInt64) throws {
    var random = SeededGenerator(seed)
    let table = LookupTable6()
    var model = Naive<IPv6Prefix, IPv6Address>(width: 128) { IPv6Prefix($0, $1) }
    for step in 0..<4_000 {
      let prefix = IPv6Prefix(address6(&random), Int.random(in: 0...128, using: &random))
      if random.next() % 5 < 3 - UInt64(step / 2_000) {
        let value = UInt32.random(in: 1...0xff_ffff, using: &random)
        #expect(try table.set(prefix, to: value) == model.routes.updateValue(value, forKey: prefix) ?? 0)
      } else {
        let victim = random.next() % 2 == 0 ? prefix : model.routes.keys.first ?? prefix
        #expect(table.remove(victim) == model.routes.removeValue(forKey: victim) ?? 0)
      }
      let probe = random.next() % 2 == 0 ? address6(&random) : prefix.address
      #expect(table.lookup(probe) == model.lookup(probe), "step \(step), \(probe)")
    }
    for prefix in model.routes.keys { #expect(table.remove(prefix) != 0) }
    #expect(table.count == 0)
    #expect(table.nodeCount == 0)
  }

  @Test("a batch gives what single lookups give, also for counts that are no multiple of eight", arguments: [0, 1, 7, 8, 9, 64, 1001])
  func batch(count: Int) throws {
    var random = SeededGenerator(UInt64(count))
    let table = LookupTable4(), table6 = LookupTable6()
    for value in 1...500 as ClosedRange<UInt32> {
      try table.set(IPv4Prefix(address4(&random), Int.random(in: 10...32, using: &random)), to: value)
      try table6.set(IPv6Prefix(address6(&random), Int.random(in: 0...128, using: &random)), to: value)
    }
    let addresses = (0..<count).map { _ in address4(&random) }, addresses6 = (0..<count).map { _ in address6(&random) }
    var values = [UInt32](repeating: 77, count: count), values6 = values
    unsafe addresses.withUnsafeBufferPointer { source in
      unsafe values.withUnsafeMutableBufferPointer { unsafe table.lookup(source, into: $0) }
    }
    unsafe addresses6.withUnsafeBufferPointer { source in
      unsafe values6.withUnsafeMutableBufferPointer { unsafe table6.lookup(source, into: $0) }
    }
    #expect(values == addresses.map { table.lookup($0) })
    #expect(values6 == addresses6.map { table6.lookup($0) })
  }

  @Test("a match says how long the prefix is, from /0 to /32 and /128")
  func lengths() throws {
    let table = LookupTable4(), table6 = LookupTable6()
    let address = IPv4Address(198, 18, 255, 255), address6 = try #require(IPv6Address("2001:2::ffff:ffff"))
    for length in 0...32 {
      try table.set(IPv4Prefix(address, length), to: UInt32(length + 1))
      #expect(table.match(address) == (UInt32(length + 1), length))
    }
    for length in 0...128 {
      try table6.set(IPv6Prefix(address6, length), to: UInt32(length + 1))
      #expect(table6.match(address6) == (UInt32(length + 1), length))
    }
    for length in stride(from: 32, to: 0, by: -1) {
      table.remove(IPv4Prefix(address, length))
      #expect(table.match(address) == (UInt32(length), length - 1))
    }
    for length in stride(from: 128, to: 0, by: -1) {
      table6.remove(IPv6Prefix(address6, length))
      #expect(table6.match(address6) == (UInt32(length), length - 1))
    }
  }

  @Test("values outside 1 to 2^24 - 1 are refused and change nothing")
  func values() throws {
    let table = LookupTable4()
    let prefix = IPv4Prefix(IPv4Address(10, 0, 0, 0), 8)
    try table.set(prefix, to: 0xff_ffff)
    #expect(throws: RouteError.self) { try table.set(prefix, to: 0) }
    #expect(throws: RouteError.self) { try table.set(prefix, to: 0x100_0000) }
    #expect(table.lookup(IPv4Address(10, 1, 2, 3)) == 0xff_ffff)
  }

  @Test("a full table refuses with a typed error, changes nothing, and takes prefixes again when there is room")
  func full() throws {
    let table = LookupTable4(nodeLimit: 6)
    let first = IPv4Prefix(IPv4Address(10, 0, 0, 1), 32), second = IPv4Prefix(IPv4Address(11, 0, 0, 1), 32)
    let third = IPv4Prefix(IPv4Address(12, 0, 0, 1), 32)
    try table.set(first, to: 1)
    try table.set(second, to: 2)
    #expect(throws: RouteError.full(what: "trie nodes", limit: 6)) { try table.set(third, to: 3) }
    #expect(table.lookup(third.address) == 0)
    #expect(table.find(third) == 0)
    #expect(table.count == 2)
    table.remove(first)
    try table.set(third, to: 3)
    #expect(table.lookup(third.address) == 3)
    #expect(table.lookup(first.address) == 0)
  }
}
