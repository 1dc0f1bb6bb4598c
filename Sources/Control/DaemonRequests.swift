// Requests about the daemon itself, and subscriptions.

/// The first call of every connection. EPROTONOSUPPORT when no version is spoken by both.
public struct Hello: ControlRequest {
  public static let call = "hello"
  public typealias Reply = HelloReply
  /// Versions of the protocol that the caller speaks.
  public var versions: [Int]
  /// Who calls, for the log.
  public var client: String
  public init(versions: [Int] = Control.versions, client: String) {
    self.versions = versions
    self.client = client
  }
}

public struct HelloReply: Codable, Sendable, Equatable {
  /// The version that is spoken from here on.
  public var version: Int
  /// "ringwayd"
  public var program: String
  public var programVersion: String
  /// Calls it answers.
  public var calls: [String]
  /// Whether this connection may change things.
  public var privileged: Bool
  public init(version: Int, program: String, programVersion: String, calls: [String], privileged: Bool) {
    self.version = version
    self.program = program
    self.programVersion = programVersion
    self.calls = calls
    self.privileged = privileged
  }
}

public struct DaemonStatus: ControlRequest {
  public static let call = "daemon.status"
  public typealias Reply = DaemonRecord
  public init() {}
}

public struct DaemonRecord: Codable, Sendable, Equatable {
  public var version: String
  public var pid: Int32
  /// Seconds.
  public var uptime: Double
  public var workers: Int
  /// Of each worker: nanoseconds since it last answered a heartbeat.
  public var heartbeats: [UInt64]
  public var configuration: String
  public var socket: String
  public var clients: Int
  public var logLevel: String
  public var user: String?
  /// "starting", "running", "reloading", "draining"
  public var state: String
  /// Buffers of the memory and those that are free.
  public var buffers: Int?
  public var freeBuffers: Int?
  public init(
    version: String, pid: Int32, uptime: Double, workers: Int, heartbeats: [UInt64], configuration: String, socket: String,
    clients: Int, logLevel: String, state: String
  ) {
    self.version = version
    self.pid = pid
    self.uptime = uptime
    self.workers = workers
    self.heartbeats = heartbeats
    self.configuration = configuration
    self.socket = socket
    self.clients = clients
    self.logLevel = logLevel
    self.state = state
  }
}

/// Reads the level of the log, or sets it. EINVAL
public struct LogLevelRequest: ControlRequest {
  public static let call = "daemon.log"
  public typealias Reply = LogLevelReply
  /// "trace", "debug", "info", "notice", "warning", "error", "critical"; nil only asks.
  public var level: String?
  public init(level: String? = nil) { self.level = level }
}
public struct LogLevelReply: Codable, Sendable, Equatable {
  public var level: String
  public init(level: String) { self.level = level }
}

/// Drains and ends the daemon; answered before it does.
public struct Shutdown: ControlRequest {
  public static let call = "daemon.shutdown"
  public typealias Reply = ControlDone
  public static let needsPrivilege = true
  public init() {}
}

/// Reads the configuration again and applies what is different. EINVAL when it is wrong: nothing has changed then.
public struct Reload: ControlRequest {
  public static let call = "daemon.reload"
  public typealias Reply = ReloadReply
  public static let needsPrivilege = true
  public init() {}
}
public struct ReloadReply: Codable, Sendable, Equatable {
  /// What was done, a line each.
  public var applied: [String]
  /// What needs a restart.
  public var warnings: [String]
  public init(applied: [String], warnings: [String]) {
    self.applied = applied
    self.warnings = warnings
  }
}

// MARK: Subscriptions

/// What `ringway monitor` can show.
public enum EventCategory: String, Codable, Sendable, CaseIterable {
  /// Interfaces come, go, change names, flags, MTU, groups.
  case interface
  case address
  case link
  case multicast
  case route
  case neighbour
  /// Of the daemon: reload, drain, log.
  case daemon
}

/// Events from now on.
public struct Subscribe: ControlRequest {
  public static let call = "subscribe"
  public typealias Reply = Subscribed
  /// Empty: all.
  public var categories: [EventCategory]
  /// nil: of all interfaces. ENXIO is not an error here: it may come.
  public var interface: String?
  public init(_ categories: [EventCategory] = [], interface: String? = nil) {
    self.categories = categories
    self.interface = interface
  }
}
public struct Subscribed: Codable, Sendable, Equatable {
  public var subscription: UInt64
  public init(subscription: UInt64) { self.subscription = subscription }
}

/// ENOENT when this connection has no such subscription.
public struct Unsubscribe: ControlRequest {
  public static let call = "unsubscribe"
  public typealias Reply = ControlDone
  public var subscription: UInt64
  public init(_ subscription: UInt64) { self.subscription = subscription }
}

/// Frames that pass an interface, and those that are dropped. EPERM, ENXIO, EINVAL (the filter).
public struct CaptureStart: ControlRequest {
  public static let call = "capture.start"
  public typealias Reply = CaptureStarted
  public static let needsPrivilege = true
  /// nil: every interface.
  public var interface: String?
  /// "in", "out"; nil: both.
  public var direction: String?
  /// What passes; false for drops alone.
  public var traffic: Bool
  /// What is dropped, with the reason.
  public var drops: Bool
  /// Bytes of each frame that are kept; nil: 65535.
  public var snapLength: Int?
  /// Packets that wait for a slow reader before some are left out; nil: 4096.
  public var backlog: Int?
  public init(interface: String? = nil, direction: String? = nil, traffic: Bool = true, drops: Bool = false, snapLength: Int? = nil) {
    self.interface = interface
    self.direction = direction
    self.traffic = traffic
    self.drops = drops
    self.snapLength = snapLength
  }
}
public struct CaptureStarted: Codable, Sendable, Equatable {
  public var subscription: UInt64
  /// Interfaces whose frames may come, with their link types (1: Ethernet, 12: raw IP; LINKTYPE_ numbers).
  public var interfaces: [CaptureInterface]
  public init(subscription: UInt64, interfaces: [CaptureInterface]) {
    self.subscription = subscription
    self.interfaces = interfaces
  }
}
public struct CaptureInterface: Codable, Sendable, Equatable {
  public var name: String
  public var index: Int
  public var linkType: Int
  public init(name: String, index: Int, linkType: Int) {
    self.name = name
    self.index = index
    self.linkType = linkType
  }
}

// MARK: Events

/// What a subscription sends.
public enum ControlEvent: Codable, Sendable, Equatable {
  case change(ChangeRecord)
  case packet(CapturedPacket)
  /// The reader was too slow: this many are missing here.
  case lost(count: UInt64)
  /// The last: why no more come ("shutdown", "slow reader", "unsubscribed").
  case end(reason: String)
}

/// One line of `ringway monitor`.
public struct ChangeRecord: Codable, Sendable, Equatable {
  /// Seconds since 1970.
  public var time: Double
  public var category: EventCategory
  /// "attach", "arrival", "departure", "detach", "up", "down", "renamed", "added", "removed", "changed", …
  public var event: String
  public var interface: String?
  public var index: Int?
  /// What is new: an address, a name, a prefix, a number.
  public var detail: String?
  public init(time: Double, category: EventCategory, event: String, interface: String? = nil, index: Int? = nil, detail: String? = nil) {
    self.time = time
    self.category = category
    self.event = event
    self.interface = interface
    self.index = index
    self.detail = detail
  }
}

/// A frame of a capture.
public struct CapturedPacket: Codable, Sendable, Equatable {
  /// Nanoseconds since 1970, taken by software.
  public var time: UInt64
  public var interface: String?
  public var index: Int
  /// "in", "out"; nil for a drop.
  public var direction: String?
  /// Why it was dropped; nil: it was not.
  public var drop: String?
  public var queue: Int?
  public var proto: String?
  /// Bytes on the wire.
  public var length: Int
  /// What was kept, in base 64.
  public var data: String
  public init(time: UInt64, interface: String?, index: Int, length: Int, data: String) {
    self.time = time
    self.interface = interface
    self.index = index
    self.length = length
    self.data = data
  }
  /// The frame's bytes; nil when `data` is not base 64.
  public var bytes: [UInt8]? { Base64.decode(data) }
}
