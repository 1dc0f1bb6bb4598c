// What is below an interface (a card's driver, a TAP, a pair's other end), and what is above it.

public import Packet
public import Wire

/// What an interface asks of its driver: the BSDs' ioctl, typed.
public enum DriverRequest: Equatable, Sendable {
  /// The flags have changed: `up` brings the driver up or down, `promisc` and `allMulti` set filters.
  case setFlags(old: InterfaceFlags, new: InterfaceFlags)
  case setMTU(Int)
  case setCapabilities(InterfaceCapabilities)
  /// Link-level multicast addresses: the driver takes the whole list from the interface.
  case addMulticast(MACAddress)
  case deleteMulticast(MACAddress)
  case setLinkAddress(MACAddress)
  case setMedia(String)
  case polling(Bool)
  /// The driver's own: name and value.
  case generic(name: String, value: String)
  /// SIFPHYS
  case setPhysical(Int)
  /// A tunnel's ends.
  case setTunnel(source: SocketAddress, destination: SocketAddress)
  case deleteTunnel
}

/// What an interface wants to know of its driver.
public enum DriverQuery: Equatable, Sendable {
  /// GIFSTATUS: lines for people.
  case status
  case generic(name: String)
  case tunnel
}

/// What the driver says.
public enum DriverAnswer: Equatable, Sendable {
  case text(String)
  case tunnel(source: SocketAddress, destination: SocketAddress)
}

/// Below an interface.
public protocol InterfaceDriver: AnyObject, Sendable {
  /// Whether it has an if_ioctl at all. Without one it is told nothing, and requests that need it are EOPNOTSUPP.
  var takesRequests: Bool { get }
  /// if_ioctl. Called on worker 0, without a serializer. What it cannot do it refuses with `EOPNOTSUPP`, and nothing
  /// has changed then.
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError)
  /// if_ioctl for what is only read. On worker 0.
  func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer
  /// if_start: takes packets out of the subqueue, on the thread that holds its start interlock. Sets
  /// `subqueue.isActive` (oactive) when the ring is full, and calls `subqueue.ready()` when it has room again.
  func start(_ subqueue: Subqueue)
  /// The interface's watchdog came to 0. On worker 0.
  func watchdog(_ interface: Interface)
  /// A subqueue's watchdog came to 0. On its owner.
  func watchdog(_ subqueue: Subqueue)
  /// nil: no medium.
  var media: MediaStatus? { get }
  /// What keeps callers of this driver apart; asked once, at attach. nil: one lock for all of it.
  var serializer: (any InterfaceSerializer)? { get }
  /// Called last in detach: nothing of the interface is used any more.
  func detached(_ interface: Interface)
  /// Whether it keeps its interface after a detach: the interface then lets go of it, or neither would ever go.
  var holdsInterface: Bool { get }
}

extension InterfaceDriver {
  public var takesRequests: Bool { true }
  /// A driver without filters has nothing to do for flags and groups, and can do nothing else.
  public func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .setFlags, .addMulticast, .deleteMulticast: return
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name) cannot do this")
    }
  }
  public func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer {
    throw InterfaceError(.EOPNOTSUPP, "\(interface.name) does not say this")
  }
  public func watchdog(_ interface: Interface) {}
  public func watchdog(_ subqueue: Subqueue) {}
  public var media: MediaStatus? { nil }
  public var serializer: (any InterfaceSerializer)? { nil }
  public func detached(_ interface: Interface) {}
  public var holdsInterface: Bool { false }
}

/// Above an interface: what frames mean. One a link type (Ethernet, loopback).
public protocol LinkLayer: AnyObject, Sendable {
  /// Takes received frames, all of them; on a worker.
  func input(_ batch: inout PacketBatch, on interface: Interface)
  /// if_output: sends a network-layer packet (without link header) towards `nextHop`. Resolves its address,
  /// and holds the packet until then.
  func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface)
  /// The link-level group of a network-level one (if_resolvemulti); nil: none is needed.
  func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress?
}

/// A family's requests for addresses.
public enum AddressRequest: Equatable, Sendable {
  /// Sets the first address of the family (SIFADDR).
  case set(SocketAddress, prefixLength: Int?, broadcast: SocketAddress?, destination: SocketAddress?)
  /// Adds one (AIFADDR).
  case add(SocketAddress, prefixLength: Int?, broadcast: SocketAddress?, destination: SocketAddress?)
  case delete(SocketAddress)
}

/// A protocol family that attaches to every interface (dom_ifattach).
public protocol ProtocolDomain: AnyObject, Sendable {
  var family: AddressFamily { get }
  func attach(_ interface: Interface)
  func detach(_ interface: Interface)
  /// PRU: an address of this family must know that its interface went up or down.
  func changed(_ interface: Interface, isUp: Bool)
  /// The MTU has changed.
  func mtuChanged(_ interface: Interface)
  /// The link-level address has changed: announce it.
  func linkAddressChanged(_ interface: Interface)
  /// Address requests of this family; on worker 0.
  func control(_ request: AddressRequest, on interface: Interface) throws(InterfaceError)
}
