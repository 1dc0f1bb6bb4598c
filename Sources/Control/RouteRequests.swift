// Requests about routes and neighbours.

/// A route.
public struct RouteRecord: Codable, Sendable, Equatable {
  /// "inet" or "inet6".
  public var family: String
  /// "198.18.0.0/15"; "0.0.0.0/0" for the default.
  public var prefix: String
  /// nil: on the link.
  public var gateway: String?
  /// nil: the interface is gone.
  public var interface: String?
  /// Letters as in `netstat -r`: "UGS".
  public var flags: String
  /// Bytes; nil: the interface's.
  public var mtu: Int?
  public init(family: String, prefix: String, flags: String) {
    self.family = family
    self.prefix = prefix
    self.flags = flags
  }
}

/// All routes, by family and prefix.
public struct RouteList: ControlRequest {
  public static let call = "route.list"
  public typealias Reply = [RouteRecord]
  /// "inet", "inet6"; nil: both.
  public var family: String?
  public init(family: String? = nil) { self.family = family }
}

/// The route that a packet to `address` takes. EINVAL, ESRCH.
public struct RouteGet: ControlRequest {
  public static let call = "route.get"
  public typealias Reply = RouteRecord
  public var address: String
  public init(_ address: String) { self.address = address }
}

/// Where a route leads.
public struct RouteTarget: Codable, Sendable, Equatable {
  /// "198.18.0.0/15", "default", a host's address.
  public var prefix: String
  /// nil: on the link of `interface`.
  public var gateway: String?
  public var interface: String?
  /// Bytes.
  public var mtu: Int?
  /// Answers with ICMP unreachable; drops without a word.
  public var reject: Bool?
  public var blackhole: Bool?
  public init(_ prefix: String, gateway: String? = nil, interface: String? = nil, mtu: Int? = nil) {
    self.prefix = prefix
    self.gateway = gateway
    self.interface = interface
    self.mtu = mtu
  }
}

/// EINVAL, EEXIST, ENETUNREACH (the gateway is on no network of an interface), ENXIO.
public struct RouteAdd: ControlRequest {
  public static let call = "route.add"
  public typealias Reply = RouteRecord
  public static let needsPrivilege = true
  public var route: RouteTarget
  public init(_ route: RouteTarget) { self.route = route }
}

/// Replaces. EINVAL, ESRCH, ENETUNREACH, ENXIO.
public struct RouteChange: ControlRequest {
  public static let call = "route.change"
  public typealias Reply = RouteRecord
  public static let needsPrivilege = true
  public var route: RouteTarget
  public init(_ route: RouteTarget) { self.route = route }
}

/// EINVAL, ESRCH.
public struct RouteDelete: ControlRequest {
  public static let call = "route.delete"
  public typealias Reply = RouteRecord
  public static let needsPrivilege = true
  public var prefix: String
  public init(_ prefix: String) { self.prefix = prefix }
}

/// Removes the routes with gateways; the connected and local ones stay.
public struct RouteFlush: ControlRequest {
  public static let call = "route.flush"
  /// How many.
  public typealias Reply = CountReply
  public static let needsPrivilege = true
  public var family: String?
  public init(family: String? = nil) { self.family = family }
}

public struct CountReply: Codable, Sendable, Equatable {
  public var count: Int
  public init(count: Int) { self.count = count }
}

/// What ARP or neighbour discovery knows of a station.
public struct NeighbourRecord: Codable, Sendable, Equatable {
  /// "inet" (ARP) or "inet6".
  public var family: String
  public var address: String
  /// nil: not resolved.
  public var ether: String?
  public var interface: String
  /// "incomplete", "reachable", "stale", "delay", "probe", "permanent", "failed".
  public var state: String
  /// Seconds until it is forgotten or asked again; nil: never.
  public var expires: Double?
  public var isRouter: Bool?
  /// Answered for others (`arp -s … pub`).
  public var published: Bool?
  public init(family: String, address: String, interface: String, state: String) {
    self.family = family
    self.address = address
    self.interface = interface
    self.state = state
  }
}

/// Neighbours of a family ("inet": `arp -a`, "inet6": `ndp -a`; nil: both), of one interface if it is named.
public struct NeighbourList: ControlRequest {
  public static let call = "neighbour.list"
  public typealias Reply = [NeighbourRecord]
  public var family: String?
  public var interface: String?
  public init(family: String? = nil, interface: String? = nil) {
    self.family = family
    self.interface = interface
  }
}

/// A permanent entry. EINVAL, ENXIO, ENETUNREACH (no interface has such a network).
public struct NeighbourSet: ControlRequest {
  public static let call = "neighbour.set"
  public typealias Reply = NeighbourRecord
  public static let needsPrivilege = true
  public var address: String
  public var ether: String
  /// nil: the interface whose network it is.
  public var interface: String?
  public init(address: String, ether: String, interface: String? = nil) {
    self.address = address
    self.ether = ether
    self.interface = interface
  }
}

/// EINVAL, ESRCH.
public struct NeighbourDelete: ControlRequest {
  public static let call = "neighbour.delete"
  public typealias Reply = ControlDone
  public static let needsPrivilege = true
  public var address: String
  public var interface: String?
  public init(address: String, interface: String? = nil) {
    self.address = address
    self.interface = interface
  }
}

/// Forgets every entry that was learned.
public struct NeighbourFlush: ControlRequest {
  public static let call = "neighbour.flush"
  public typealias Reply = CountReply
  public static let needsPrivilege = true
  public var family: String?
  public var interface: String?
  public init(family: String? = nil, interface: String? = nil) {
    self.family = family
    self.interface = interface
  }
}
