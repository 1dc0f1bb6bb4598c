// Ports that live without a holder: VALE_NEWIF makes them, VALE_DELIF ends them.

public import NetmapAPI
internal import NetmapCore

extension ValePorts {
  public func newInterface(
    _ name: String, _ request: ValeNewInterface, in system: NetmapSystem
  ) throws(NetmapError) -> ValeNewInterface {
    guard !ValeName.isSwitch(name), !name.isEmpty, name.utf8.count < ValeName.nameSize,
      !name.utf8.contains(where: { "{}/:^ ".utf8.contains($0) || $0 < 0x21 })
    else {
      throw NetmapError(.EINVAL, "\(name): a persistent port's name has 1 to \(ValeName.nameSize - 1) characters, none of {}/:^, and does not start with vale")
    }
    guard persistent[name] == nil, !isInterface(name, system) else { throw NetmapError(.EEXIST, "\(name) exists already") }
    var wanted = RegisterRequest()
    (wanted.transmitSlots, wanted.receiveSlots) = (request.transmitSlots, request.receiveSlots)
    (wanted.transmitRings, wanted.receiveRings) = (request.transmitRings, request.receiveRings)
    let shape = ValeShape(wanted)
    let region = request.memoryID != 0
      ? try system.memory.find(request.memoryID) : try system.memory.makePrivate(shape.sizes(system.memory), name: name)
    let port = try ValePort(name, shape, region: region, persistent: true, options: options, clock: netisr.clock)
    persistent[name] = port
    port.describe(&wanted)
    var answer = ValeNewInterface()
    (answer.transmitSlots, answer.receiveSlots) = (wanted.transmitSlots, wanted.receiveSlots)
    (answer.transmitRings, answer.receiveRings) = (wanted.transmitRings, wanted.receiveRings)
    answer.memoryID = region.id
    return answer
  }

  public func deleteInterface(_ name: String, in system: NetmapSystem) throws(NetmapError) {
    guard let port = persistent[name] else {
      guard isInterface(name, system) else { throw NetmapError(.ENXIO, "there is no interface \(name)") }
      throw NetmapError(.EINVAL, "\(name) is no persistent port")
    }
    guard port.vale == nil else { throw NetmapError(.EBUSY, "\(name) is attached as \(port.name); detach it first") }
    guard port.krings.openPorts == 0 else { throw NetmapError(.EBUSY, "\(name) is in use; close the programs that hold it") }
    persistent[name] = nil
  }
}

extension ValePort {
  /// What there is, for an answer.
  func describe(_ request: inout RegisterRequest) {
    (request.transmitSlots, request.receiveSlots) = (UInt32(shape.transmitSlots), UInt32(shape.receiveSlots))
    (request.transmitRings, request.receiveRings) = (UInt16(shape.transmitRings), UInt16(shape.receiveRings))
    if let region {
      request.memoryID = region.id
      request.memorySize = UInt64(region.allocator.sharedBytes)
    }
  }
}
