import NetmapAPI
import NetmapCore
import NetmapPorts
import Testing

@Suite("VALE: names and ports")
struct ValePortTests {
  @Test("Ports are made by name, shared, and gone with their last holder, region and switch with them")
  func life() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), again = try lab.open("vale0:a"), b = try lab.open("vale0:b")
    #expect(a.adapter === again.adapter && a.region === again.region && a.region !== b.region)
    #expect(a.region.kind == .privateMemory && a.region.id > 1)
    #expect(try lab.ports.find("vale0:b") == (0, 1))
    a.close()
    b.send([frame(to: everybody, from: station(1))])
    #expect(again.receive().count == 1, "the other holder has the rings still")
    again.close()
    #expect(try lab.ports.find("vale0:a") == (0, SwitchPorts.none))
    b.close()
    #expect(throws: NetmapError.self) { try lab.ports.find("vale0:b") }
    #expect(lab.ports.report.isEmpty)
  }

  @Test("Regions end with their ports")
  func regions() throws {
    let lab = try ValeLab()
    weak var gone: NetmapRegion?
    do {
      let more = try lab.system.memory.makePrivate(PoolSizes(buffers: 1024, minimumBuffers: 1024), name: "test")
      gone = more
      let a = try lab.open("vale0:a", memory: more.id), b = try lab.open("vale0:b", memory: a.region.id)
      #expect(a.region === b.region && a.region.users == 2)
      let one = frame(to: everybody, from: station(1))
      a.send([one])
      #expect(b.receive() == [one])
      let c = try lab.open("vale0:c", memory: 1)
      c.send([one])
      #expect(a.receive() == [one] && b.receive() == [one] && c.region.id == 1)
      #expect(lab.error("vale0:d", memory: 999) == .EINVAL)
      for port in [a, b, c] { port.close() }
      #expect(a.region.allocator.statistics.prefix(3).allSatisfy { $0.inUse == 0 })
    }
    #expect(gone == nil && lab.isEmpty())
    let mine = try lab.open("vale0:a")
    #expect(lab.system.memory.region(mine.region.id) === mine.region)
  }

  @Test("Sizes are bounded as netmap bounds them")
  func sizes() throws {
    let lab = try ValeLab()
    func shape(_ slots: (UInt32, UInt32), _ rings: (UInt16, UInt16)) throws -> [Int] {
      var register = RegisterRequest()
      (register.transmitSlots, register.receiveSlots) = slots
      (register.transmitRings, register.receiveRings) = rings
      let port = try lab.system.register(PortRequest("vale0:x", RingSelection(.allNIC), register: register))
      defer { port.close() }
      return [
        port.transmitRings.count, port.receiveRings.count, Int(port.transmitRings[0].count), Int(port.receiveRings[0].count),
        Int(port.transmitRings[0].space), Int(port.receiveRings[0].space),
      ]
    }
    #expect(try shape((0, 0), (0, 0)) == [1, 1, 1024, 1024, 1023, 0])
    #expect(try shape((64, 128), (2, 3)) == [2, 3, 64, 128, 63, 0])
    #expect(try shape((1, 1), (1, 1)) == [1, 1, 2, 2, 1, 0])
    #expect(try shape((64, .max), (1, 1)) == [1, 1, 64, 4096, 63, 0])
    #expect(try shape((64, 64), (100, 100)) == [16, 16, 64, 64, 63, 0])
  }

  @Test("What cannot be is refused, and leaves nothing")
  func errors() throws {
    let lab = try ValeLab()
    #expect(lab.error("vale0:a", .software) == .EINVAL && lab.error("vale0:a", .nicAndSoftware) == .EINVAL)
    #expect(lab.error("vale0:a", .oneSoftware(0)) == .EINVAL && lab.error("vale0:a", .oneNIC(1)) == .EINVAL)
    #expect(lab.error("vale0:") == .EINVAL && lab.error("vale 0:a") == .EINVAL && lab.error("vale0:an_interface_name") == .EINVAL)
    #expect(lab.error("vale_with_a_long_name:a") == .EINVAL)
    #expect(lab.error("vale0") == .ENXIO && lab.error("val0:a") == .ENXIO)
    #expect(lab.error("vale0:t0") == .EINVAL, "an interface")
    #expect(lab.isEmpty())
    let alone = try lab.open("vale0:a", .allNIC, .exclusive)
    #expect(lab.error("vale0:a") == .EBUSY)
    alone.close()
    let shared = try lab.open("vale0:a")
    #expect(lab.error("vale0:a", .allNIC, .exclusive) == .EBUSY && lab.error("vale0:a", memory: 1) == .EINVAL)
    shared.close()
    #expect(lab.isEmpty())
  }

  @Test("A switch has 254 ports; the 255th finds no room until one has gone")
  func many() throws {
    let lab = try ValeLab()
    var ports: [NetmapPort] = []
    for n in 0..<254 { ports.append(try lab.open("vale0:p\(n)", slots: 4)) }
    #expect(lab.error("vale0:late") == .ENOMEM)
    let all = frame(to: everybody, from: station(1))
    ports[0].send([all])
    #expect(ports[1...].allSatisfy { $0.receive() == [all] } && ports[0].receive().isEmpty)
    ports[253].send([frame(to: station(1), from: station(254))])
    #expect(ports[0].receive().count == 1 && ports[1...].allSatisfy { $0.receive().isEmpty })
    #expect(try lab.ports.find("vale0:p253").port == 253)
    ports.remove(at: 100).close()
    #expect(try lab.open("vale0:late", slots: 4).krings.count == 2)
    for port in ports { port.close() }
    #expect(lab.isEmpty())
  }

  @Test("As many switches as are allowed; their numbers and ports can be walked through")
  func list() throws {
    var options = ValeOptions()
    options.mostSwitches = 2
    let lab = try ValeLab(options)
    let ports = try ["vale0:a", "vale0:b", "vale1:a"].map { try lab.open($0) }
    #expect(lab.error("vale2:a") == .ENOMEM)
    ports[0].close()
    var found: [SwitchPortEntry] = [], at: (UInt16, UInt32) = (0, 0)
    while let entry = lab.ports.first(bridge: at.0, port: at.1) {
      found.append(entry)
      at = (entry.bridge, entry.port + 1)
    }
    #expect(found == [SwitchPortEntry(bridge: 0, port: 1, name: "vale0:b"), SwitchPortEntry(bridge: 1, port: 0, name: "vale1:a")])
    #expect(lab.ports.first(bridge: .max, port: .max) == nil && lab.ports.first(bridge: 0, port: .max)?.name == "vale1:a")
    #expect(throws: NetmapError.self) { try lab.ports.find("vale7:a") }
    ports[1].close()
    #expect(try lab.open("vale2:a").krings.count == 2)
  }

  @Test("A registration that fails for want of memory leaves no port behind")
  func shortage() throws {
    let lab = try ValeLab(regions: 2)
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b")
    #expect(lab.error("vale0:c") == .ENOMEM)
    #expect(try lab.ports.find("vale0:c").port == SwitchPorts.none)
    #expect(lab.ports.report.count == 2)
    for port in [a, b] { port.close() }
  }
}
