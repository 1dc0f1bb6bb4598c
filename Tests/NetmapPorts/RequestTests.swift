import NetmapAPI
import NetmapCore
import NetmapPorts
import Synchronization
import Testing

/// The errno of a request; nil when it was done.
func errno(_ body: () throws -> Void) -> NetmapError.Code? {
  do { try body() } catch {
    guard let error = error as? NetmapError, !error.problem.isEmpty else {
      Issue.record("not an error of netmap's with a sentence: \(error)")
      return nil
    }
    return error.code
  }
  return nil
}

extension NetmapDescriptor {
  /// REGISTER: the answer, and the options' statuses in `options`.
  @discardableResult func register(
    _ name: String, _ mode: UInt32 = RegisterModeNumber.allNIC, ring: UInt16 = 0, _ flags: RegisterFlags = [], memoryID: UInt16 = 0,
    extra: UInt32 = 0
  ) throws -> RegisterRequest {
    var body = RegisterRequest()
    (body.mode, body.ringID, body.flags, body.memoryID, body.extraBuffers) = (mode, ring, flags.rawValue, memoryID, extra)
    var request = FlatRequest(.register, name: name, body: body)
    try handle(&request)
    return try RegisterRequest(decoding: request.body)
  }

  func csb(_ toLoop: UInt64 = 0x1000, _ toProgram: UInt64 = 0x2000) -> FlatRequest {
    var request = FlatRequest(.csbEnable, name: "")
    request.append(ControlBlocksOption(toLoop: toLoop, toProgram: toProgram))
    return request
  }
}

@Suite("Requests")
struct RequestTests {
  @Test("REGISTER answers with what the port has, once")
  func register() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    #expect(errno { try descriptor.sync(.transmit) } == .ENXIO)
    #expect(errno { try descriptor.sync(.receive) } == .ENXIO)
    #expect(descriptor.wait(for: .receive, milliseconds: 0) == .error)
    #expect(errno { _ = try descriptor.mappable(offset: 0, length: 4096, executable: false) } == .EINVAL)
    let answer = try descriptor.register("t0", extra: 5)
    let region = try lab.system.memory.global()
    #expect(answer.memorySize == UInt64(region.allocator.sharedBytes) && answer.memoryID == 1)
    #expect(answer.transmitRings == 2 && answer.receiveRings == 2 && answer.hostTransmitRings == 1 && answer.hostReceiveRings == 1)
    #expect(answer.transmitSlots == 64 && answer.receiveSlots == 64 && answer.extraBuffers == 5)
    #expect(answer.offset == UInt64(try #require(descriptor.port).memory.offset))
    #expect(errno { try descriptor.register("t0") } == .EBUSY)
    #expect(errno { try descriptor.register("t1") } == .EBUSY)
    #expect(errno { try descriptor.sync(.transmit) } == nil)
    #expect(descriptor.wait(for: .transmit, milliseconds: 0) == .transmit)
    descriptor.close()
    descriptor.close()
    #expect(try lab.inUse() == [0, 0, 0])
    #expect(errno { try descriptor.register("t0") } == .ENXIO)
    #expect(descriptor.wait(for: .transmit, milliseconds: 0) == .error)
  }

  @Test("A registration that fails leaves the descriptor as it was")
  func failures() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    #expect(errno { try descriptor.register("") } == .ENXIO)
    #expect(errno { try descriptor.register("nobody") } == .ENXIO)
    #expect(errno { try descriptor.register("t0", memoryID: 7) } == .EINVAL)
    #expect(errno { try descriptor.register("t0", 4, ring: 2) } == .EINVAL)
    #expect(errno { try descriptor.register("t0", 8, ring: 1) } == .EINVAL)
    for mode: UInt32 in [0, 5, 6, 9, 0x101, .max] { #expect(errno { try descriptor.register("t0", mode) } == .EINVAL) }
    let other = NetmapDescriptor(lab.system)
    try other.register("t0", 4, ring: 1, .exclusive)
    #expect(errno { try descriptor.register("t0") } == .EBUSY)
    lab.t0.refuses = true
    #expect(errno { try descriptor.register("t0", 4, ring: 0) } == .EIO)
    lab.t0.refuses = false
    #expect(try lab.inUse() == [1, 2, 128], "only the other descriptor's")
    try descriptor.register("t0", 4, ring: 0)
    #expect(try #require(descriptor.port).krings.count == 2)
  }

  @Test("Every mode and flag registers the rings that it names")
  func modes() throws {
    let lab = try NetmapTestSystem()
    func rings(_ mode: UInt32, ring: UInt16 = 0, _ flags: RegisterFlags = []) throws -> [RingID] {
      let descriptor = NetmapDescriptor(lab.system)
      try descriptor.register("t0", mode, ring: ring, flags)
      return try #require(descriptor.port).krings.map(\.id)
    }
    let card = [RingID(.transmit, 0), RingID(.transmit, 1), RingID(.receive, 0), RingID(.receive, 1)]
    let host = [RingID(.transmit, 0, isHost: true), RingID(.receive, 0, isHost: true)]
    #expect(try rings(1) == card)
    #expect(try rings(2) == host)
    #expect(try Set(rings(3)) == Set(card + host))
    #expect(try rings(4, ring: 1) == [card[1], card[3]])
    #expect(try rings(7) == [])
    #expect(try rings(8) == host)
    #expect(try rings(1, .receiveRingsOnly) == [card[2], card[3]])
    #expect(try rings(1, .transmitRingsOnly) == [card[0], card[1]])
    #expect(try rings(1, RegisterFlags(rawValue: 0x1000 | 1 << 40)) == card, "unknown flags are ignored")
    #expect(try lab.inUse() == [0, 0, 0], "and gone descriptors give their rings back")
  }

  @Test("mmap reaches the region, and nothing beyond it")
  func mapping() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    let size = try descriptor.register("t0").memorySize
    #expect(try descriptor.mappable(offset: 0, length: size, executable: false) === lab.system.memory.global())
    #expect(try descriptor.mappable(offset: size - 4096, length: 4096, executable: false).id == 1)
    for (offset, length) in [(0, size + 1), (4096, size), (size, 1), (.max, .max), (.max - 4095, 4096), (0, 0), (1, 1)] as [(UInt64, UInt64)] {
      #expect(errno { _ = try descriptor.mappable(offset: offset, length: length, executable: false) } == .EINVAL, "\(offset) \(length)")
    }
    #expect(errno { _ = try descriptor.mappable(offset: 0, length: 4096, executable: true) } == .EINVAL)
  }

  @Test("PORT_INFO_GET and POOLS_INFO_GET tell of ports and regions without registering")
  func information() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    func info(_ name: String, _ id: UInt16 = 0) throws -> PortInfo {
      var body = PortInfo()
      body.memoryID = id
      var request = FlatRequest(.portInfo, name: name, body: body)
      try descriptor.handle(&request)
      return try PortInfo(decoding: request.body)
    }
    let region = try lab.system.memory.global(), size = UInt64(region.allocator.sharedBytes)
    let alone = try info("")
    #expect(alone.memorySize == size && alone.memoryID == 1 && alone.transmitRings == 0)
    #expect(errno { _ = try info("", 9) } == .EINVAL)
    #expect(errno { _ = try info("t0", 9) } == .EINVAL)
    #expect(errno { _ = try info("nobody") } == .ENXIO)
    let port = try info("t0")
    #expect(port.memorySize == size && port.memoryID == 1 && port.transmitSlots == 64 && port.receiveSlots == 64)
    #expect(port.transmitRings == 2 && port.receiveRings == 2 && port.hostTransmitRings == 1 && port.hostReceiveRings == 1)
    #expect(lab.t0.idled == 1 && lab.t0.krings.openPorts == 0)

    var request = FlatRequest(.poolsInfo, name: "t0")
    try descriptor.handle(&request)
    let pools = try PoolsInfo(decoding: request.body), sizes = region.allocator.sizes, layout = region.allocator.layout
    #expect(pools.memorySize == size && pools.memoryID == 1)
    #expect(pools.interfaces == .init(offset: 0, objects: UInt32(sizes.interfaces), objectSize: UInt32(sizes.interfaceSize)))
    #expect(pools.rings == .init(offset: UInt64(layout.ringOffset), objects: UInt32(sizes.rings), objectSize: UInt32(sizes.ringSize)))
    #expect(pools.buffers == .init(offset: UInt64(layout.bufferOffset), objects: UInt32(sizes.buffers), objectSize: 2048))
    var missing = FlatRequest(.poolsInfo, name: "")
    #expect(errno { try descriptor.handle(&missing) } == .ENXIO)
    #expect(descriptor.port == nil)
  }

  @Test("A registration that meets a teardown tries again for about a second")
  func teardown() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    lab.t0.teardowns = 3
    try descriptor.register("t0")
    #expect(lab.t0.teardowns == 0)
    let other = NetmapDescriptor(lab.system)
    lab.t0.teardowns = .max
    #expect(errno { try other.register("t0") } == .EBUSY)
    #expect(Int.max - lab.t0.teardowns > 10)
    lab.t0.teardowns = 0
    try other.register("t0")
  }

  @Test("Threads that register on one descriptor at a time: one wins")
  func race() async throws {
    let lab = try NetmapTestSystem(isManual: false)
    for _ in 0..<20 {
      let descriptor = NetmapDescriptor(lab.system)
      let results = await withTaskGroup(of: NetmapError.Code?.self) { group in
        for name in ["t0", "t1", "t0", "t1"] { group.addTask { errno { try descriptor.register(name) } } }
        return await group.reduce(into: []) { $0.append($1) }
      }
      #expect(results.filter { $0 == nil }.count == 1)
      #expect(results.filter { $0 == .EBUSY }.count == 3)
      descriptor.close()
    }
    #expect(try lab.inUse() == [0, 0, 0])
  }
}

@Suite("Control blocks and sync loops")
struct LoopRequestTests {
  private func descriptor(_ lab: NetmapTestSystem, _ flags: RegisterFlags = .exclusive) throws -> NetmapDescriptor {
    let descriptor = NetmapDescriptor(lab.system)
    try descriptor.register("t0", 1, flags)
    return descriptor
  }
  private func start(_ descriptor: NetmapDescriptor, sleep: UInt32 = 100, _ options: FlatRequest.Option...) -> (NetmapError.Code?, [UInt32]) {
    var request = FlatRequest(.syncLoopStart, name: "", body: SyncLoopStart(sleep: sleep), options: options)
    let code = errno { try descriptor.handle(&request) }
    return (code, request.options.map(\.status))
  }
  private func mode(_ value: UInt32) -> FlatRequest.Option {
    .init(type: LoopModeOption.type.rawValue, bytes: LoopModeOption(mode: value).encoded())
  }
  private func events(_ count: Int, _ descriptor: Int32 = 3) -> FlatRequest.Option {
    let rings = [LoopEventsOption.Ring](repeating: .init(toLoop: descriptor, toProgram: -1), count: count)
    return .init(type: LoopEventsOption.type.rawValue, bytes: LoopEventsOption(rings: rings).encoded())
  }

  @Test("CSB_ENABLE needs its option, a registration, EXCLUSIVE and aligned blocks")
  func enable() throws {
    let lab = try NetmapTestSystem(), fresh = NetmapDescriptor(lab.system)
    func enable(_ descriptor: NetmapDescriptor, _ request: FlatRequest) -> (NetmapError.Code?, [UInt32]) {
      var request = request
      let code = errno { try descriptor.handle(&request) }
      return (code, request.options.map(\.status))
    }
    #expect(enable(fresh, FlatRequest(.csbEnable, name: "")) == (.EINVAL, []))
    #expect(enable(fresh, fresh.csb()) == (.ENXIO, [6]))
    let shared = try descriptor(lab, [])
    #expect(enable(shared, shared.csb()) == (.EINVAL, [22]))
    #expect(shared.controlBlocks == nil)
    shared.close()
    let held = try descriptor(lab)
    for (a, b) in [(0x1020, 0x2000), (0x1000, 0x2001), (0x1001, 0x2000), (0, 0x1000), (0x1000, 0)] as [(UInt64, UInt64)] {
      #expect(enable(held, held.csb(a, b)) == (.EINVAL, [22]))
    }
    #expect(errno { try held.sync(.transmit) } == nil)
    #expect(enable(held, held.csb()) == (nil, [0]))
    #expect(held.controlBlocks == ControlBlocksOption(toLoop: 0x1000, toProgram: 0x2000))
    #expect(errno { try held.sync(.transmit) } == .EBUSY)
    #expect(errno { try held.sync(.receive) } == .EBUSY)
    #expect(held.wait(for: [.transmit, .receive], milliseconds: 0) == .error)
    #expect(enable(held, held.csb(0x3000, 0x4000)) == (nil, [0]), "they can change while no loop runs")
    #expect(start(held).0 == nil)
    #expect(enable(held, held.csb()) == (.EBUSY, [16]))
  }

  @Test("CSB comes with REGISTER too; when it does not fit, nothing is registered")
  func withRegister() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    func register(_ flags: RegisterFlags, _ mode: RegisterMode = .allNIC, _ address: UInt64 = 0x1000) -> (NetmapError.Code?, [UInt32]) {
      var body = RegisterRequest()
      body.setMode(mode)
      body.flags = flags.rawValue
      var request = FlatRequest(.register, name: "t0", body: body)
      request.append(ControlBlocksOption(toLoop: address, toProgram: 0x2000))
      let code = errno { try descriptor.handle(&request) }
      return (code, request.options.map(\.status))
    }
    #expect(register([]) == (.EINVAL, [22]))
    #expect(register(.exclusive, .allNIC, 0x1008) == (.EINVAL, [22]))
    #expect(try lab.inUse() == [0, 0, 0] && descriptor.port == nil)
    #expect(register(.exclusive) == (nil, [0]))
    #expect(descriptor.controlBlocks != nil)
    #expect(errno { try descriptor.sync(.receive) } == .EBUSY)
    descriptor.close()
    let null = NetmapDescriptor(lab.system)
    var body = RegisterRequest()
    body.setMode(.null)
    var request = FlatRequest(.register, name: "t0", body: body)
    request.append(ControlBlocksOption(toLoop: 1, toProgram: 2))
    try null.handle(&request)
    #expect(null.controlBlocks == nil && request.options[0].status == 0, "without rings there is nothing for blocks")
  }

  @Test("A loop starts once, with control blocks and options that fit")
  func starting() throws {
    let lab = try NetmapTestSystem(), fresh = NetmapDescriptor(lab.system)
    #expect(start(fresh, sleep: 1_000_001).0 == .EINVAL)
    #expect(start(fresh).0 == .ENXIO)
    var stop = FlatRequest(.syncLoopStop, name: "")
    #expect(errno { try fresh.handle(&stop) } == .ENXIO)
    let held = try descriptor(lab)
    #expect(start(held).0 == .EINVAL, "no control blocks")
    var csb = held.csb()
    try held.handle(&csb)
    #expect(start(held, sleep: .max).0 == .EINVAL)
    #expect(start(held, mode(4)) == (.EINVAL, [22]))
    #expect(start(held, events(3)) == (.EINVAL, [22]))
    #expect(start(held, events(5)) == (.EINVAL, [22]))
    #expect(start(held, mode(1), events(4, -1)) == (.EINVAL, [0, 22]))
    #expect(!held.isLoopRunning)
    #expect(start(held, sleep: 1_000_000, mode(3), events(4)) == (nil, [0, 0]))
    #expect(held.isLoopRunning)
    #expect(start(held).0 == .EBUSY)
    #expect(errno { try held.handle(&stop) } == nil)
    #expect(!held.isLoopRunning && held.isLoopBusy)
    #expect(start(held).0 == .EBUSY, "the first has not ended yet")
    held.loopEnded()
    #expect(!held.isLoopBusy)
    #expect(start(held, events(4, -1)).0 == nil && held.isLoopRunning)
    held.close()
    #expect(!held.isLoopRunning, "a close ends it")
  }

  @Test("A stop that comes before its start makes that start return at once")
  func stopFirst() throws {
    let lab = try NetmapTestSystem(), held = try descriptor(lab)
    var csb = held.csb(), stop = FlatRequest(.syncLoopStop, name: "")
    try held.handle(&csb)
    try held.handle(&stop)
    try held.handle(&stop)
    #expect(!held.isLoopBusy)
    #expect(start(held).0 == nil)
    #expect(!held.isLoopRunning && !held.isLoopBusy)
    #expect(start(held).0 == nil)
    #expect(held.isLoopRunning, "the next one runs")
  }
}
