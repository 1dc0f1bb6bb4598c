import NetmapAPI
import NetmapCore
import NetmapPorts
import Testing

@Suite("VALE: virtio-net headers")
struct ValeHeaderTests {
  /// Ports with headers of these sizes, opened by programs that accept them.
  private func ports(_ lab: ValeLab, _ headers: [UInt32], slots: UInt32 = 64) throws -> [NetmapPort] {
    try headers.enumerated().map { n, length in
      let port = try lab.open("vale0:h\(n)", slots: slots, .allNIC, .acceptVnetHeader)
      try lab.ports.setHeader("vale0:h\(n)", length: length)
      return port
    }
  }
  private func header(_ length: Int, flags: UInt8 = 0, kind: UInt8 = 0, start: UInt16 = 0, offset: UInt16 = 0) -> [UInt8] {
    let ten: [UInt8] = [flags, kind, 0, 0, 0, 0, UInt8(start & 255), UInt8(start >> 8), UInt8(offset & 255), UInt8(offset >> 8)]
    return Array((ten + [7, 7]).prefix(length))
  }

  @Test("Set and asked for by name; a program that does not accept it is refused")
  func control() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a")
    #expect(lab.ports.header("vale0:a") == 0 && lab.ports.header("vale0:b") == nil)
    try lab.ports.setHeader("vale0:a", length: 12)
    #expect(lab.ports.header("vale0:a") == 12)
    #expect(throws: NetmapError.self) { try lab.ports.setHeader("vale0:a", length: 11) }
    #expect(throws: NetmapError.self) { try lab.ports.setHeader("vale0:b", length: 10) }
    #expect(lab.error("vale0:a") == .EIO)
    let b = try lab.open("vale0:a", .allNIC, .acceptVnetHeader)
    b.close()
    a.close()
    #expect(lab.isEmpty())
  }

  @Test("Between any two sizes the frame stays and the header fits", arguments: [0, 10, 12] as [UInt32], [0, 10, 12] as [UInt32])
  func sizes(from: UInt32, to: UInt32) throws {
    let lab = try ValeLab()
    let ports = try ports(lab, [from, to])
    for length in [60, 61, 1514] {
      let body = frame(to: station(2), from: station(1), length: length)
      let before = header(Int(from), flags: 2)
      ports[0].send([before + body])
      let expected: [UInt8] =
        if from == to { before } else if to == 0 { [] } else if from == 0 { [UInt8](repeating: 0, count: Int(to)) } else {
          Array(before.prefix(10)) + [UInt8](repeating: 0, count: Int(to) - 10)
        }
      #expect(ports[1].receive() == [expected + body], "\(from) to \(to), \(length) bytes")
    }
    // The header alone in the first slot, the frame in the next ones.
    let body = frame(to: station(2), from: station(1), length: 3000)
    if from > 0 {
      ports[0].send(fragments: [header(Int(from)), Array(body[..<2000]), Array(body[2000...])])
      let slots = ports[1].slots()
      #expect(slots.count == (to == 0 ? 2 : 3) && slots.flatMap(\.bytes).suffix(3000) == body[...])
      #expect(slots.allSatisfy { Int($0.slot.flags.high) == slots.count } && slots.map { $0.slot.flags.contains(.moreFragments) }.last == false)
      // No header at all.
      ports[0].send([[1, 2, 3]])
      #expect(ports[1].receive().isEmpty)
    }
    // A buffer that the header makes too small.
    let full = frame(to: station(2), from: station(1), length: 2048 - Int(from))
    ports[0].send([header(Int(from)) + full])
    #expect(ports[1].receive().count == (to <= from ? 1 : 0))
  }

  @Test("A checksum that the header asks for is there, whatever the fragments; what a port with headers gets keeps the wish")
  func checksum() throws {
    let lab = try ValeLab()
    let ports = try ports(lab, [10, 0, 12])
    for cut in [400, 401, 700] {
      // The checksum's field is 16 bytes into what it covers, and holds a part of the sum, as stacks leave it.
      var body = frame(to: everybody, from: station(1), length: 999)
      (body[50], body[51]) = (0x12, 0x34)
      var sum: UInt32 = 0
      for i in stride(from: 34, to: 999, by: 2) { sum += UInt32(body[i]) << 8 | (i + 1 < 999 ? UInt32(body[i + 1]) : 0) }
      while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
      let wish = header(10, flags: 1, start: 34, offset: 16)
      ports[0].send(fragments: [wish + body[..<cut], Array(body[cut...])])
      let got = ports[1].receive().flatMap { $0 }
      var expected = body
      (expected[50], expected[51]) = (UInt8(~sum >> 8 & 255), UInt8(~sum & 255))
      #expect(got == expected, "cut at \(cut)")
      #expect(ports[2].receive().flatMap { $0 } == wish + [0, 0] + body)
    }
    // A field beyond the frame: nothing is written anywhere.
    let body = frame(to: everybody, from: station(1))
    ports[0].send([header(10, flags: 1, start: 34, offset: 0xfff0) + body])
    #expect(ports[1].receive() == [body])
  }

  @Test("Frames that are to be cut into segments are for ports with headers alone")
  func segments() throws {
    let lab = try ValeLab()
    let ports = try ports(lab, [12, 0, 12, 10])
    let body = frame(to: everybody, from: station(1), length: 1800)
    for kind in [1, 3, 4, 9] as [UInt8] {
      ports[0].send([header(12, kind: kind) + body, header(12) + body])
      #expect(ports[1].receive() == [body])
      #expect(ports[2].receive().count == 2 && ports[3].receive().count == 2)
    }
    #expect(lab.ports.report.first { $0.name == "vale0:h1" }?.drops == 4)
  }
}
