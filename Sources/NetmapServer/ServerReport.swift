// What the server tells of itself.

public import Control
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
internal import Netisr
internal import Platform

/// A descriptor that is open, as reports see it.
struct ClientEntry: Sendable {
  let peer: NetmapPeer
  let comm: String
  /// Nanoseconds of the monotonic clock.
  let since: UInt64
  var port: NetmapPort?
  var session: Session?
}

extension NetmapServer {
  public var counters: NetmapServerCounters {
    let (past, clients) = state.withLock { ($0.past, $0.clients) }
    return clients.values.reduce(into: past) { sum, client in
      guard let session = client.session else { return }
      sum.syncs &+= session.syncs
      sum.wakeups &+= session.waker.count
      sum.doorbells &+= session.doorbells
    }
  }

  /// Regions, ports and programs. Asks the workers for their rings' counters: not from a worker.
  public func record() -> NetmapRecord {
    let clients = state.withLock { $0.clients }
    let ports = clients.values.compactMap(\.port)
    let counters = self.counters
    return NetmapRecord(
      socket: options.path ?? "", regions: regions(of: ports), ports: records(of: ports),
      sessions: clients.sorted { $0.key < $1.key }.map { session(id: $0.key, $0.value) },
      counters: [
        CounterRecord("sessions", "descriptors that registered a port", counters.sessions),
        CounterRecord("requests", "requests from programs", counters.requests),
        CounterRecord("refused", "connections and requests turned away", counters.refused),
        CounterRecord("syncs", "syncs asked for in shared memory", counters.syncs),
        CounterRecord("wakeups", "wakeups sent to waiting programs", counters.wakeups),
        CounterRecord("doorbells", "workers woken by programs", counters.doorbells),
        CounterRecord("quarantined", "sessions closed for memory that was taken away", counters.quarantined),
      ])
  }

  private func session(id: UInt64, _ client: ClientEntry) -> NetmapRecord.Session {
    NetmapRecord.Session(
      id: id, pid: client.peer.pid, uid: client.peer.uid, comm: client.comm, port: client.port?.adapter.name,
      region: client.port.map { Int($0.region.id) }, rings: client.port?.krings.count ?? 0,
      age: Double(clock.now() &- client.since) / 1e9, syncs: client.session?.syncs ?? 0, wakeups: client.session?.waker.count ?? 0,
      doorbells: client.session?.doorbells ?? 0)
  }

  private func regions(of ports: [NetmapPort]) -> [NetmapRecord.Region] {
    var found: [UInt16: NetmapRegion] = [:]
    for port in ports { found[port.region.id] = port.region }
    if let global = system.memory.region(NetmapRegion.globalID) { found[global.id] = global }
    return found.values.sorted { $0.id < $1.id }.map { region in
      let allocator = region.allocator
      return NetmapRecord.Region(
        id: Int(region.id), kind: region.kind.rawValue, name: region.name, users: region.users, bytes: UInt64(allocator.sharedBytes),
        bufferSize: allocator.bufferSize, buffers: allocator.bufferCount,
        free: allocator.statistics.first { $0.name == "buffer" }?.free ?? 0)
    }
  }

  private func records(of ports: [NetmapPort]) -> [NetmapRecord.Port] {
    var seen: Set<ObjectIdentifier> = []
    var records: [NetmapRecord.Port] = []
    for port in ports where seen.insert(ObjectIdentifier(port.adapter)).inserted {
      let adapter = port.adapter
      let held = ports.filter { $0.adapter === adapter }
      var rings: [RingID: NetmapRecord.Ring] = [:]
      for kring in held.flatMap(\.krings) where rings[kring.id] == nil { rings[kring.id] = record(of: kring, port) }
      records.append(
        NetmapRecord.Port(
          name: adapter.name, kind: PortKind(adapter.name).rawValue, region: Int(port.region.id), users: adapter.krings.openPorts,
          rings: rings.values.sorted { ($0.isHost ? 1 : 0, $0.direction, $0.index) < ($1.isHost ? 1 : 0, $1.direction, $1.index) }))
    }
    return records.sorted { $0.name < $1.name }
  }

  private func record(of kring: Kring, _ port: NetmapPort) -> NetmapRecord.Ring {
    var ring = NetmapRecord.Ring(
      direction: kring.id.direction == .transmit ? "tx" : "rx", index: kring.id.number, isHost: kring.id.isHost, slots: Int(kring.count))
    guard let counters = port.counters(kring.id) else { return ring }
    (ring.packets, ring.bytes, ring.syncs, ring.resets) = (counters.packets, counters.bytes, counters.syncs, counters.resets)
    (ring.badIndexes, ring.badLengths, ring.drops) = (counters.badIndexes, counters.badLengths, counters.drops)
    return ring
  }
}
