// Requests about netmap: regions, ports, and the programs that hold them.

/// Everything of netmap. ENODEV when the daemon offers no netmap.
public struct NetmapListRequest: ControlRequest {
  public static let call = "netmap.list"
  public typealias Reply = NetmapRecord
  public init() {}
}

public struct NetmapRecord: Codable, Sendable, Equatable {
  /// Memory that programs map.
  public struct Region: Codable, Sendable, Equatable {
    /// `mem_id`
    public var id: Int
    /// "global", "private", "external"
    public var kind: String
    public var name: String
    /// Ports that are open in it.
    public var users: Int
    /// Bytes that a program maps.
    public var bytes: UInt64
    public var bufferSize: Int
    public var buffers: Int
    public var free: Int
    public init(id: Int, kind: String, name: String, users: Int, bytes: UInt64, bufferSize: Int, buffers: Int, free: Int) {
      self.id = id
      self.kind = kind
      self.name = name
      self.users = users
      self.bytes = bytes
      self.bufferSize = bufferSize
      self.buffers = buffers
      self.free = free
    }
  }

  /// A ring that somebody holds.
  public struct Ring: Codable, Sendable, Equatable {
    /// "rx" or "tx"
    public var direction: String
    public var index: Int
    /// Of the host's stack, not of the card.
    public var isHost: Bool
    public var slots: Int
    public var packets: UInt64 = 0
    public var bytes: UInt64 = 0
    public var syncs: UInt64 = 0
    /// Times that the ring was reset because of what a program wrote.
    public var resets: UInt64 = 0
    public var badIndexes: UInt64 = 0
    public var badLengths: UInt64 = 0
    public var drops: UInt64 = 0
    public init(direction: String, index: Int, isHost: Bool, slots: Int) {
      self.direction = direction
      self.index = index
      self.isHost = isHost
      self.slots = slots
    }
  }

  /// A port that programs hold.
  public struct Port: Codable, Sendable, Equatable {
    public var name: String
    /// "card", "switch", "pipe", "monitor", "null"
    public var kind: String
    public var region: Int
    /// Programs that have it open.
    public var users: Int
    public var rings: [Ring]
    public init(name: String, kind: String, region: Int, users: Int, rings: [Ring]) {
      self.name = name
      self.kind = kind
      self.region = region
      self.users = users
      self.rings = rings
    }
  }

  /// A descriptor that a program holds.
  public struct Session: Codable, Sendable, Equatable {
    public var id: UInt64
    /// Of the process that opened it.
    public var pid: Int32
    public var uid: UInt32
    /// Its name, as in /proc/PID/comm; "" when it has ended.
    public var comm: String
    /// nil: nothing is registered.
    public var port: String?
    public var region: Int?
    public var rings: Int
    /// Seconds since it was opened.
    public var age: Double
    public var syncs: UInt64
    /// Packets that told it to look again.
    public var wakeups: UInt64
    /// Times that it woke a worker.
    public var doorbells: UInt64
    public init(
      id: UInt64, pid: Int32, uid: UInt32, comm: String, port: String?, region: Int?, rings: Int, age: Double, syncs: UInt64,
      wakeups: UInt64, doorbells: UInt64
    ) {
      self.id = id
      self.pid = pid
      self.uid = uid
      self.comm = comm
      self.port = port
      self.region = region
      self.rings = rings
      self.age = age
      self.syncs = syncs
      self.wakeups = wakeups
      self.doorbells = doorbells
    }
  }

  /// Where programs connect.
  public var socket: String
  public var regions: [Region]
  public var ports: [Port]
  public var sessions: [Session]
  /// Sums since the start: "sessions", "requests", "refused", "syncs", "wakeups", "doorbells", "quarantined".
  public var counters: [CounterRecord]
  public init(socket: String, regions: [Region], ports: [Port], sessions: [Session], counters: [CounterRecord]) {
    self.socket = socket
    self.regions = regions
    self.ports = ports
    self.sessions = sessions
    self.counters = counters
  }
}
