// An address of an interface.

internal import Synchronization
internal import Wire

/// An interface's address of any family. Its values never change; what changes is the list.
public final class InterfaceAddress: Sendable, Hashable {
  public let address: SocketAddress
  public let mask: SocketAddress?
  public let broadcast: SocketAddress?
  public let destination: SocketAddress?
  /// Leading ones of the mask, for the IP families.
  public let prefixLength: Int
  public let interface: WeakInterface
  /// The family's own marks (tentative, duplicated, deprecated, anycast).
  private let marks = Atomic<UInt32>(0)
  public var flags: UInt32 {
    get { marks.load(ordering: .relaxed) }
    set { marks.store(newValue, ordering: .relaxed) }
  }
  /// The address's own claim function (ifa_claim_addr): whether it answers for another address.
  public let claims: (@Sendable (SocketAddress) -> Bool)?
  /// Called when a route is hung on this address, with the route's destination (ifa_rtrequest).
  public let routeRequest: (@Sendable (SocketAddress) -> Void)?

  public init(
    _ address: SocketAddress, on interface: Interface?, prefixLength: Int = 0, broadcast: SocketAddress? = nil,
    destination: SocketAddress? = nil, claims: (@Sendable (SocketAddress) -> Bool)? = nil,
    routeRequest: (@Sendable (SocketAddress) -> Void)? = nil
  ) {
    self.address = address
    self.prefixLength = prefixLength
    switch address {
    case .ipv4: mask = .ipv4(.mask(prefixLength))
    case .ipv6: mask = .ipv6(.mask(prefixLength))
    default: mask = nil
    }
    self.broadcast = broadcast
    self.destination = destination
    self.interface = WeakInterface(interface)
    self.claims = claims
    self.routeRequest = routeRequest
  }

  public static func == (a: InterfaceAddress, b: InterfaceAddress) -> Bool { a === b }
  public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}

/// An interface that may have gone.
public struct WeakInterface: Sendable {
  private final class Box: @unchecked Sendable {
    weak let value: Interface?
    init(_ value: Interface?) { self.value = value }
  }
  private let box: Box
  init(_ interface: Interface?) { box = Box(interface) }
  public var value: Interface? { box.value }
}
