import DMAMemory
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Testing

/// A port whose transmit rings lose everything, and whose receive rings have nothing.
final class TestAdapter: NetmapAdapter, @unchecked Sendable {
  let name: String
  let krings: PortKrings
  var counts = RingCounts(transmit: 2, receive: 2, hostTransmit: 1, hostReceive: 1)
  var active: Set<RingID> = []
  var idled = 0
  var refuses = false
  /// How often a registration meets a teardown.
  var teardowns = 0
  var offsets = false
  var supportsOffsets: Bool { offsets }

  init(_ name: String) throws(NetmapError) {
    self.name = name
    krings = try PortKrings()
  }
  func slots(_ direction: RingDirection, host: Bool) -> Int { 64 }
  func admit(_ selection: RingSelection) throws(NetmapError) {
    if teardowns > 0 {
      teardowns -= 1
      throw NetmapError(.EAGAIN, "not yet")
    }
  }
  func activate(_ rings: [PortRing]) throws(NetmapError) {
    if refuses { throw NetmapError(.EIO, "refused") }
    for ring in rings { active.insert(ring.id) }
  }
  func deactivate(_ rings: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    for ring in rings {
      active.remove(ring.id)
      remains.program += RingRemains.slots(of: ring.kring)
    }
    return remains
  }
  func idle() { idled += 1 }
  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    kring.hwcur = kring.rhead
    if kring.id.direction == .transmit { kring.hwtail = kring.previous(kring.hwcur) }
  }
}

final class TestProvider: NetmapPortProvider, @unchecked Sendable {
  var ports: [String: TestAdapter] = [:]
  func adapter(for request: PortRequest, in system: NetmapSystem, create: Bool) throws(NetmapError) -> (any NetmapAdapter)? {
    ports[request.name]
  }
}

/// A netmap system whose workers are the test's thread.
struct NetmapTestSystem {
  let netisr: Netisr
  let system: NetmapSystem
  let provider = TestProvider()

  /// - Parameter software: knows pipes, monitors and null ports as well.
  init(buffers: Int = 4096, isManual: Bool = true, software: Bool = false) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = isManual
    netisr = try Netisr(configuration)
    var options = NetmapMemoryOptions()
    options.sizes = PoolSizes(
      interfaces: 16, interfaceSize: 1024, rings: 64, ringSize: 16640, buffers: buffers, minimumBuffers: buffers, descriptorBytes: 4096)
    system = NetmapSystem(netisr, memory: NetmapMemory(options))
    provider.ports["t0"] = try TestAdapter("t0")
    provider.ports["t1"] = try TestAdapter("t1")
    if software { system.addSoftwarePorts() }
    system.add(provider)
  }

  var t0: TestAdapter { provider.ports["t0"]! }
  /// Objects of the global region's pools that are given out, but for descriptors.
  func inUse() throws -> [Int] { try system.memory.global().allocator.statistics.prefix(3).map(\.inUse) }
  func open(_ name: String, _ mode: RegisterMode = .allNIC, _ flags: RegisterFlags = [], extra: UInt32 = 0) throws(NetmapError) -> NetmapPort {
    var register = RegisterRequest()
    register.extraBuffers = extra
    return try system.register(PortRequest(name, RingSelection(mode, flags: flags), register: register))
  }
}

@Suite("Registration")
struct RegistrationTests {
  @Test("Rings exist while somebody holds them, and everything comes back")
  func life() throws {
    let lab = try NetmapTestSystem()
    #expect(try lab.inUse() == [0, 0, 0])
    let first = try lab.open("t0", .nicAndSoftware, extra: 10)
    #expect(try lab.inUse() == [1, 6, 6 * 64 + 10])
    #expect(lab.t0.active.count == 6 && first.extraBuffers == 10)
    let second = try lab.open("t0", .oneNIC(1))
    #expect(try lab.inUse() == [2, 6, 6 * 64 + 10], "rings are shared")
    #expect(second.rings.map(\.id) == [RingID(.transmit, 1), RingID(.receive, 1)])
    first.close()
    #expect(try lab.inUse() == [1, 2, 2 * 64])
    #expect(lab.t0.active == [RingID(.transmit, 1), RingID(.receive, 1)] && lab.t0.idled == 0)
    second.close()
    second.close()
    #expect(try lab.inUse() == [0, 0, 0])
    #expect(lab.t0.active.isEmpty && lab.t0.idled == 1 && lab.t0.krings.openPorts == 0)
  }

  @Test("Whoever wants a ring alone clashes with whoever has it, and a failed registration leaves nothing")
  func exclusive() throws {
    let lab = try NetmapTestSystem()
    let one = try lab.open("t0", .oneNIC(0), .exclusive)
    #expect(throws: NetmapError.self) { try lab.open("t0", .allNIC) }
    #expect((try? lab.open("t0", .oneNIC(1)))?.rings.count == 2)
    let before = try lab.inUse()
    #expect(throws: NetmapError.self) { try lab.open("t0", .oneNIC(0), .exclusive) }
    #expect(throws: NetmapError.self) { try lab.open("t0", .oneNIC(2)) }
    #expect(throws: NetmapError.self) { try lab.open("nobody") }
    lab.t0.refuses = true
    #expect(throws: NetmapError.self) { try lab.open("t0", .software) }
    #expect(try lab.inUse() == before)
    one.close()
    #expect(try lab.inUse() == [0, 0, 0])
  }

  @Test("Too little memory is an error that leaves nothing behind; extra buffers are as many as there are")
  func shortage() throws {
    let lab = try NetmapTestSystem(buffers: 300)
    #expect(throws: NetmapError.self) { try lab.open("t0", .nicAndSoftware) }
    #expect(try lab.inUse() == [0, 0, 0])
    let port = try lab.open("t0", .oneNIC(0), extra: 1000)
    #expect(port.extraBuffers > 0 && port.extraBuffers < 1000)
    port.close()
    #expect(try lab.inUse() == [0, 0, 0])
  }

  @Test("A port that is open stays in its region")
  func regions() throws {
    let lab = try NetmapTestSystem()
    let region = try lab.system.memory.makePrivate(PoolSizes(buffers: 1024, minimumBuffers: 1024), name: "other")
    var register = RegisterRequest()
    register.memoryID = region.id
    let other = try lab.system.register(PortRequest("t1", RingSelection(.allNIC), register: register))
    #expect(other.region === region && region.users == 1)
    register.memoryID = 1
    #expect(throws: NetmapError.self) { try lab.system.register(PortRequest("t1", RingSelection(.allNIC), register: register)) }
    register.memoryID = 999
    #expect(throws: NetmapError.self) { try lab.system.register(PortRequest("t0", RingSelection(.allNIC), register: register)) }
    #expect(try lab.open("t1").region === region, "asking for none takes the port's own")
    other.close()
    #expect(try lab.open("t1").region.id == 1, "and closed it may go elsewhere")
  }
}
