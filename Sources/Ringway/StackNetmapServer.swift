// netmap for programs outside: a stack's ports over a socket, and what it tells of them.

public import Control
internal import DeviceIO
internal import Ifnet
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
public import NetmapServer
internal import Netisr
internal import Platform
internal import Wire

extension Stack {
  /// A server that offers this stack's ports to other processes. Nobody is answered before its `start`; `stop` of the stack
  /// stops it, too. A stack has one at most: a second one is EBUSY.
  public func makeNetmapServer(_ options: NetmapServerOptions) throws(ControlError) -> NetmapServer {
    var options = options
    options.query = { [weak self] name throws(NetmapError) in
      guard let self else { throw NetmapError(.ENXIO, "The daemon is ending.") }
      return try answer(query: name)
    }
    let server: NetmapServer
    do { server = try NetmapServer(netmap, options) } catch { throw ControlError("EMFILE", "netmap's server cannot be made: \(error).") }
    let isFirst = state.withLock { state in
      guard state.netmapServer == nil, !state.isStopped else { return false }
      state.netmapServer = server
      return true
    }
    guard isFirst else { throw ControlError("EBUSY", "the stack has a netmap server already, or is stopped.") }
    addControls(of: server)
    return server
  }

  /// Programs see an error; their rings are the cards' again when this returns. Idempotent.
  public func stopNetmap() {
    let server = state.withLock { state in
      defer { state.netmapServer = nil }
      return state.netmapServer
    }
    server?.stop()
  }

  func serveNetmap(_ server: ControlServer) {
    server.handle(NetmapListRequest.self) { [self] (_, _) throws(ControlError) in
      guard let netmap = state.withLock({ $0.netmapServer }) else {
        throw ControlError("ENODEV", "this daemon serves no netmap programs: netmap.enabled is false.")
      }
      return netmap.record()
    }
  }

  private func addControls(of server: NetmapServer) {
    let counters: [(String, String, @Sendable (NetmapServerCounters) -> UInt64)] = [
      ("sessions", "Descriptors that registered a port since the start", \.sessions),
      ("requests", "Requests that programs sent", \.requests),
      ("refused", "Connections and requests that were turned away", \.refused),
      ("syncs", "Syncs that programs asked for in shared memory", \.syncs),
      ("wakeups", "Wakeups that were sent to waiting programs", \.wakeups),
      ("doorbells", "Times that programs woke a sleeping worker", \.doorbells),
      ("quarantined", "Sessions that were closed because their memory was taken away", \.quarantined),
    ]
    for (name, summary, value) in counters {
      netisr.sysctl.add("netmap.server.\(name)", summary, read: { [weak server] in
        .integer(Int64(clamping: server.map { value($0.counters) } ?? 0))
      })
    }
    netisr.sysctl.add("netmap.server.open", "netmap descriptors that are open", read: { [weak server] in .integer(Int64(server?.clientCount ?? 0)) })
    netisr.sysctl.add(
      "netmap.spin_us", "Microseconds that a worker looks for a program's next sync before it sleeps",
      read: { [weak server] in .integer(Int64(server?.spinMicroseconds ?? 0)) }
    ) { [weak server] text throws(SysctlError) in
      guard let value = Int(text), (0...1_000_000).contains(value) else {
        throw .invalid(name: "netmap.spin_us", value: String(text.prefix(64)), allowed: "0 to 1000000")
      }
      server?.spinMicroseconds = value
    }
  }

  /// What a program would ask the kernel of an interface. ENXIO
  private func answer(query name: String) throws(NetmapError) -> PortQueryReply {
    guard let interface = interfaces.interface(named: name) else {
      throw NetmapError(.ENXIO, "\(name): there is no interface with this name.")
    }
    let bits = interface.flags.rawValue
    // The first flags are Linux's, too (netdevice(7)), but for 0x20; IFF_MULTICAST is another bit.
    let flags = UInt32(truncatingIfNeeded: bits) & 0x3df | (interface.flags.contains(.multicast) ? 0x1000 : 0)
    var reply = PortQueryReply(address: interface.linkAddress.map { Array($0.bytes) } ?? [], mtu: UInt32(clamping: interface.mtu), flags: flags)
    // An interface without a card has no rings.
    guard let ports = try? netmap.onControl({ [netmap] () throws(NetmapError) in
      let adapter = try netmap.adapter(for: PortRequest(name, RingSelection(.allNIC)), create: false)
      return (adapter.counts, adapter.slots(.transmit, host: false), adapter.slots(.receive, host: false), adapter.krings.region?.id ?? 0)
    }) else { return reply }
    let (counts, sent, received, region) = ports
    (reply.transmitRings, reply.receiveRings) = (UInt16(clamping: counts.transmit), UInt16(clamping: counts.receive))
    (reply.hostTransmitRings, reply.hostReceiveRings) = (UInt16(clamping: counts.hostTransmit), UInt16(clamping: counts.hostReceive))
    (reply.transmitSlots, reply.receiveSlots) = (UInt32(clamping: sent), UInt32(clamping: received))
    reply.memoryID = region
    return reply
  }
}
