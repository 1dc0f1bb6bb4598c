// Requests about VALE switches and virtio-net headers: checked here as far as they are the same for all, done by the
// provider of switches on worker 0.

internal import NetmapAPI
internal import NetmapCore

extension NetmapDescriptor {
  /// Runs `body` on worker 0 with the provider of switches.
  private func onSwitches<T: Sendable>(
    _ body: @escaping @Sendable (any NetmapSwitchControl) throws(NetmapError) -> T
  ) throws(NetmapError) -> T {
    guard let switches = system.switchControl else {
      throw NetmapError(.EOPNOTSUPP, "There are no VALE switches in this system.")
    }
    return try system.onControl { () throws(NetmapError) in try body(switches) }
  }

  func attach(_ request: inout FlatRequest) throws(NetmapError) {
    var body = try ValeAttach(decoding: request.body)
    let (name, register, system) = (request.name, body.register, system)
    if register.memoryID != 0 { _ = try system.memory.find(register.memoryID) }
    let answer = try onSwitches { switches throws(NetmapError) in try switches.attach(name, register, in: system) }
    (body.register, body.portIndex) = answer
    request.answer(body)
  }

  func detach(_ request: inout FlatRequest) throws(NetmapError) {
    let (name, system) = (request.name, system)
    request.answer(ValeDetach(portIndex: try onSwitches { switches throws(NetmapError) in try switches.detach(name, in: system) }))
  }

  /// With a name its numbers; without one the first port from the request's numbers on, and its name. ENOENT at the end.
  func list(_ request: inout FlatRequest) throws(NetmapError) {
    let name = request.name, from = try ValeList(decoding: request.body)
    guard name.isEmpty else {
      let found = try onSwitches { switches throws(NetmapError) in try switches.find(name) }
      request.answer(ValeList(bridgeIndex: found.bridge, portIndex: found.port))
      return
    }
    guard let entry = try onSwitches({ switches in switches.first(bridge: from.bridgeIndex, port: from.portIndex) }) else {
      throw NetmapError(.ENOENT, "There is no further port in any switch.")
    }
    request.answer(ValeList(bridgeIndex: entry.bridge, portIndex: entry.port))
    request.name = entry.name
  }

  func newInterface(_ request: inout FlatRequest) throws(NetmapError) {
    let (name, body, system) = (request.name, try ValeNewInterface(decoding: request.body), system)
    if body.memoryID != 0 { _ = try system.memory.find(body.memoryID) }
    request.answer(try onSwitches { switches throws(NetmapError) in try switches.newInterface(name, body, in: system) })
  }

  func deleteInterface(_ request: FlatRequest) throws(NetmapError) {
    let (name, system) = (request.name, system)
    try onSwitches { switches throws(NetmapError) in try switches.deleteInterface(name, in: system) }
  }

  func poll(_ request: FlatRequest, enable: Bool) throws(NetmapError) {
    let (name, body) = (request.name, try ValePolling(decoding: request.body))
    try onSwitches { switches throws(NetmapError) in
      if enable { try switches.startPolling(name, body) } else { try switches.stopPolling(name) }
    }
  }

  // MARK: Virtio-net headers

  func setHeader(_ request: FlatRequest) throws(NetmapError) {
    let (name, length) = (request.name, try PortHeader(decoding: request.body).length)
    guard [0, 10, 12].contains(length) else {
      throw NetmapError(.EINVAL, "\(name): a virtio-net header has 10 or 12 bytes, or 0 for none; not \(length).")
    }
    guard system.switchControl != nil else { throw NetmapError(.ENXIO, "\(name): only ports of switches can have headers.") }
    try onSwitches { switches throws(NetmapError) in try switches.setHeader(name, length: length) }
  }

  /// Ports that are no switch's have no header.
  func header(_ request: inout FlatRequest) throws(NetmapError) {
    let (name, system) = (request.name, system)
    let length = try system.onControl { () throws(NetmapError) -> UInt32 in
      if let length = system.switchControl?.header(name) { return length }
      _ = try system.adapter(for: PortRequest(name, RingSelection(.allNIC)), create: false)
      return 0
    }
    request.answer(PortHeader(length: length))
  }
}
