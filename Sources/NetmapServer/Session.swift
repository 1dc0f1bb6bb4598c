// A registered descriptor whose rings are synced without requests.

internal import CRingway
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
internal import Netisr
internal import Platform
internal import Synchronization

/// The daemon's end of a program's descriptor, for all who write to it.
final class SessionSocket: Sendable {
  private let owned: OwnedDescriptor
  var descriptor: Int32 { owned.raw }
  init(_ owned: consuming OwnedDescriptor) { self.owned = owned }
}

/// Tells those who wait on a descriptor to look again. Lives as long as somebody may still call it.
final class SessionWaker: Sendable {
  private let page: PageMemory
  private let socket: SessionSocket
  private let adapter: any NetmapAdapter
  private let sent = Atomic<UInt64>(0)
  private let isOver = Atomic(false)
  var count: UInt64 { sent.load(ordering: .relaxed) }

  init(_ page: PageMemory, _ socket: SessionSocket, _ adapter: any NetmapAdapter) {
    self.page = page
    self.socket = socket
    self.adapter = adapter
  }

  /// Something came. From any thread; never waits.
  /// - Parameter armed: the word that says whether somebody sleeps.
  func fire(_ armed: Int) {
    // What came is visible before the word is read; who sleeps has written it before his last look.
    rw_fence()
    if adapter.isGone { return tellGone() }
    guard page.load(armed) != 0 else { return }
    page.store(armed, 0)
    nudge()
  }

  /// The card has left, or the daemon ends: syncs fail from now on, and whoever waits learns it. Once; any thread.
  func tellGone() {
    guard !isOver.exchange(true, ordering: .acquiringAndReleasing) else { return }
    page.store(SyncPage.stateOffset, SyncPage.gone)
    rw_fence()
    for ring in 0..<page.rings { page.wake(SyncPage.ring(ring) + SyncPage.done) }
    nudge()
  }

  /// One byte, whoever waits. A full socket says "look again" by itself.
  func nudge() {
    sent.wrappingAdd(1, ordering: .relaxed)
    rw_nudge(socket.descriptor)
  }
}

/// The sync page of a port, its doorbells, and what its workers do.
final class Session: Sendable {
  let port: NetmapPort
  let page: PageMemory
  let parts: [SessionPart]
  /// The rings in the page's order, with their doorbells.
  let rings: [(kring: Kring, doorbell: Int)]
  let waker: SessionWaker
  private let listeners: [(wakeup: KringWakeup, id: Int)]
  private let release: @Sendable () -> Void

  /// - Throws: ENOMEM; ENOSPC when more workers are involved than a page has doorbells.
  init(_ port: NetmapPort, _ socket: SessionSocket, _ placement: Placement) throws(NetmapError) {
    self.port = port
    let placed = placement.place(port)
    release = placed.release
    do throws(NetmapError) {
      guard placed.workers.count <= SyncPage.mostDoorbells else {
        throw NetmapError(
          .ENOSPC, "\(port.adapter.name): \(placed.workers.count) workers serve its rings; a descriptor goes to \(SyncPage.mostDoorbells). Register fewer rings.")
      }
      let krings = port.krings
      let page = try PageMemory(rings: krings.count, doorbells: placed.workers.count)
      let waker = SessionWaker(page, socket, port.adapter)
      self.page = page
      self.waker = waker
      rings = zip(krings, placed.doorbells).map { ($0, $1) }
      var parts: [SessionPart] = []
      for (index, entry) in placed.workers.enumerated() {
        let own = rings.enumerated().filter { $0.element.doorbell == index }.map { (place: $0.offset, kring: $0.element.kring) }
        parts.append(
          try SessionPart(
            entry.worker, entry.poller, index: index, page: page, waker: waker, adapter: port.adapter, region: port.region,
            krings: own))
      }
      self.parts = parts
      for (i, part) in parts.enumerated() {
        do throws(NetmapError) { try part.start() } catch {
          for started in parts[..<i] { started.end() }
          throw error
        }
      }
    } catch {
      placed.release()
      throw error
    }
    var listeners: [(KringWakeup, Int)] = []
    for (direction, armed) in [(RingDirection.receive, SyncPage.receiveArmed), (.transmit, SyncPage.transmitArmed)] {
      guard let wakeup = port.wakeup(direction) else { continue }
      listeners.append((wakeup, wakeup.listen { [waker] in waker.fire(armed) }))
    }
    self.listeners = listeners
  }

  var syncs: UInt64 { parts.reduce(0) { $0 &+ $1.syncs } }
  var doorbells: UInt64 { parts.reduce(0) { $0 &+ $1.rings } }

  func showFlags(_ flags: UInt32) { page.store(SyncPage.flagsOffset, flags) }

  /// No worker touches the rings when this returns. Not from a worker.
  func end() {
    for listener in listeners { listener.wakeup.stopListening(listener.id) }
    for part in parts { part.end() }
    release()
  }

  /// What `attach` answers.
  func attachReply(mode: UInt16) -> NetmapAttachReply {
    var reply = NetmapAttachReply()
    reply.regionBytes = UInt64(port.region.allocator.sharedBytes)
    reply.interfaceOffset = UInt64(port.memory.offset)
    reply.flags = port.flags
    reply.pageBytes = UInt32(page.bytes)
    reply.doorbells = UInt32(parts.count)
    reply.regionID = port.region.id
    reply.mode = mode
    if PortKind(port.adapter.name) == .valeSwitch { reply.portFlags |= NetmapAttachReply.valeSwitch }
    if port.region.kind == .external { reply.portFlags |= NetmapAttachReply.externalMemory }
    reply.regionStart = UInt32(truncatingIfNeeded: port.region.allocator.sharedFileOffset / 4096)
    reply.rings = rings.map { kring, doorbell in
      NetmapAttachReply.Ring(
        offset: UInt64(kring.memory.offset), slots: kring.count, doorbell: UInt32(doorbell), isReceive: kring.id.direction == .receive,
        isHost: kring.id.isHost, number: UInt16(truncatingIfNeeded: kring.id.number))
    }
    return reply
  }
}
