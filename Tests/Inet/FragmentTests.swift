// Fragments: cut, put together, refused.

import Netisr
import Packet
import Testing
import Wire

@testable import Inet

@Suite struct FragmentTests {
  let more = 0x2000, dont = 0x4000

  /// An echo request's datagram in fragments of `size` payload bytes.
  func pieces(_ router: Router, data: Int, size: Int, id: Int = 77) -> [[UInt8]] {
    let message = icmp(8, 0, [0, 7, 0, 1], (0..<data).map { UInt8(truncatingIfNeeded: $0) })
    return stride(from: 0, to: message.count, by: size).map { at in
      let end = min(at + size, message.count)
      return ipv4(
        router.host0, router.own0, Array(message[at..<end]), id: id, fragment: at / 8 | (end < message.count ? more : 0))
    }
  }
  func joined(_ packets: [[UInt8]]) -> [UInt8] {
    packets.sorted { (Int($0[6]) & 31) << 8 | Int($0[7]) < (Int($1[6]) & 31) << 8 | Int($1[7]) }.flatMap { $0[20...] }
  }

  @Test(arguments: [100, 1480, 1481, 3000, 9000, 65507])
  func anEchoOfAnySizeComesBack(data: Int) throws {
    let router = try Router()
    for piece in pieces(router, data: data, size: 1480) { router.receive0(piece) }
    let sent = router.sent0()
    #expect(sent.allSatisfy { $0.count <= 1500 })
    #expect(joined(sent) == icmp(0, 0, [0, 7, 0, 1], (0..<data).map { UInt8(truncatingIfNeeded: $0) }))
    #expect(router.stack.inet.count(.ipReassembled) == (data + 8 > 1480 ? 1 : 0))
    router.stack.checkLedger()
  }

  @Test func inAnyOrderAndWithDuplicates() throws {
    let router = try Router()
    var all = pieces(router, data: 200, size: 16)
    all.reverse()
    all.insert(all[3], at: 7)
    for piece in all { router.receive0(piece) }
    #expect(joined(router.sent0()) == icmp(0, 0, [0, 7, 0, 1], (0..<200).map { UInt8($0) }))
    #expect(router.stack.drops(.fragmentOverlap) == 1)
    router.stack.checkLedger()
  }

  @Test func manyWorkersMeetOnOne() throws {
    let router = try Router(workers: 4)
    for id in 1...20 { for piece in pieces(router, data: 200, size: 64, id: id) { router.receive0(piece) } }
    #expect(router.sent0().count == 20)
    router.stack.checkLedger()
  }

  @Test func anOverlapLosesTheWholeDatagram() throws {
    let router = try Router()
    let all = pieces(router, data: 100, size: 32)
    router.receive0(all[0])
    router.receive0(all[1])
    let message = [UInt8](repeating: 9, count: 32)
    router.receive0(ipv4(router.host0, router.own0, message, id: 77, fragment: 3 | more))
    #expect(router.stack.drops(.fragmentOverlap) == 3)
    // What comes later starts anew, and never becomes whole.
    router.receive0(all[2])
    router.receive0(all[3])
    #expect(router.sent0() == [])
    router.stack.advance(seconds: 31, step: 1)
    #expect(router.stack.drops(.fragmentTimeout) == 2)
    router.stack.checkLedger()
  }

  @Test func theLimitsHold() throws {
    let router = try Router()
    try router.stack.netisr.sysctl.write("net.inet.ip.maxfragpackets", "2")
    for id in 1...3 { router.receive0(pieces(router, data: 100, size: 32, id: id)[0]) }
    #expect(router.stack.drops(.fragmentLimit) == 1)
    try router.stack.netisr.sysctl.write("net.inet.ip.maxfragsperpacket", "2")
    let all = pieces(router, data: 100, size: 32, id: 1)
    router.receive0(all[1])
    router.receive0(all[2])
    #expect(router.stack.drops(.fragmentLimit) == 4)
    router.stack.advance(seconds: 31, step: 1)
    router.stack.checkLedger()
    // All fragments of a worker together.
    try router.stack.netisr.sysctl.write("net.inet.ip.maxfrags", "1")
    router.receive0(pieces(router, data: 100, size: 32, id: 8)[0])
    router.receive0(pieces(router, data: 100, size: 32, id: 9)[0])
    #expect(router.stack.drops(.fragmentLimit) == 5)
    router.stack.advance(seconds: 31, step: 1)
    router.receive0(pieces(router, data: 20, size: 32, id: 10)[0])
    #expect(router.sent0().last?[20] == 0)
    router.stack.checkLedger()
  }

  @Test func timeIsUpAfterThirtySecondsAndTheSenderIsTold() throws {
    let router = try Router()
    let all = pieces(router, data: 100, size: 32)
    router.receive0(all[0])
    router.receive0(all[2])
    router.stack.advance(seconds: 29, step: 1)
    #expect(router.stack.drops(.fragmentTimeout) == 0)
    router.stack.advance(seconds: 2, step: 0.5)
    #expect(router.stack.drops(.fragmentTimeout) == 2)
    #expect(router.sent0().map { Array($0[20...]) } == [icmp(11, 1, [0, 0, 0, 0], all[0])])
    // Without the first fragment nobody is told.
    router.receive0(all[1])
    router.stack.advance(seconds: 31, step: 1)
    #expect(router.sent0() == [])
    router.stack.checkLedger()
  }

  @Test func impossibleFragmentsAreRefused() throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.own0, [1, 2, 3], fragment: more))
    router.receive0(ipv4(router.host0, router.own0, [], fragment: more))
    router.receive0(ipv4(router.host0, router.own0, [UInt8](repeating: 0, count: 64), fragment: 0x1fff))
    #expect(router.stack.drops(.fragmentMalformed) == 3)
    // A second end, and a piece behind the end.
    router.receive0(ipv4(router.host0, router.own0, [UInt8](repeating: 0, count: 8), id: 5, fragment: 4))
    router.receive0(ipv4(router.host0, router.own0, [UInt8](repeating: 0, count: 8), id: 5, fragment: 9))
    #expect(router.stack.drops(.fragmentMalformed) == 5)
    router.receive0(ipv4(router.host0, router.own0, [UInt8](repeating: 0, count: 8), id: 6, fragment: 4))
    router.receive0(ipv4(router.host0, router.own0, [UInt8](repeating: 0, count: 8), id: 6, fragment: 9 | more))
    #expect(router.stack.drops(.fragmentMalformed) == 7)
    router.stack.checkLedger()
  }

  @Test func aRouterCutsWhatIsTooLongAndSaysSoWhenItMayNot() throws {
    let router = try Router(mtu1: 600)
    let payload = (0..<1400).map { UInt8(truncatingIfNeeded: $0) }
    router.receive0(ipv4(router.host0, router.host1, proto: 17, payload, id: 9))
    let sent = router.sent1()
    #expect(sent.map(\.count) == [596, 596, 268])
    #expect(sent.map { Int($0[6]) << 8 | Int($0[7]) } == [more, more | 72, 144])
    #expect(sent.flatMap { $0[20...] } == payload)
    #expect(sent.allSatisfy { InternetChecksum.sum($0[..<20]) == 0xffff && $0[8] == 63 })
    let packet = ipv4(router.host0, router.host1, proto: 17, payload, fragment: dont)
    router.receive0(packet)
    #expect(router.sent1() == [])
    #expect(router.sent0().map { Array($0[20..<28]) } == [Array(icmp(3, 4, [0, 0, 2, 88], Array(packet[..<548])).prefix(8))])
    #expect(router.stack.drops(.ipTooBig) == 1)
    router.stack.checkLedger()
  }

  @Test func optionsThatAreNotCopiedGoWithTheFirstPiece() throws {
    let router = try Router(mtu1: 600)
    let options: [UInt8] = [68, 4, 5, 0, 148, 4, 0, 0]
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [UInt8](repeating: 1, count: 1000), options: options))
    let sent = router.sent1()
    #expect(sent.count == 2)
    #expect(sent.first.map { Array($0[24..<28]) } == [148, 4, 0, 0])
    #expect(sent.last.map { Array($0[20..<28]) } == [1, 1, 1, 1, 148, 4, 0, 0])
  }

  @Test func aFragmentOfAFragmentKeepsItsPlace() throws {
    let router = try Router(mtu1: 600)
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [UInt8](repeating: 1, count: 800), fragment: 100 | more))
    #expect(router.sent1().map { Int($0[6]) << 8 | Int($0[7]) } == [100 | more, 172 | more])
  }

  @Test func aSmallerPathIsRemembered() throws {
    let router = try Router()
    let quoted = ipv4(router.own0, router.host0, icmp(0), fragment: dont)
    router.receive0(ipv4(router.host0, router.own0, icmp(3, 4, [0, 0, 2, 88], quoted)))
    #expect(router.stack.inet.count(.icmpPathMTU) == 1)
    for piece in pieces(router, data: 1400, size: 1480) { router.receive0(piece) }
    #expect(router.sent0().map(\.count) == [596, 596, 276])
    // Not about a packet of ours.
    router.receive0(ipv4(router.host0, router.own0, icmp(3, 4, [0, 0, 1, 0], ipv4(router.host1, router.host0, icmp(0)))))
    #expect(router.stack.inet.count(.icmpPathMTU) == 1)
    router.stack.advance(seconds: 601, step: 50)
    for piece in pieces(router, data: 1400, size: 1480) { router.receive0(piece) }
    _ = router.out0.take()
    router.stack.checkLedger()
  }
}
