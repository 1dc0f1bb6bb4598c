// Extension headers: what is skipped, what is refused, and what the sender is told (RFC 8200, section 4).

import Ifnet
import Packet
import Testing
import Wire

@testable import Inet6

@Suite struct HeaderTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var name: String
    /// Headers between the fixed one and the echo request, and the number of the first.
    var first: UInt8
    var headers: [UInt8]
    /// The answer: type, code, value.
    var answer: [UInt32]
    var testDescription: String { name }
  }

  static let cases: [Case] = [
    Case(name: "padding in destination options", first: 60, headers: [58, 0, 1, 4, 0, 0, 0, 0], answer: [129]),
    Case(name: "Pad1 alone", first: 60, headers: [58, 0, 0, 0, 0, 0, 0, 0], answer: [129]),
    Case(name: "hop-by-hop with router alert", first: 0, headers: [58, 0, 5, 2, 0, 0, 1, 0], answer: [129]),
    Case(name: "an unknown option that may be skipped", first: 60, headers: [58, 0, 0x1e, 4, 1, 2, 3, 4], answer: [129]),
    Case(name: "an unknown option that ends it in silence", first: 60, headers: [58, 0, 0x5e, 4, 1, 2, 3, 4], answer: []),
    Case(name: "an unknown option that is answered", first: 60, headers: [58, 0, 0x9e, 4, 1, 2, 3, 4], answer: [4, 2, 42]),
    Case(name: "an unknown option that is answered to unicast", first: 60, headers: [58, 0, 0xde, 4, 1, 2, 3, 4], answer: [4, 2, 42]),
    Case(name: "an option longer than its header", first: 60, headers: [58, 0, 1, 9, 0, 0, 0, 0], answer: [4, 0, 43]),
    Case(name: "routing type 0 with segments left", first: 43, headers: [58, 0, 0, 1, 0, 0, 0, 0], answer: [4, 0, 42]),
    Case(name: "routing type 0 used up", first: 43, headers: [58, 0, 0, 0, 0, 0, 0, 0], answer: [129]),
    Case(name: "hop-by-hop not first", first: 60, headers: [0, 0, 1, 4, 0, 0, 0, 0] + [58, 0, 1, 4, 0, 0, 0, 0], answer: [4, 1, 40]),
    Case(name: "an unknown next header", first: 60, headers: [253, 0, 1, 4, 0, 0, 0, 0], answer: [4, 1, 40]),
    Case(name: "nothing follows", first: 59, headers: [], answer: []),
    Case(name: "an atomic fragment", first: 44, headers: [58, 0, 0, 0, 0, 0, 0, 1], answer: [129]),
    Case(name: "a header beyond the end", first: 60, headers: [58, 255, 1, 4, 0, 0, 0, 0], answer: []),
    Case(
      name: "too many headers", first: 60, headers: Array(repeatElement([60, 0, 1, 4, 0, 0, 0, 0] as [UInt8], count: 16).joined()),
      answer: []),
  ]

  @Test(arguments: cases) func answers(to one: Case) throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    try stack.inet6.setNeighbour(ip("2001:2::99"), peerMAC, on: interface)
    let message = Make.icmp("2001:2::99", "2001:2::1", 128, [0, 1, 0, 1, 9, 9, 9, 9])
    let packet = Make.ipv6("2001:2::99", "2001:2::1", next: one.first, one.headers + message)
    stack.receive(packet, on: interface)
    let sent = driver.take()
    if one.answer.isEmpty {
      #expect(sent.isEmpty)
      return
    }
    let frame = try #require(sent.first)
    #expect(sent.count == 1)
    #expect(UInt32(frame[54]) == one.answer[0])
    #expect(Make.checksum("2001:2::1", "2001:2::99", next: 58, Array(frame[54...])) == 0)
    guard one.answer.count == 3 else { return }
    #expect(UInt32(frame[55]) == one.answer[1])
    #expect(frame[58..<62].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } == one.answer[2])
    #expect(Array(frame[62...]) == packet)
  }

  /// The same, cut short everywhere: nothing traps, nothing is lost in the account.
  @Test func shortPackets() throws {
    let stack = try Stack()
    let (interface, _) = try stack.attach("em", ownMAC, address: "2001:2::1")
    for one in Self.cases {
      let packet = Make.ipv6("2001:2::99", "2001:2::1", next: one.first, one.headers + Make.icmp("2001:2::99", "2001:2::1", 128, [0, 1, 0, 1]))
      for length in 0..<packet.count {
        var short = Array(packet.prefix(length))
        // Half of them say that they are that short.
        if length >= 40, length % 2 == 0 { short.replaceSubrange(4..<6, with: Make.word(length - 40)) }
        stack.receive(short, on: interface)
      }
    }
    expectAccount(stack)
  }

  @Test func upperProtocolsAreCalled() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    let seen = Seen()
    stack.inet6.register(next: 17) { packet, offset in seen.note(packet.count - offset) }
    stack.receive(Make.ipv6("2001:2::99", "2001:2::1", next: 60, [17, 0, 1, 4, 0, 0, 0, 0] + [0, 1, 0, 2, 0, 10, 0, 0, 5, 5]), on: interface)
    #expect(seen.lengths == [10])
    #expect(driver.take().isEmpty)
    stack.inet6.register(next: 17, nil)
    stack.receive(Make.ipv6("2001:2::99", "2001:2::1", next: 17, [0, 1, 0, 2, 0, 10, 0, 0, 5, 5]), on: interface)
    #expect(seen.lengths == [10])
    #expect(stack.drops(.ipUnknownProtocol) == 1)
    // A port that nobody has, as traceroute wants to hear it.
    try stack.inet6.setNeighbour(ip("2001:2::99"), peerMAC, on: interface)
    stack.netisr.settle()
    #expect(driver.take().contains { $0[54] == 1 && $0[55] == 4 })
  }
}

/// What a handler was given.
final class Seen: @unchecked Sendable {
  private(set) var lengths: [Int] = []
  func note(_ length: Int) { lengths.append(length) }
}

/// Whatever came in was delivered, forwarded, absorbed, dropped, or waits.
func expectAccount(_ stack: Stack, _ location: SourceLocation = #_sourceLocation) {
  let inet6 = stack.inet6
  let ends = inet6[.delivered] + inet6[.forwarded] + inet6[.fragmentsAbsorbed] + inet6[.inputDrops]
  #expect(inet6[.total] == ends, sourceLocation: location)
  let ledger = stack.netisr.drops.snapshot().filter { $0.proto == 6 }.reduce(0) { $0 + $1.packets }
  #expect(ledger == inet6[.inputDrops] + inet6[.outputDrops], sourceLocation: location)
}
