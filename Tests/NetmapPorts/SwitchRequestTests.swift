import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Testing

/// Switches that remember what they were asked, on worker 0.
final class TestSwitches: NetmapSwitchControl, @unchecked Sendable {
  var asked: [String] = []
  var refusal: NetmapError.Code?
  var entries = [SwitchPortEntry(bridge: 0, port: 3, name: "vale0:a"), SwitchPortEntry(bridge: 2, port: 0, name: "vale2:b")]
  var header: UInt32 = 0

  private func note(_ what: String) throws(NetmapError) {
    asked.append(what)
    if let refusal { throw NetmapError(refusal, "refused") }
  }
  func adapter(for request: PortRequest, in system: NetmapSystem, create: Bool) throws(NetmapError) -> (any NetmapAdapter)? { nil }
  func attach(_ name: String, _ request: RegisterRequest, in system: NetmapSystem) throws(NetmapError) -> (RegisterRequest, port: UInt32) {
    try note("attach \(name) \(try request.registerMode())")
    var answer = request
    answer.transmitSlots = 1024
    return (answer, 7)
  }
  func detach(_ name: String, in system: NetmapSystem) throws(NetmapError) -> UInt32 {
    try note("detach \(name)")
    return 8
  }
  func find(_ name: String) throws(NetmapError) -> (bridge: UInt16, port: UInt32) {
    try note("find \(name)")
    return (1, SwitchPorts.none)
  }
  func first(bridge: UInt16, port: UInt32) -> SwitchPortEntry? {
    entries.first { $0.bridge > bridge || $0.bridge == bridge && $0.port >= port }
  }
  func setHeader(_ name: String, length: UInt32) throws(NetmapError) {
    try note("header \(name)")
    header = length
  }
  func header(_ name: String) -> UInt32? { name.hasPrefix("vale") ? header : nil }
  func newInterface(_ name: String, _ request: ValeNewInterface, in system: NetmapSystem) throws(NetmapError) -> ValeNewInterface {
    try note("new \(name)")
    var answer = request
    (answer.transmitSlots, answer.memoryID) = (256, 3)
    return answer
  }
  func deleteInterface(_ name: String, in system: NetmapSystem) throws(NetmapError) { try note("delete \(name)") }
  func startPolling(_ name: String, _ request: ValePolling) throws(NetmapError) { try note("poll \(name) \(request.mode) \(request.firstCPU) \(request.cpus)") }
  func stopPolling(_ name: String) throws(NetmapError) { try note("stop \(name)") }
}

@Suite("Requests of switches")
struct SwitchRequestTests {
  private func lab() throws -> (NetmapTestSystem, TestSwitches, NetmapDescriptor) {
    let lab = try NetmapTestSystem(), switches = TestSwitches()
    lab.system.add(switches)
    return (lab, switches, NetmapDescriptor(lab.system))
  }

  @Test("Each request reaches its switch, and its answer the program")
  func requests() throws {
    let (_, switches, descriptor) = try lab()
    var attach = ValeAttach()
    attach.register.setMode(.nicAndSoftware)
    var request = FlatRequest(.valeAttach, name: "vale0:t0", body: attach)
    try descriptor.handle(&request)
    attach = try ValeAttach(decoding: request.body)
    #expect(attach.portIndex == 7 && attach.register.transmitSlots == 1024)
    request = FlatRequest(.valeDetach, name: "vale0:t0")
    try descriptor.handle(&request)
    #expect(try ValeDetach(decoding: request.body).portIndex == 8)
    request = FlatRequest(.valeNewInterface, name: "v7")
    try descriptor.handle(&request)
    let made = try ValeNewInterface(decoding: request.body)
    #expect(made.transmitSlots == 256 && made.memoryID == 3)
    request = FlatRequest(.valeDeleteInterface, name: "v7")
    try descriptor.handle(&request)
    request = FlatRequest(.valePollingEnable, name: "vale0:t0", body: ValePolling(mode: 1, firstCPU: 2, cpus: 3))
    try descriptor.handle(&request)
    request = FlatRequest(.valePollingDisable, name: "vale0:t0")
    try descriptor.handle(&request)
    #expect(switches.asked == ["attach vale0:t0 nicAndSoftware", "detach vale0:t0", "new v7", "delete v7", "poll vale0:t0 1 2 3", "stop vale0:t0"])
    #expect(descriptor.port == nil)
  }

  @Test("VALE_LIST goes through all ports, and ends with ENOENT")
  func list() throws {
    let (_, switches, descriptor) = try lab()
    var found: [String] = []
    var at = ValeList()
    while found.count < 10 {
      var request = FlatRequest(.valeList, name: "", body: at)
      guard errno({ try descriptor.handle(&request) }) == nil else { break }
      found.append(request.name)
      at = try ValeList(decoding: request.body)
      at.portIndex += 1
    }
    #expect(found == ["vale0:a", "vale2:b"])
    var end = FlatRequest(.valeList, name: "", body: at)
    #expect(errno { try descriptor.handle(&end) } == .ENOENT)
    #expect(end.name.isEmpty)
    var named = FlatRequest(.valeList, name: "vale1:x")
    try descriptor.handle(&named)
    #expect(try ValeList(decoding: named.body) == ValeList(bridgeIndex: 1, portIndex: 255))
    #expect(switches.asked == ["find vale1:x"])
  }

  @Test("A switch's errors are the program's")
  func errors() throws {
    let (_, switches, descriptor) = try lab()
    var attach = ValeAttach()
    attach.register.setMode(.allNIC)
    let requests = [
      FlatRequest(.valeAttach, name: "vale0:t0", body: attach), FlatRequest(.valeDetach, name: "vale0:t0"), FlatRequest(.valeList, name: "vale9:x"),
      FlatRequest(.portHeaderSet, name: "vale0:a"), FlatRequest(.valeNewInterface, name: "v"), FlatRequest(.valeDeleteInterface, name: "v"),
      FlatRequest(.valePollingEnable, name: "v"), FlatRequest(.valePollingDisable, name: "v"),
    ]
    for code: NetmapError.Code in [.EBUSY, .ENXIO, .EINVAL, .ENOENT] {
      switches.refusal = code
      for request in requests {
        var refused = request
        #expect(errno { try descriptor.handle(&refused) } == code)
        #expect(refused.body == request.body)
      }
    }
    switches.refusal = nil
    attach.register.memoryID = 44
    var unknown = FlatRequest(.valeAttach, name: "vale0:t0", body: attach)
    #expect(errno { try descriptor.handle(&unknown) } == .EINVAL)
    var body = ValeNewInterface()
    body.memoryID = 44
    unknown = FlatRequest(.valeNewInterface, name: "v", body: body)
    #expect(errno { try descriptor.handle(&unknown) } == .EINVAL)
  }

  @Test("Headers have 0, 10 or 12 bytes; ports that are no switch's have none")
  func headers() throws {
    let (lab, switches, descriptor) = try lab()
    for length: UInt32 in [1, 9, 11, 13, 255, .max] {
      var request = FlatRequest(.portHeaderSet, name: "vale0:a", body: PortHeader(length: length))
      #expect(errno { try descriptor.handle(&request) } == .EINVAL)
    }
    #expect(switches.asked.isEmpty)
    func header(_ name: String) throws -> UInt32 {
      var request = FlatRequest(.portHeaderGet, name: name, body: PortHeader(length: 99))
      try descriptor.handle(&request)
      return try PortHeader(decoding: request.body).length
    }
    for length: UInt32 in [12, 10, 0] {
      var request = FlatRequest(.portHeaderSet, name: "vale0:a", body: PortHeader(length: length))
      try descriptor.handle(&request)
      #expect(try header("vale0:a") == length)
    }
    #expect(try header("t0") == 0)
    #expect(errno { _ = try header("nobody") } == .ENXIO)
    let without = NetmapDescriptor(try NetmapTestSystem().system)
    var request = FlatRequest(.portHeaderSet, name: "t0", body: PortHeader(length: 10))
    #expect(errno { try without.handle(&request) } == .ENXIO)
    request = FlatRequest(.valeDetach, name: "vale0:t0")
    #expect(errno { try without.handle(&request) } == .EOPNOTSUPP)
    withExtendedLifetime(lab) {}
  }
}

@Suite("ioctl by number")
struct IoctlTests {
  @Test("The legacy requests register, inform and list")
  func legacy() throws {
    let lab = try NetmapTestSystem(), switches = TestSwitches(), descriptor = NetmapDescriptor(lab.system)
    lab.system.add(switches)
    var request = LegacyRequest()
    var reply = descriptor.ioctl(NetmapIoctl.info, request.encoded())
    #expect(reply.errno == 0)
    var answer = try LegacyRequest(decoding: reply.payload)
    #expect(answer.arg2 == 1 && answer.memorySize > 0 && answer.transmitRings == 0, "no name: the memory alone")
    request.name = "t0"
    reply = descriptor.ioctl(NetmapIoctl.info, request.encoded())
    answer = try LegacyRequest(decoding: reply.payload)
    #expect((answer.transmitRings, answer.receiveRings, answer.transmitSlots, answer.receiveSlots, answer.arg2) == (2, 2, 64, 64, 1))
    (request.ringID, request.arg3) = (0x4001, 3)
    reply = descriptor.ioctl(NetmapIoctl.register, request.encoded())
    #expect(reply.errno == 0 && reply.problem.isEmpty)
    answer = try LegacyRequest(decoding: reply.payload)
    let port = try #require(descriptor.port)
    #expect(port.krings.map(\.id) == [RingID(.transmit, 1), RingID(.receive, 1)])
    #expect(answer.offset == UInt32(port.memory.offset) && answer.arg3 == 3 && answer.ringID == 0x4001 && answer.name == "t0")
    #expect(descriptor.ioctl(NetmapIoctl.register, request.encoded()).errno == NetmapError.Code.EBUSY.rawValue)
    for number in [NetmapIoctl.transmitSync, NetmapIoctl.receiveSync] { #expect(descriptor.ioctl(number, []) == NetmapIoctlReply(payload: [])) }
    request = LegacyRequest()
    (request.command, request.arg1) = (LegacyCommand.list.rawValue, 1)
    answer = try LegacyRequest(decoding: descriptor.ioctl(NetmapIoctl.info, request.encoded()).payload)
    #expect((answer.name, answer.arg1, answer.arg2) == ("vale2:b", 2, 0))
  }

  @Test("A legacy request that fails comes back as it was, but for its name's end")
  func failures() throws {
    let descriptor = NetmapDescriptor(try NetmapTestSystem().system)
    var bytes = LegacyRequest(name: "nobody").encoded()
    bytes[15] = 0x41
    let reply = descriptor.ioctl(NetmapIoctl.register, bytes)
    bytes[15] = 0
    #expect(reply.errno == NetmapError.Code.ENXIO.rawValue && reply.payload == bytes && !reply.problem.isEmpty)
    var old = LegacyRequest(name: "t0")
    old.version = 13
    #expect(descriptor.ioctl(NetmapIoctl.register, old.encoded()).errno == NetmapError.Code.EINVAL.rawValue)
    #expect(descriptor.ioctl(NetmapIoctl.info, old.encoded()).errno == NetmapError.Code.EINVAL.rawValue)
    for count in [0, 59, 61] {
      #expect(descriptor.ioctl(NetmapIoctl.info, [UInt8](repeating: 0, count: count)).errno == NetmapError.Code.EINVAL.rawValue)
    }
    for number in [NetmapIoctl.transmitSync, NetmapIoctl.receiveSync] {
      #expect(descriptor.ioctl(number, []).errno == NetmapError.Code.ENXIO.rawValue)
    }
    for count in [0, 271, 272, 273] {
      #expect(descriptor.ioctl(NetmapIoctl.configure, [UInt8](repeating: 0, count: count)).errno == NetmapError.Code.EINVAL.rawValue)
    }
    #expect(descriptor.ioctl(0x1234, []).errno == NetmapError.Code.EOPNOTSUPP.rawValue)
    #expect(descriptor.port == nil)
  }

  @Test("NIOCCTRL laid flat answers with bodies and statuses")
  func control() throws {
    let descriptor = NetmapDescriptor(try NetmapTestSystem().system)
    var register = RegisterRequest()
    register.setMode(.allNIC)
    var request = FlatRequest(.register, name: "t0", body: register)
    request.options = [.init(type: 99)]
    var reply = descriptor.ioctl(NetmapIoctl.control, request.encoded())
    #expect(reply.errno == NetmapError.Code.EOPNOTSUPP.rawValue && !reply.problem.isEmpty)
    #expect(try FlatRequest(decoding: reply.payload).options.map(\.status) == [95])
    request.options = []
    reply = descriptor.ioctl(NetmapIoctl.control, request.encoded())
    #expect(reply.errno == 0)
    #expect(try RegisterRequest(decoding: FlatRequest(decoding: reply.payload).body).transmitRings == 2)
    #expect(descriptor.ioctl(NetmapIoctl.control, []).errno == NetmapError.Code.EINVAL.rawValue)
  }

  @Test("External memory: its region is the port's, and the option says how it was cut")
  func external() throws {
    let lab = try NetmapTestSystem(), descriptor = NetmapDescriptor(lab.system)
    var register = RegisterRequest()
    register.setMode(.allNIC)
    var request = FlatRequest(.register, name: "t0", body: register)
    var pools = PoolsInfo()
    pools.memorySize = 1 << 22
    request.append(ExternalMemoryOption(start: 0x7000_0000, pools: pools))
    var without = request
    #expect(errno { try descriptor.handle(&without) } == .EOPNOTSUPP)
    #expect(without.options[0].status == 95)
    var refused = request
    #expect(errno { try descriptor.handle(&refused) { _ throws(NetmapError) in throw NetmapError(.ENOMEM, "too small") } } == .ENOMEM)
    #expect(refused.options[0].status == 12 && descriptor.port == nil)
    var seen: ExternalMemoryOption?
    try descriptor.handle(&request) { option throws(NetmapError) in
      seen = option
      return try lab.system.memory.makePrivate(PoolSizes(interfaces: 8, rings: 8, buffers: 1024, minimumBuffers: 1024), name: "t0")
    }
    #expect(seen == ExternalMemoryOption(start: 0x7000_0000, pools: pools))
    let region = try #require(descriptor.port).region
    let answer = try #require(try request.option(ExternalMemoryOption.self))
    #expect(request.options[0].status == 0 && answer.start == 0x7000_0000)
    #expect(answer.pools.memoryID == region.id && answer.pools.memorySize == UInt64(region.allocator.sharedBytes) && region.id != 1)
    #expect(answer.pools.buffers.objects == 1024)
  }

  @Test("Whatever comes as an ioctl is answered, and leaves the memory whole")
  func mutations() throws {
    let lab = try NetmapTestSystem()
    lab.system.add(TestSwitches())
    var state: UInt64 = 0x1234_5678_9abc_def1
    func random(_ limit: Int) -> Int {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return Int(state >> 1) % limit
    }
    var register = RegisterRequest()
    register.setMode(.allNIC)
    register.flags = RegisterFlags.exclusive.rawValue
    var done = 0
    for _ in 0..<400 {
      let descriptor = NetmapDescriptor(lab.system)
      for _ in 0..<20 {
        let kind = NetmapRequestType(rawValue: UInt16(1 + random(15))) ?? .register
        var flat = FlatRequest(kind, name: ["t0", "t1", "", "vale0:a"][random(4)], body: kind == .register ? register.encoded() : nil)
        if random(3) == 0 { flat.append(ControlBlocksOption(toLoop: 64, toProgram: 128)) }
        if random(5) == 0 { flat.append(OffsetsOption(largest: UInt64(random(4096)), initial: UInt64(random(64)))) }
        var (number, bytes) = (NetmapIoctl.control, flat.encoded())
        if random(4) == 0 { (number, bytes) = ([NetmapIoctl.info, NetmapIoctl.register][random(2)], LegacyRequest(name: "t0").encoded()) }
        for _ in 0..<random(4) { bytes[random(bytes.count)] ^= 1 << UInt8(random(8)) }
        let reply = descriptor.ioctl(number, bytes)
        if reply.errno == 0 { done += 1 }
        #expect((reply.errno == 0) == reply.problem.isEmpty)
        #expect(NetmapError.Code(rawValue: reply.errno) != nil || reply.errno == 0)
      }
      descriptor.close()
      #expect(try lab.inUse() == [0, 0, 0])
    }
    #expect(done > 1000)
  }
}
