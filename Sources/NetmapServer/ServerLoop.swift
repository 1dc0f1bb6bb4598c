// The server's thread: who comes, who asks, who has gone.

internal import ControlClient
internal import CRingway
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
internal import Platform

extension NetmapServer {
  private static let listenerToken: UInt64 = 1
  private static let wakeToken: UInt64 = 2
  /// Requests of one client before the others have a turn.
  private static let requestsPerTurn = 8

  func run() {
    do { try loop(try Epoll()) } catch { options.log("netmap's thread cannot wait for programs: \(error)") }
    // All of them first: each may be waiting, and closing takes time.
    for connection in connections.values { connection.session?.waker.tellGone() }
    for token in connections.keys.sorted() { close(token) }
    for left in takeAdopted() { OwnedDescriptor(taking: left.descriptor).close() }
  }

  private func takeAdopted() -> [(descriptor: Int32, peer: NetmapPeer?)] {
    state.withLock { state in
      defer { state.adopted = [] }
      return state.adopted
    }
  }

  private func loop(_ epoll: consuming Epoll) throws(SystemError) {
    try epoll.add(wake.descriptor, token: Self.wakeToken)
    if let listener { try epoll.add(listener.descriptor, token: Self.listenerToken) }
    while !(state.withLock { $0.isStopping }) {
      let events = (try? epoll.wait(milliseconds: 1000)) ?? []
      for event in events {
        switch event.token {
        case Self.wakeToken: wake.drain()
        case Self.listenerToken: accept(epoll)
        default: handle(event)
        }
      }
      for adopted in takeAdopted() { add(OwnedDescriptor(taking: adopted.descriptor), adopted.peer, epoll) }
      if settings.hasFault.exchange(false, ordering: .acquiringAndReleasing) || events.isEmpty { quarantine() }
    }
  }

  private func accept(_ epoll: borrowing Epoll) {
    guard let listener else { return }
    while true {
      let raw = rw_accept(listener.descriptor, Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue))
      guard raw >= 0 else {
        // Out of descriptors: the next one that closes makes room; not at once, so that this thread does not spin.
        if rw_errno() == EMFILE || rw_errno() == ENFILE { clock.sleep(nanoseconds: 10_000_000) }
        return
      }
      add(OwnedDescriptor(taking: raw), nil, epoll)
    }
  }

  private func add(_ descriptor: consuming OwnedDescriptor, _ known: NetmapPeer?, _ epoll: borrowing Epoll) {
    let peer = known ?? NetmapPeer(of: descriptor.raw)
    let ofUser = perUser[peer.uid] ?? 0
    guard connections.count < options.maximumClients, peer.uid == 0 || ofUser < options.maximumPerUser else {
      count { $0.refused += 1 }
      return options.log("process \(peer.pid) was turned away: there are \(connections.count) netmap descriptors, \(ofUser) of user \(peer.uid) (netmap.clients, netmap.clients-per-user)")
    }
    let connection = Connection(SessionSocket(descriptor), token: nextToken, peer: peer, system: system)
    nextToken += 1
    do { try epoll.add(connection.socket.descriptor, for: [.readable, .peerClosed], token: connection.token) } catch {
      return options.log("a netmap descriptor cannot be watched: \(error)")
    }
    connections[connection.token] = connection
    perUser[peer.uid] = ofUser + 1
    let entry = ClientEntry(peer: peer, comm: peer.comm, since: clock.now())
    state.withLock { $0.clients[connection.token] = entry }
  }

  private func handle(_ event: Epoll.Event) {
    guard let connection = connections[event.token] else { return }
    // Nobody is left who could read an answer.
    if !event.ready.isDisjoint(with: [.hangUp, .error, .peerClosed]) { return close(event.token) }
    for _ in 0..<Self.requestsPerTurn {
      switch connection.receive() {
      case .nothing: return
      case .request(let packet): serve(packet, connection)
      case .over(let why):
        if !why.isEmpty {
          count { $0.refused += 1 }
          options.log("the netmap descriptor of process \(connection.peer.pid) was closed: \(why)")
        }
        return close(event.token)
      }
    }
  }

  /// Gives back everything of a client.
  func close(_ token: UInt64) {
    guard let connection = connections.removeValue(forKey: token) else { return }
    if let left = perUser[connection.peer.uid] { perUser[connection.peer.uid] = left > 1 ? left - 1 : nil }
    let session = connection.session
    connection.end()
    state.withLock { state in
      state.clients[token] = nil
      guard let session else { return }
      state.past.syncs &+= session.syncs
      state.past.wakeups &+= session.waker.count
      state.past.doorbells &+= session.doorbells
    }
  }

  /// Closes descriptors whose memory was taken from under the daemon's feet: a page's or a whole region's.
  private func quarantine() {
    for (token, connection) in connections {
      let isTaken = connection.session?.page.isTaken == true
      guard isTaken || connection.descriptor.port?.region.isQuarantined == true else { continue }
      options.log(
        "the netmap descriptor of process \(connection.peer.pid) was closed: \(isTaken ? "its sync page" : "its memory region") lost pages, which were taken away")
      count { $0.quarantined += 1 }
      connection.session?.waker.tellGone()
      close(token)
    }
  }

  func count(_ change: (inout NetmapServerCounters) -> Void) { state.withLock { change(&$0.past) } }
}
