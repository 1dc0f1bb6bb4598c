// The words of netisr: protocols, policies, handlers, results (FreeBSD netisr(9)).

public import Packet

/// A protocol's number: 0 to 15.
public struct NetisrProtocol: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let ip = NetisrProtocol(rawValue: 1)
  public static let igmp = NetisrProtocol(rawValue: 2)
  public static let route = NetisrProtocol(rawValue: 3)
  public static let arp = NetisrProtocol(rawValue: 4)
  public static let ether = NetisrProtocol(rawValue: 5)
  public static let ipv6 = NetisrProtocol(rawValue: 6)
  public static let epair = NetisrProtocol(rawValue: 8)
  public static let ipDirect = NetisrProtocol(rawValue: 9)
  public static let ipv6Direct = NetisrProtocol(rawValue: 10)
  /// Slots.
  public static let count = 16
  public var description: String { "\(rawValue)" }
}

/// How packets of a protocol are spread over workers.
public enum OrderingPolicy: UInt8, Sendable { case source = 1, flow = 2, cpu = 3 }

/// When a handler runs.
public enum DispatchPolicy: UInt8, Sendable { case `default` = 0, deferred = 1, hybrid = 2, direct = 3 }

/// A stack instance (FreeBSD's vnet).
public struct Vnet: RawRepresentable, Hashable, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// The one that every process has.
  public static let base = Vnet(rawValue: 0)
}

/// What a placement callback (m2cpuid) says of a packet.
public enum CPUChoice: Equatable, Sendable {
  case cpu(UInt32)
  /// FreeBSD's NETISR_CPUID_NONE.
  case none
  /// The callback could not place it: the packet is dropped.
  case drop
}

/// A protocol's handler, as it is registered.
public struct NetisrHandler: Sendable {
  /// Unique, no white space.
  public var name: String
  public var proto: NetisrProtocol
  /// Packets a queue; 0 takes the default.
  public var queueLimit = 0
  public var policy: OrderingPolicy
  public var dispatch: DispatchPolicy = .default
  public var handler: @Sendable (consuming Packet) -> Void
  /// FLOW only: puts the flow's number into the packet (`hash`, with `.hashed`), or leaves it.
  /// false drops the packet.
  public var m2flow: (@Sendable (borrowing Packet, _ source: UInt) -> Bool)?
  /// CPU, and only CPU.
  public var m2cpuid: (@Sendable (borrowing Packet, _ source: UInt) -> CPUChoice)?
  /// Called once after each batch from a queue.
  public var drainedcpu: (@Sendable (_ worker: Int) -> Void)?
  /// The handler touches what a worker owns: when a thread that is no worker dispatches directly, the packet is
  /// queued instead.
  public var workersOnly = false

  public init(
    name: String, proto: NetisrProtocol, policy: OrderingPolicy = .source, dispatch: DispatchPolicy = .default,
    queueLimit: Int = 0, workersOnly: Bool = false, handler: @escaping @Sendable (consuming Packet) -> Void
  ) {
    self.name = name
    self.proto = proto
    self.policy = policy
    self.dispatch = dispatch
    self.queueLimit = queueLimit
    self.workersOnly = workersOnly
    self.handler = handler
  }
}

/// What became of a packet that was given to netisr. It is consumed in every case.
public enum DispatchResult: Sendable {
  case ok
  /// ENOBUFS: the queue was full (counted in the drops), or a placement callback gave the packet up.
  case noBuffers
  /// ENOPROTOOPT: the protocol is not enabled in this stack instance.
  case notEnabled
  /// No handler has this number.
  case unregistered
}

/// What netisr refuses to do.
public enum NetisrError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A registration that makes no sense: which handler, and what is wrong with it.
  case registration(handler: String, problem: String)
  case unregistered(proto: UInt8)
  /// EINVAL: a control, the value, what is possible.
  case invalid(name: String, value: String, allowed: String)
  /// Threads or descriptors could not be made.
  case system(String)

  public var description: String {
    switch self {
    case .registration(let handler, let problem): "netisr: the handler \"\(handler)\" cannot be registered: \(problem)."
    case .unregistered(let proto): "netisr: no handler is registered for protocol \(proto)."
    case .invalid(let name, let value, let allowed): "\(name) cannot be \(value); allowed: \(allowed)."
    case .system(let message): "netisr: \(message)."
    }
  }
}
