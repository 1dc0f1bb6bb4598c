// Requests about interfaces.

/// All interfaces, by index. ENXIO when `group` has no members or `interface` does not exist.
public struct InterfaceList: ControlRequest {
  public static let call = "interface.list"
  public typealias Reply = [InterfaceRecord]
  /// Members of this group only.
  public var group: String?
  public init(group: String? = nil) { self.group = group }
}

/// One interface. ENXIO
public struct InterfaceGet: ControlRequest {
  public static let call = "interface.get"
  public typealias Reply = InterfaceRecord
  public var interface: String
  public init(_ interface: String) { self.interface = interface }
}

/// Changes an interface, one change after the other; the first that is refused ends it. A missing interface is
/// ENXIO before any privilege is asked for (EPERM).
public struct InterfaceSet: ControlRequest {
  public static let call = "interface.set"
  /// The interface as it is then.
  public typealias Reply = InterfaceRecord
  public var interface: String
  public var changes: [InterfaceChange]
  public init(_ interface: String, _ changes: [InterfaceChange]) {
    self.interface = interface
    self.changes = changes
  }
}

/// Makes an interface (IFCREATE2). EPERM, EINVAL, EEXIST, ENOSPC, ENXIO.
public struct InterfaceCreate: ControlRequest {
  public static let call = "interface.create"
  public typealias Reply = InterfaceCreated
  public static let needsPrivilege = true
  /// "tap0", or "tap" for the lowest free unit.
  public var name: String
  /// Of the cloner: of a TAP "netns" and "device", of a VLAN "parent" and "tag".
  public var options: [String: String]
  public init(_ name: String, options: [String: String] = [:]) {
    self.name = name
    self.options = options
  }
}
public struct InterfaceCreated: Codable, Sendable, Equatable {
  public var name: String
  public init(name: String) { self.name = name }
}

/// EPERM, EINVAL, ENXIO, EOPNOTSUPP.
public struct InterfaceDestroy: ControlRequest {
  public static let call = "interface.destroy"
  public typealias Reply = ControlDone
  public static let needsPrivilege = true
  public var name: String
  public init(_ name: String) { self.name = name }
}

/// Kinds of interfaces that can be made.
public struct InterfaceCloners: ControlRequest {
  public static let call = "interface.cloners"
  public typealias Reply = [String]
  public init() {}
}

/// All groups, or the members of one. ENOENT
public struct GroupList: ControlRequest {
  public static let call = "group.list"
  public typealias Reply = [String]
  public var group: String?
  public init(_ group: String? = nil) { self.group = group }
}

/// A driver's own statistics. ENXIO, EOPNOTSUPP when the interface has no card below it.
public struct DriverStatistics: ControlRequest {
  public static let call = "interface.driver"
  public typealias Reply = [CounterRecord]
  public var interface: String
  public init(_ interface: String) { self.interface = interface }
}

/// A counter with the words that people see.
public struct CounterRecord: Codable, Sendable, Equatable {
  /// As in "rx_no_buffer".
  public var name: String
  /// As in "packets received without a buffer".
  public var text: String
  public var value: UInt64
  public init(_ name: String, _ text: String, _ value: UInt64) {
    self.name = name
    self.text = text
    self.value = value
  }
}
