// The requests of one descriptor.

internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts

/// An open netmap descriptor: what is registered on it.
final class ProgramDescriptor {
  private let system: NetmapSystem
  private(set) var port: NetmapPort?
  /// `nr_mode` of the registration.
  private(set) var mode: UInt32 = 0

  init(_ system: NetmapSystem) { self.system = system }

  func ioctl(_ number: UInt64, _ payload: inout [UInt8]) throws(NetmapError) {
    guard number == NetmapIoctl.control else { throw NetmapError(.EINVAL, "There is no request \(number).") }
    var flat = try FlatRequest(decoding: payload)
    defer { payload = flat.encoded() }
    try flat.admit()
    guard flat.kind == .register else { throw NetmapError(.EINVAL, "Request \(flat.type) is not known here.") }
    guard port == nil else { throw NetmapError(.EBUSY, "The descriptor has registered a port already; close it first.") }
    var register = try RegisterRequest(decoding: flat.body)
    let selection = RingSelection(try register.registerMode(), flags: register.registerFlags)
    let port = try system.register(PortRequest(flat.name, selection, register: register))
    self.port = port
    mode = register.mode
    register.offset = UInt64(port.memory.offset)
    register.memorySize = UInt64(port.region.allocator.sharedBytes)
    register.memoryID = port.region.id
    let counts = port.adapter.counts
    register.transmitRings = UInt16(counts.transmit)
    register.receiveRings = UInt16(counts.receive)
    register.hostTransmitRings = UInt16(counts.hostTransmit)
    register.hostReceiveRings = UInt16(counts.hostReceive)
    register.transmitSlots = UInt32(port.adapter.slots(.transmit, host: false))
    register.receiveSlots = UInt32(port.adapter.slots(.receive, host: false))
    register.extraBuffers = UInt32(port.extraBuffers)
    flat.answer(register)
  }

  func close() {
    port?.close()
    port = nil
  }
}
