// What `netstat -Q` shows: settings, protocols, work streams.

internal import CRingway
internal import Synchronization

/// A line of "Configuration:".
public struct NetisrSetting: Equatable, Sendable {
  public var name: String
  public var current: String
  /// "n/a" where there is none.
  public var limit: String
}

/// A line of "Protocols:".
public struct NetisrProtocolLine: Equatable, Sendable {
  public var name: String
  public var proto: NetisrProtocol
  public var queueLimit: Int
  public var policy: OrderingPolicy
  public var dispatch: DispatchPolicy
  /// C: it has an m2cpuid; D: a drainedcpu; F: an m2flow; "-" where it has not.
  public var flags: String
}

/// A line of "Workstreams:".
public struct WorkStreamLine: Equatable, Sendable {
  /// The worker; nil for threads that are no worker.
  public var workstream: Int?
  /// The processor: the one that the worker is bound to, or its own number when it is bound to none.
  public var cpu: Int?
  public var name: String
  public var proto: NetisrProtocol
  /// Packets in the queue now, and the most there ever were.
  public var length: Int
  public var watermark: Int
  public var dispatched: UInt64
  public var hybridDispatched: UInt64
  public var queueDrops: UInt64
  public var queued: UInt64
  /// dispatched + hybridDispatched + queued - purged, when nothing is on its way.
  public var handled: UInt64
  /// Queued packets that were freed without having been handled.
  public var purged: UInt64
}

extension DispatchPolicy: CustomStringConvertible {
  public var description: String {
    switch self {
    case .default: "default"
    case .deferred: "deferred"
    case .hybrid: "hybrid"
    case .direct: "direct"
    }
  }
}

extension OrderingPolicy: CustomStringConvertible {
  public var description: String {
    switch self {
    case .source: "source"
    case .flow: "flow"
    case .cpu: "cpu"
    }
  }
}

extension Netisr {
  /// The global dispatch policy; never `default`.
  public var dispatchPolicy: DispatchPolicy { shared.policy(of: nil) }

  /// Sets the global dispatch policy, for packets from now on.
  public func setDispatchPolicy(_ policy: DispatchPolicy) throws(NetisrError) {
    guard policy != .default else {
      throw .invalid(name: "the global dispatch policy", value: "\(policy)", allowed: "deferred, hybrid, direct")
    }
    shared.policy.store(policy.rawValue, ordering: .sequentiallyConsistent)
  }

  /// "Configuration:"
  public var settings: [NetisrSetting] {
    let possible = max(workers.count, configuration.cpus?.count ?? workers.count)
    return [
      NetisrSetting(name: "Thread count", current: "\(workers.count)", limit: "\(possible)"),
      NetisrSetting(name: "Default queue limit", current: "\(shared.defaultQueueLimit)", limit: "\(shared.maxQueueLimit)"),
      NetisrSetting(name: "Dispatch policy", current: "\(dispatchPolicy)", limit: "n/a"),
      NetisrSetting(
        name: "Threads bound to CPUs", current: configuration.bindThreads ? "enabled" : "disabled", limit: "n/a"),
    ]
  }

  /// "Protocols:", by number.
  public var protocols: [NetisrProtocolLine] {
    shared.registry.withLock { registry in
      registry.entries.enumerated().compactMap { number, entry in
        guard let entry else { return nil }
        let flags =
          (entry.m2cpuid == nil ? "-" : "C") + (entry.drainedcpu == nil ? "-" : "D") + (entry.m2flow == nil ? "-" : "F")
        return NetisrProtocolLine(
          name: entry.name, proto: NetisrProtocol(rawValue: UInt8(number)),
          queueLimit: unsafe shared.slots[number].limit.load(ordering: .relaxed), policy: entry.policy,
          dispatch: entry.dispatch, flags: flags)
      }
    }
  }

  /// "Workstreams:", by worker and protocol; last, what threads that are no worker dispatched directly.
  public var workStreams: [WorkStreamLine] {
    let protocols = protocols
    var lines: [WorkStreamLine] = []
    for worker in workers {
      for line in protocols {
        lines.append(unsafe Self.line(line, shared.blocks[worker.id].pointee.streams + Int(line.proto.rawValue), worker.id, worker.cpu ?? worker.id))
      }
    }
    for line in protocols { lines.append(unsafe Self.line(line, shared.foreign + Int(line.proto.rawValue), nil, nil)) }
    return lines
  }

  private static func line(
    _ proto: NetisrProtocolLine, _ stream: UnsafeMutablePointer<WorkStream>, _ id: Int?, _ cpu: Int?
  ) -> WorkStreamLine {
    unsafe WorkStreamLine(
      workstream: id, cpu: cpu, name: proto.name, proto: proto.proto, length: stream.pointee.length,
      watermark: stream.pointee.watermark, dispatched: stream.pointee.direct, hybridDispatched: stream.pointee.hybrid,
      queueDrops: stream.pointee.drops, queued: stream.pointee.queued, handled: stream.pointee.handled,
      purged: stream.pointee.purged)
  }
}

extension NetisrShared {
  /// An entry's own policy, or the global one.
  func policy(of entry: HandlerEntry?) -> DispatchPolicy {
    if let entry, entry.dispatch != .default { return entry.dispatch }
    return DispatchPolicy(rawValue: policy.load(ordering: .relaxed)) ?? .direct
  }
}
