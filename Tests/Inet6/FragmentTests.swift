// Fragments: put together, refused, timed out; and made.

import Ifnet
import Packet
import Testing
import Wire

@testable import Inet6

@Suite struct FragmentTests {
  let packet = Make.echo("2001:2::99", "2001:2::1", Array((0..<152).map { UInt8($0) }))
  // 160 bytes of ICMPv6.
  static let whole = [(offset: 0, count: 64), (offset: 64, count: 64), (offset: 128, count: 32)]

  func rig(_ workers: Int = 1, _ change: (inout Inet6Configuration) -> Void = { _ in }) throws -> (Stack, Interface, FakeDriver) {
    let stack = try Stack(workers: workers, change)
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    try stack.inet6.setNeighbour(ip("2001:2::99"), peerMAC, on: interface)
    stack.netisr.settle()
    return (stack, interface, driver)
  }

  var reply: [UInt8] { Make.packet("2001:2::1", "2001:2::99", 129, hops: 64, Array(packet[44...])) }

  @Test(arguments: [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]], [1, 4])
  func anyOrderOnAnyWorker(order: [Int], workers: Int) throws {
    let (stack, interface, driver) = try rig(workers)
    let pieces = Make.fragments(packet, id: 7, Self.whole)
    for i in order { stack.receive(pieces[i], on: interface) }
    #expect(driver.take().map { Array($0[14...]) } == [reply])
    #expect(stack.inet6[.reassembled] == 1)
    expectAccount(stack)
  }

  /// An overlap ends the datagram, and what comes of it later (RFC 5722).
  @Test func overlapsAreDropped() throws {
    let (stack, interface, driver) = try rig()
    let pieces = Make.fragments(packet, id: 7, [(0, 64), (56, 72), (128, 32), (64, 64)])
    for piece in pieces { stack.receive(piece, on: interface) }
    #expect(driver.take().isEmpty)
    #expect(stack.drops(.fragmentOverlap) == 4)
    stack.wait(61)
    // The first fragment was given up with the others: nothing is left to speak of.
    #expect(driver.take().isEmpty)
    expectAccount(stack)
  }

  @Test func duplicatesAreNoOverlap() throws {
    let (stack, interface, driver) = try rig()
    let pieces = Make.fragments(packet, id: 7, Self.whole)
    for i in [0, 0, 1, 1, 2] { stack.receive(pieces[i], on: interface) }
    #expect(driver.take().map { Array($0[14...]) } == [reply])
    expectAccount(stack)
  }

  @Test func timeOut() throws {
    let (stack, interface, driver) = try rig()
    let pieces = Make.fragments(packet, id: 7, Self.whole)
    stack.receive(pieces[0], on: interface)
    stack.receive(pieces[2], on: interface)
    stack.wait(59)
    #expect(driver.take().isEmpty)
    stack.wait(2)
    let frame = try #require(driver.take().first)
    #expect(Array(frame[14...]) == Make.packet("2001:2::1", "2001:2::99", 3, code: 1, hops: 64, [0, 0, 0, 0] + pieces[0]))
    #expect(stack.drops(.fragmentTimeout) == 2)
    #expect(stack.inet6[.fragmentTimeouts] == 1)
    // Without the first fragment nobody is told.
    stack.receive(pieces[1], on: interface)
    stack.wait(61)
    #expect(driver.take().isEmpty)
    expectAccount(stack)
  }

  @Test func oddLengthsAndEndsBeyondAllLengthsAreAnswered() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(Make.fragments(packet, id: 7, [(0, 63)])[0], on: interface)
    #expect(driver.take().first.map { Array($0[54..<62]) }?.enumerated().filter { $0.offset != 2 && $0.offset != 3 }.map(\.element) == [4, 0, 0, 0, 0, 4])
    var far = Make.fragments(packet, id: 8, [(64, 64)])[0]
    far.replaceSubrange(42..<44, with: [0xff, 0xf8])
    stack.receive(far, on: interface)
    #expect(driver.take().first.map { Array($0[58..<62]) } == [0, 0, 0, 42])
    // A first fragment without the upper header (RFC 7112).
    let short = Make.ipv6("2001:2::99", "2001:2::1", next: 44, [60, 0, 0, 1, 0, 0, 0, 9] + [58, 3, 1, 4, 0, 0, 0, 0])
    stack.receive(short, on: interface)
    #expect(driver.take().first.map { Array($0[54..<56]) } == [4, 3])
    expectAccount(stack)
  }

  @Test func limits() throws {
    let (stack, interface, driver) = try rig {
      $0.settings.reassemblyLimit = 2
      $0.settings.fragmentsPerDatagram = 2
    }
    for id in 1...3 { stack.receive(Make.fragments(packet, id: UInt8(id), [(0, 64)])[0], on: interface) }
    #expect(stack.drops(.fragmentLimit) == 1)
    let pieces = Make.fragments(packet, id: 1, Self.whole)
    stack.receive(pieces[1], on: interface)
    stack.receive(pieces[2], on: interface)
    #expect(stack.drops(.fragmentLimit) == 2)
    #expect(driver.take().isEmpty)
    stack.wait(61)
    expectAccount(stack)
  }

  /// A big echo request comes in fragments, and its reply goes out in fragments of the link's size.
  @Test func repliesAreCut() throws {
    let (stack, interface, driver) = try rig()
    let big = Make.echo("2001:2::99", "2001:2::1", (0..<4000).map { UInt8(truncatingIfNeeded: $0 &* 7) })
    for piece in Make.fragments(big, id: 1, [(0, 1448), (1448, 1448), (2896, 1112)]) { stack.receive(piece, on: interface) }
    let sent = driver.take().map { Array($0[14...]) }
    #expect(sent.count == 3)
    #expect(sent.allSatisfy { $0.count <= 1500 && $0[6] == 44 })
    var message: [UInt8] = []
    for (i, piece) in sent.enumerated() {
      let word = Int(piece[42]) << 8 | Int(piece[43])
      #expect(word & 0xfff8 == message.count)
      #expect(word & 1 == (i < 2 ? 1 : 0))
      #expect(Array(piece[44..<48]) == Array(sent[0][44..<48]))
      #expect(Int(piece[4]) << 8 | Int(piece[5]) == piece.count - 40)
      message += piece[48...]
    }
    #expect(message == Make.icmp("2001:2::1", "2001:2::99", 129, Array(big[44...])))
    expectAccount(stack)
  }

  /// "Packet too big" about one of our packets: from then on the replies are cut (RFC 8201).
  @Test func pathMTU() throws {
    let (stack, interface, driver) = try rig()
    let request = Make.echo("2001:2::99", "2001:2::1", Array(repeating: 3, count: 1400))
    stack.receive(request, on: interface)
    #expect(driver.take().map(\.count) == [14 + 40 + 1408])
    let quoted = Make.echo("2001:2::1", "2001:2::99", Array(repeating: 3, count: 100))
    stack.receive(Make.packet("2001:2::50", "2001:2::1", 2, hops: 60, [0, 0, 0x05, 0x14] + quoted), on: interface)
    #expect(stack.inet6.pathMTUs().map(\.mtu) == [1300])
    stack.receive(request, on: interface)
    #expect(driver.take().map(\.count).allSatisfy { $0 <= 14 + 1300 })
    // Never below what every link carries; and a packet that is not ours says nothing.
    stack.receive(Make.packet("2001:2::50", "2001:2::1", 2, hops: 60, [0, 0, 0, 68] + quoted), on: interface)
    #expect(stack.inet6.pathMTUs().map(\.mtu) == [1280])
    let strange = Make.echo("2001:2::2", "2001:2::77", [1])
    stack.receive(Make.packet("2001:2::50", "2001:2::1", 2, hops: 60, [0, 0, 0x05, 0x14] + strange), on: interface)
    #expect(stack.inet6.pathMTUs().count == 1)
    stack.wait(601)
    stack.receive(request, on: interface)
    #expect(driver.take().map(\.count) == [14 + 40 + 1408])
  }
}
