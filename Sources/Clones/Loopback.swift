// lo: what is sent comes back, on the worker that sends it.

public import Ifnet
internal import Netisr
internal import Packet

/// Gives every packet back to the interface that sent it.
final class LoopbackDriver: InterfaceDriver {
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .setFlags(_, let new):
      interface.setDriverFlags(new.contains(.up) ? .running : [], clear: new.contains(.up) ? [] : .running)
      interface.setLink(new.contains(.up) ? .up : .down)
    case .setMTU, .addMulticast, .deleteMulticast: return
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name): a loopback interface cannot do this")
    }
  }

  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 { subqueue.interface.input(&batch, queue: subqueue.index) }
  }
}

/// Makes loopback interfaces; lo0 is there from the start.
public final class LoopbackCloner: InterfaceCloner {
  public let name = "lo"
  public let minimumUnits = 1
  /// Bytes, as FreeBSD's.
  static let mtu = 16384

  public init() {}

  public func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface {
    try CloneParameters(request, of: "\(name)\(request.unit)").finish()
    var options = InterfaceOptions(name, unit: request.unit, type: .loopback)
    options.flags = [.loopback, .multicast]
    options.mtu = Self.mtu
    options.queueLength = SendLimits.standard
    options.subqueues = table.netisr.workers.count
    options.vnet = request.vnet
    return try table.attach(options, driver: LoopbackDriver())
  }

  public func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError) { table.detach(interface) }
}
