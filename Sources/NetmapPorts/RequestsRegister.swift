// REGISTER, PORT_INFO_GET and POOLS_INFO_GET.

internal import DeviceIO
public import NetmapAPI
public import NetmapCore
internal import Netisr

extension NetmapDescriptor {
  /// How long REGISTER tries a port that is being torn down, and how long between two tries, in nanoseconds.
  private static let patience: UInt64 = 1_000_000_000
  private static let pause: UInt64 = 10_000_000

  func register(_ request: inout FlatRequest, _ external: ExternalRegion?) throws(NetmapError) {
    try state.withLock { state throws(NetmapError) in
      switch state.phase {
      case .fresh: state.phase = .registering
      case .closed: throw NetmapError(.ENXIO, "The descriptor is closed.")
      case .registering, .registered:
        throw NetmapError(.EBUSY, "A port is registered on this descriptor already; open another one.")
      }
    }
    do throws(NetmapError) {
      let port = try makePort(&request, external)
      do throws(NetmapError) {
        let blocks = try takeBlocks(&request, port)
        let isOpen = state.withLock { state in
          guard case .registering = state.phase else { return false }
          state.phase = .registered(port)
          state.blocks = blocks
          return true
        }
        guard isOpen else { throw NetmapError(.ENXIO, "The descriptor was closed meanwhile.") }
      } catch {
        port.close()
        throw error
      }
    } catch {
      state.withLock { if case .registering = $0.phase { $0.phase = .fresh } }
      throw error
    }
  }

  private func makePort(_ request: inout FlatRequest, _ external: ExternalRegion?) throws(NetmapError) -> NetmapPort {
    var register = try RegisterRequest(decoding: request.body)
    let mode = try register.registerMode()
    var wanted = PortRequest(request.name, RingSelection(mode, flags: register.registerFlags), register: register)
    wanted.external = try externalRegion(&request, external)
    do throws(NetmapError) {
      wanted.offsets = try request.option(OffsetsOption.self)
      let port = try registerPatiently(wanted)
      if let offsets = port.offsets { request.settle(.offsets, payload: offsets) }
      register.describe(port)
      request.answer(register)
      return port
    } catch {
      if wanted.offsets != nil { request.settle(.offsets, error.code) }
      throw error
    }
  }

  private func externalRegion(_ request: inout FlatRequest, _ external: ExternalRegion?) throws(NetmapError) -> NetmapRegion? {
    guard var option = try request.option(ExternalMemoryOption.self) else { return nil }
    do throws(NetmapError) {
      guard let external else {
        throw NetmapError(.EOPNOTSUPP, "\(request.name): external memory needs a memory file, and none came with the request.")
      }
      let region = try external(option)
      option.pools = PoolsInfo(region)
      request.settle(.externalMemory, payload: option)
      return region
    } catch {
      request.settle(.externalMemory, error.code)
      throw error
    }
  }

  /// A port that is letting go of its last rings answers EAGAIN: then again, for about a second.
  private func registerPatiently(_ request: PortRequest) throws(NetmapError) -> NetmapPort {
    let clock = system.netisr.clock, start = clock.now()
    while true {
      do throws(NetmapError) { return try system.register(request) } catch {
        guard error.code == .EAGAIN else { throw error }
        // Worker 0 tears down: it must not wait for itself.
        guard Worker.current == nil, clock.now() &- start < Self.patience else { throw NetmapError(.EBUSY, error.problem) }
        clock.sleep(nanoseconds: Self.pause)
      }
    }
  }

  // MARK: Information

  func portInfo(_ request: inout FlatRequest) throws(NetmapError) {
    var info = try PortInfo(decoding: request.body)
    guard !request.name.isEmpty else {
      // The memory alone.
      let region = try system.memory.find(info.memoryID)
      info.memorySize = UInt64(region.allocator.sharedBytes)
      info.memoryID = region.id
      request.answer(info)
      return
    }
    var register = RegisterRequest()
    register.transmitSlots = info.transmitSlots
    register.receiveSlots = info.receiveSlots
    register.transmitRings = info.transmitRings
    register.receiveRings = info.receiveRings
    register.hostTransmitRings = info.hostTransmitRings
    register.hostReceiveRings = info.hostReceiveRings
    register.memoryID = info.memoryID
    let answer = try look(request.name, register) { adapter, region in
      var info = PortInfo()
      info.memorySize = UInt64(region.allocator.sharedBytes)
      info.memoryID = region.id
      info.transmitSlots = UInt32(clamping: adapter.slots(.transmit, host: false))
      info.receiveSlots = UInt32(clamping: adapter.slots(.receive, host: false))
      let counts = adapter.counts
      info.transmitRings = UInt16(clamping: counts.transmit)
      info.receiveRings = UInt16(clamping: counts.receive)
      info.hostTransmitRings = UInt16(clamping: counts.hostTransmit)
      info.hostReceiveRings = UInt16(clamping: counts.hostReceive)
      return info
    }
    request.answer(answer)
  }

  func poolsInfo(_ request: inout FlatRequest) throws(NetmapError) {
    var register = RegisterRequest()
    register.memoryID = try PoolsInfo(decoding: request.body).memoryID
    request.answer(try look(request.name, register) { _, region in PoolsInfo(region) })
  }

  /// Looks at a port, which is made for it where names make ports, and forgotten again if nobody has it open.
  private func look<T: Sendable>(
    _ name: String, _ register: RegisterRequest, _ body: @escaping @Sendable (any NetmapAdapter, NetmapRegion) -> T
  ) throws(NetmapError) -> T {
    let system = system
    return try system.onControl { () throws(NetmapError) in
      let request = PortRequest(name, RingSelection(.allNIC), register: register)
      // An unknown region is an error before an unknown port is.
      if register.memoryID != 0 { _ = try system.memory.find(register.memoryID) }
      let adapter = try system.adapter(for: request, create: true)
      defer { if adapter.krings.openPorts == 0 { adapter.idle() } }
      return body(adapter, try system.region(for: request, adapter))
    }
  }
}

extension RegisterRequest {
  /// What REGISTER answers.
  mutating func describe(_ port: NetmapPort) {
    let counts = port.adapter.counts
    offset = UInt64(port.memory.offset)
    memorySize = UInt64(port.region.allocator.sharedBytes)
    memoryID = port.region.id
    transmitRings = UInt16(clamping: counts.transmit)
    receiveRings = UInt16(clamping: counts.receive)
    hostTransmitRings = UInt16(clamping: counts.hostTransmit)
    hostReceiveRings = UInt16(clamping: counts.hostReceive)
    transmitSlots = UInt32(clamping: port.adapter.slots(.transmit, host: false))
    receiveSlots = UInt32(clamping: port.adapter.slots(.receive, host: false))
    extraBuffers = UInt32(clamping: port.extraBuffers)
  }
}

extension PoolsInfo {
  /// The pools of a region.
  public init(_ region: NetmapRegion) {
    self.init()
    let sizes = region.allocator.sizes, layout = region.allocator.layout
    memorySize = UInt64(region.allocator.sharedBytes)
    memoryID = region.id
    interfaces = Pool(objects: UInt32(clamping: sizes.interfaces), objectSize: UInt32(clamping: sizes.interfaceSize))
    rings = Pool(
      offset: UInt64(layout.ringOffset), objects: UInt32(clamping: sizes.rings), objectSize: UInt32(clamping: sizes.ringSize))
    buffers = Pool(
      offset: UInt64(layout.bufferOffset), objects: UInt32(clamping: sizes.buffers), objectSize: UInt32(clamping: sizes.bufferSize))
  }
}
