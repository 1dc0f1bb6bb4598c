// Requests about netisr, controls, statistics and drops.

/// The tables of `netstat -Q`.
public struct NetisrTables: ControlRequest {
  public static let call = "netisr.tables"
  public typealias Reply = NetisrRecord
  public init() {}
}

public struct NetisrRecord: Codable, Sendable, Equatable {
  public struct Setting: Codable, Sendable, Equatable {
    /// "Thread count"
    public var setting: String
    public var current: String
    /// "n/a" where there is none.
    public var limit: String
    public init(_ setting: String, _ current: String, _ limit: String) {
      self.setting = setting
      self.current = current
      self.limit = limit
    }
  }
  public struct Proto: Codable, Sendable, Equatable {
    public var name: String
    public var proto: Int
    public var queueLimit: Int
    /// "source", "flow", "cpu"
    public var policy: String
    /// "default", "deferred", "hybrid", "direct"
    public var dispatch: String
    /// "C--", "-D-", "--F": placement by CPU, drained call, flow call.
    public var flags: String
    public init(name: String, proto: Int, queueLimit: Int, policy: String, dispatch: String, flags: String) {
      self.name = name
      self.proto = proto
      self.queueLimit = queueLimit
      self.policy = policy
      self.dispatch = dispatch
      self.flags = flags
    }
  }
  public struct Workstream: Codable, Sendable, Equatable {
    /// -1: calls from threads that are no workers.
    public var wsid: Int
    public var cpu: Int
    public var name: String
    public var length: UInt64
    public var watermark: UInt64
    public var dispatched: UInt64
    public var hybridDispatched: UInt64
    public var queueDrops: UInt64
    public var queued: UInt64
    public var handled: UInt64
    public init(
      wsid: Int, cpu: Int, name: String, length: UInt64, watermark: UInt64, dispatched: UInt64, hybridDispatched: UInt64,
      queueDrops: UInt64, queued: UInt64, handled: UInt64
    ) {
      self.wsid = wsid
      self.cpu = cpu
      self.name = name
      self.length = length
      self.watermark = watermark
      self.dispatched = dispatched
      self.hybridDispatched = hybridDispatched
      self.queueDrops = queueDrops
      self.queued = queued
      self.handled = handled
    }
  }
  public var configuration: [Setting]
  public var protocols: [Proto]
  public var workstreams: [Workstream]
  public init(configuration: [Setting], protocols: [Proto], workstreams: [Workstream]) {
    self.configuration = configuration
    self.protocols = protocols
    self.workstreams = workstreams
  }
}

/// A control of the sysctl tree.
public struct SysctlRecord: Codable, Sendable, Equatable {
  public var name: String
  /// One line for people.
  public var summary: String
  /// The value as text: a number, a string, a table with a line for each row.
  public var value: String
  /// Set when the value is a number.
  public var integer: Int64?
  /// Set when it is a table.
  public var columns: [String]?
  public var rows: [[String]]?
  public var isWritable: Bool
  public init(name: String, summary: String, value: String, isWritable: Bool) {
    self.name = name
    self.summary = summary
    self.value = value
    self.isWritable = isWritable
  }
}

/// Controls at or below a name; "" for all. ENOENT when there is none.
public struct SysctlList: ControlRequest {
  public static let call = "sysctl.list"
  public typealias Reply = [SysctlRecord]
  public var prefix: String
  public init(_ prefix: String = "") { self.prefix = prefix }
}

/// Sets a control; answers with its former and its new value. ENOENT, EPERM (read only), EINVAL.
public struct SysctlWrite: ControlRequest {
  public static let call = "sysctl.write"
  public typealias Reply = SysctlWritten
  public static let needsPrivilege = true
  public var name: String
  public var value: String
  public init(_ name: String, _ value: String) {
    self.name = name
    self.value = value
  }
}
public struct SysctlWritten: Codable, Sendable, Equatable {
  public var old: String
  public var new: String
  public init(old: String, new: String) {
    self.old = old
    self.new = new
  }
}

/// Counters of a protocol, as `netstat -s` shows them.
public struct StatisticsRecord: Codable, Sendable, Equatable {
  /// "ip", "icmp", "igmp", "arp", "ip6", "icmp6", "ether"
  public var proto: String
  public var counters: [CounterRecord]
  public init(proto: String, counters: [CounterRecord]) {
    self.proto = proto
    self.counters = counters
  }
}

/// ENOENT when there is no such protocol.
public struct Statistics: ControlRequest {
  public static let call = "statistics"
  public typealias Reply = [StatisticsRecord]
  public var proto: String?
  public init(proto: String? = nil) { self.proto = proto }
}

/// A line of the ledger of drops.
public struct DropRecord: Codable, Sendable, Equatable {
  /// nil: the interface is gone, or none was concerned.
  public var interface: String?
  public var index: Int
  public var queue: Int
  /// The protocol's name, "" where none is concerned.
  public var proto: String
  /// As in "netisr-queue-full".
  public var reason: String
  public var packets: UInt64
  public var bytes: UInt64
  public init(interface: String?, index: Int, queue: Int, proto: String, reason: String, packets: UInt64, bytes: UInt64) {
    self.interface = interface
    self.index = index
    self.queue = queue
    self.proto = proto
    self.reason = reason
    self.packets = packets
    self.bytes = bytes
  }
}

/// What was dropped since the start, by interface, queue, protocol and reason.
public struct Drops: ControlRequest {
  public static let call = "drops"
  public typealias Reply = [DropRecord]
  public var interface: String?
  public init(interface: String? = nil) { self.interface = interface }
}

/// One look at what only grows, for `ringway top`: rates are differences between two.
public struct TopSample: ControlRequest {
  public static let call = "top.sample"
  public typealias Reply = TopRecord
  public init() {}
}

public struct TopRecord: Codable, Sendable, Equatable {
  public struct Worker: Codable, Sendable, Equatable {
    public var id: Int
    public var cpu: Int?
    /// Cycles (of the time-stamp counter) that it worked; nil where there is no such counter.
    public var busyCycles: UInt64?
    public var totalCycles: UInt64?
    /// Packets its handlers saw, and the batches they came in.
    public var packets: UInt64
    public var batches: UInt64
    public var messages: UInt64?
    public var sleeps: UInt64?
    public var wakeups: UInt64?
    public init(id: Int, cpu: Int?, packets: UInt64, batches: UInt64) {
      self.id = id
      self.cpu = cpu
      self.packets = packets
      self.batches = batches
    }
  }
  /// A ring of a card.
  public struct Queue: Codable, Sendable, Equatable {
    public var interface: String
    /// "rx" or "tx"
    public var direction: String
    public var index: Int
    public var worker: Int?
    public var packets: UInt64
    public var bytes: UInt64
    public var batches: UInt64?
    /// Writes of the tail register.
    public var tailWrites: UInt64?
    public var drops: UInt64
    public init(interface: String, direction: String, index: Int, packets: UInt64, bytes: UInt64, drops: UInt64) {
      self.interface = interface
      self.direction = direction
      self.index = index
      self.packets = packets
      self.bytes = bytes
      self.drops = drops
    }
  }
  /// Nanoseconds of the monotonic clock.
  public var time: UInt64
  /// Cycles a second; nil: not known.
  public var cyclesPerSecond: UInt64?
  public var workers: [Worker]
  public var interfaces: [Interface]
  public var queues: [Queue]
  public var streams: [NetisrRecord.Workstream]
  public var drops: [DropRecord]

  public struct Interface: Codable, Sendable, Equatable {
    public var name: String
    public var counters: CountersRecord
    public init(name: String, counters: CountersRecord) {
      self.name = name
      self.counters = counters
    }
  }
  public init(
    time: UInt64, cyclesPerSecond: UInt64?, workers: [Worker], interfaces: [Interface], queues: [Queue],
    streams: [NetisrRecord.Workstream], drops: [DropRecord]
  ) {
    self.time = time
    self.cyclesPerSecond = cyclesPerSecond
    self.workers = workers
    self.interfaces = interfaces
    self.queues = queues
    self.streams = streams
    self.drops = drops
  }
}
