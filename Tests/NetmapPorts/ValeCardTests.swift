import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Platform
import Testing

/// A card whose wire is an array: what is sent can be looked at, what is to come is put in.
final class ArrayCard: NetmapAdapter, @unchecked Sendable {
  let name: String
  let krings: PortKrings
  let counts: RingCounts
  private let size: Int
  private struct Wire {
    var sent: [RingID: [[UInt8]]] = [:]
    var coming: [RingID: [[UInt8]]] = [:]
    var base: UInt = 0
    var isGone = false
    var isStopped = false
  }
  private let wire = Guarded(Wire())

  init(_ name: String, queues: Int = 2, slots: Int = 64) throws(NetmapError) {
    self.name = name
    size = slots
    counts = RingCounts(transmit: queues, receive: queues, hostTransmit: 1, hostReceive: 1)
    krings = try PortKrings()
  }
  func slots(_ direction: RingDirection, host: Bool) -> Int { size }
  func admit(_ selection: RingSelection) throws(NetmapError) {
    if wire.withLock({ $0.isGone }) { throw NetmapError(.ENXIO, "gone") }
  }
  func activate(_ rings: [PortRing]) throws(NetmapError) {
    guard let allocator = krings.region?.allocator else { throw NetmapError(.ENXIO, "no region") }
    wire.withLock { wire in unsafe wire.base = UInt(bitPattern: allocator.bufferBase) }
  }
  func deactivate(_ rings: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    for ring in rings { remains.program += RingRemains.slots(of: ring.kring) }
    return remains
  }
  func synchronise(_ kring: Kring) -> Bool { wire.withLock { $0.isGone } ? false : synchroniseChecked(kring) }

  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    wire.withLock { wire in
      if kring.id.direction == .transmit {
        guard !wire.isStopped else { return }
        while kring.hwcur != kring.rhead {
          if let slot = kring.checkedSlot(kring.hwcur) {
            unsafe wire.sent[kring.id, default: []].append(bytes(slot, wire, kring) { unsafe Array($0.prefix(Int(slot.length))) })
          }
          kring.hwcur = kring.next(kring.hwcur)
        }
        kring.hwtail = kring.previous(kring.hwcur)
      } else {
        kring.hwcur = kring.rhead
        while kring.space > 0, let next = wire.coming[kring.id]?.first {
          wire.coming[kring.id]?.removeFirst()
          var slot = kring.ring.slot(kring.hwtail)
          unsafe bytes(slot, wire, kring) { buffer in for (i, byte) in next.enumerated() { unsafe buffer[i] = byte } }
          slot.length = UInt16(next.count)
          slot.flags = []
          kring.ring.setSlot(kring.hwtail, slot)
          kring.hwtail = kring.next(kring.hwtail)
        }
      }
    }
  }

  private func bytes<R>(_ slot: NetmapSlot, _ wire: Wire, _ kring: Kring, _ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
    let start = unsafe UnsafeMutableRawPointer(bitPattern: wire.base + UInt(slot.bufferIndex) * UInt(kring.bufferSize))
    return unsafe body(UnsafeMutableRawBufferPointer(start: start, count: kring.bufferSize))
  }

  /// Frames come in from the wire, or from the stack.
  func come(_ frames: [[UInt8]], _ ring: Int = 0, host: Bool = false) {
    let id = RingID(.receive, ring, isHost: host)
    put(frames, id)
    if let open = krings.ring(id) { wake(open.kring) }
  }
  func put(_ frames: [[UInt8]], _ id: RingID) { wire.withLock { $0.coming[id, default: []] += frames } }
  /// What went out since the last time.
  func sent(_ ring: Int = 0, host: Bool = false) -> [[UInt8]] {
    wire.withLock { $0.sent.removeValue(forKey: RingID(.transmit, ring, isHost: host)) ?? [] }
  }
  func stop(_ stopped: Bool) {
    wire.withLock { $0.isStopped = stopped }
    for ring in krings.rings where ring.id.direction == .transmit { wake(ring.kring) }
  }
  func leave() {
    wire.withLock { $0.isGone = true }
    for ring in krings.rings { wake(ring.kring) }
  }
}

@Suite("VALE: attached cards")
struct ValeCardTests {
  /// A lab with cards.
  final class CardProvider: NetmapPortProvider, @unchecked Sendable {
    var cards: [String: ArrayCard] = [:]
    func adapter(for request: PortRequest, in system: NetmapSystem, create: Bool) throws(NetmapError) -> (any NetmapAdapter)? {
      cards[request.name]
    }
  }
  private func rig(_ names: [String] = ["ix0"]) throws -> (lab: ValeLab, cards: [ArrayCard]) {
    let lab = try ValeLab(), provider = CardProvider()
    for name in names { provider.cards[name] = try ArrayCard(name) }
    lab.system.add(provider)
    return (lab, names.map { provider.cards[$0]! })
  }
  private func attach(_ lab: ValeLab, _ name: String, mode: UInt32 = 1, ring: UInt16 = 0) throws(NetmapError) -> (RegisterRequest, port: UInt32) {
    var request = RegisterRequest()
    request.mode = mode
    request.ringID = ring
    let wanted = request
    return try lab.system.onControl { () throws(NetmapError) in try lab.ports.attach(name, wanted, in: lab.system) }
  }
  private func detach(_ lab: ValeLab, _ name: String) throws(NetmapError) -> UInt32 {
    try lab.system.onControl { () throws(NetmapError) in try lab.ports.detach(name, in: lab.system) }
  }
  private func code(_ body: () throws(NetmapError) -> Void) -> NetmapError.Code? {
    do { try body() } catch { return error.code }
    return nil
  }

  @Test("Frames go from card to program and back; programs cannot have the card meanwhile; detached, all is back")
  func traffic() throws {
    let (lab, cards) = try rig()
    let card = cards[0]
    let answer = try attach(lab, "vale0:ix0")
    #expect(answer.port == 0 && answer.0.receiveRings == 2 && answer.0.memoryID == 1 && answer.0.transmitSlots == 64)
    let a = try lab.open("vale0:a", rings: 2)
    let one = frame(to: station(2), from: station(1)), two = frame(to: station(1), from: station(2))
    card.come([one])
    lab.netisr.settle()
    #expect(a.receive() == [one])
    a.send([two, frame(to: station(3), from: station(2))], ring: 1)
    lab.netisr.settle()
    #expect(card.sent(1) == [two])
    // What is not known went to ring 0, everybody's.
    #expect(card.sent(0) == [frame(to: station(3), from: station(2))])
    #expect(lab.error("ix0") == .EBUSY && lab.error("ix0", .software) == .EBUSY && lab.error("ix0", .null) == .EBUSY)
    #expect(lab.error("vale0:ix0") == .EBUSY)
    #expect(try lab.ports.find("vale0:ix0").port == 0 && lab.ports.find("vale0:ix0^").port == SwitchPorts.none)
    // More than the rings hold, one after the other.
    for n in 0..<10 {
      let frames = (0..<50).map { frame(to: station(1), from: station(2), mark: UInt8(n * 20 + $0 % 20)) }
      a.send(frames)
      lab.netisr.settle()
      #expect(card.sent() == frames)
      card.come(frames.map { frame(to: station(2), from: station(1), mark: $0[14]) }, 1)
      lab.netisr.settle()
      #expect(a.receive(ring: 1).count == 50)
    }
    #expect(try detach(lab, "vale0:ix0") == 0)
    a.send([one])
    #expect(card.krings.openPorts == 0 && card.krings.rings.isEmpty)
    let direct = try lab.open("ix0")
    direct.close()
    a.close()
    #expect(try lab.system.memory.global().allocator.statistics.prefix(3).allSatisfy { $0.inUse == 0 } && lab.isEmpty())
  }

  @Test("With NIC_SW the host's rings are a port of their own")
  func host() throws {
    let (lab, cards) = try rig()
    #expect(try attach(lab, "vale0:ix0", mode: 3).port == 0)
    #expect(try lab.ports.find("vale0:ix0^").port == 1)
    let up = frame(to: station(8), from: station(1)), down = frame(to: station(1), from: station(8))
    cards[0].come([up])
    lab.netisr.settle()
    #expect(cards[0].sent(0, host: true) == [up] && cards[0].sent().isEmpty)
    cards[0].come([down], host: true)
    lab.netisr.settle()
    #expect(cards[0].sent() == [down])
    #expect(code { () throws(NetmapError) in _ = try detach(lab, "vale0:ix0^") } == .EBUSY)
    _ = try detach(lab, "vale0:ix0")
    #expect(lab.isEmpty())
  }

  @Test("Two cards on one switch bridge their wires; a full card loses what comes, and goes on")
  func bridge() throws {
    let (lab, cards) = try rig(["ix0", "ix1"])
    _ = try attach(lab, "vale0:ix0")
    _ = try attach(lab, "vale0:ix1")
    let all = (0..<200).map { frame(to: everybody, from: station(1), mark: UInt8($0)) }
    for chunk in stride(from: 0, to: 200, by: 40) {
      cards[0].come(Array(all[chunk..<chunk + 40]))
      lab.netisr.settle()
    }
    #expect(cards[1].sent() == all && cards[0].sent().isEmpty)
    cards[1].stop(true)
    for _ in 0..<3 {
      cards[0].come(Array(all[..<40]))
      lab.netisr.settle()
    }
    #expect(lab.ports.report.first { $0.name == "vale0:ix1" }?.drops == 120 - 63)
    cards[1].stop(false)
    lab.netisr.settle()
    #expect(cards[1].sent().count == 63)
    cards[0].come(Array(all[..<40]))
    lab.netisr.settle()
    #expect(cards[1].sent() == Array(all[..<40]))
    _ = (try detach(lab, "vale0:ix0"), try detach(lab, "vale0:ix1"))
    #expect(lab.isEmpty())
  }

  @Test("A card that leaves is detached by itself")
  func leaves() throws {
    let (lab, cards) = try rig()
    _ = try attach(lab, "vale0:ix0", mode: 3)
    let a = try lab.open("vale0:a")
    cards[0].leave()
    lab.netisr.settle()
    #expect(try lab.ports.find("vale0:ix0").port == SwitchPorts.none && cards[0].krings.openPorts == 0)
    a.send([frame(to: everybody, from: station(1))])
    a.close()
    #expect(lab.isEmpty())
    #expect(try lab.system.memory.global().allocator.statistics.prefix(3).allSatisfy { $0.inUse == 0 })
  }

  @Test("What attach, detach and polling refuse")
  func errors() throws {
    let (lab, _) = try rig()
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "ix0") } == .EINVAL)
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale0:ix7") } == .ENXIO)
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale0:ix0", mode: 2) } == .EINVAL)
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale0:ix0", ring: 1) } == .EINVAL)
    #expect(code { () throws(NetmapError) in _ = try detach(lab, "vale0:ix0") } == .ENXIO)
    let held = try lab.open("ix0", .oneNIC(1))
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale0:ix0") } == .EBUSY)
    held.close()
    #expect(lab.isEmpty())
    let a = try lab.open("vale0:a")
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale0:a") } == .EBUSY)
    _ = try attach(lab, "vale0:ix0")
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale0:ix0") } == .EBUSY)
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale1:ix0") } == .EBUSY)
    func poll(_ name: String, _ mode: UInt32, _ first: UInt32, _ count: UInt32) -> NetmapError.Code? {
      code { () throws(NetmapError) in try lab.ports.startPolling(name, ValePolling(mode: mode, firstCPU: first, cpus: count)) }
    }
    #expect(poll("vale0:a", 1, 0, 1) == .EOPNOTSUPP && poll("vale0:b", 1, 0, 1) == .ENXIO && poll("ix0", 1, 0, 1) == .EINVAL)
    #expect(poll("vale0:ix0", 1, 0, 0) == .EINVAL && poll("vale0:ix0", 1, 0, .max) == .EINVAL)
    #expect(poll("vale0:ix0", 3, 0, 1) == .EINVAL && poll("vale0:ix0", 2, 2, 1) == .EINVAL && poll("vale0:ix0", 2, .max, 1) == .EINVAL)
    #expect(code { () throws(NetmapError) in try lab.ports.stopPolling("vale0:ix0") } == .EFAULT)
    _ = try detach(lab, "vale0:ix0")
    a.close()
    #expect(lab.isEmpty())
  }

  @Test("A card that is polled needs no wakeups, and stays while it is polled", .enabled(if: ((try? CPUList.allowed().cpus.count) ?? 1) > 1))
  func polling() throws {
    let (lab, cards) = try rig()
    _ = try attach(lab, "vale0:ix0")
    let a = try lab.open("vale0:a", rings: 2)
    lab.netisr.settle()
    try lab.ports.startPolling("vale0:ix0", ValePolling(mode: ValePolling.oneCPU, firstCPU: 0, cpus: 1))
    #expect(code { () throws(NetmapError) in try lab.ports.startPolling("vale0:ix0", ValePolling(mode: 1, firstCPU: 0, cpus: 1)) } == .EFAULT)
    for ring in 0..<2 {
      cards[0].quietly([frame(to: station(9), from: station(1))], ring)
      lab.netisr.settle()
      #expect(a.receive().count + a.receive(ring: 1).count == 1)
    }
    #expect(code { () throws(NetmapError) in _ = try detach(lab, "vale0:ix0") } == .EBUSY)
    try lab.ports.stopPolling("vale0:ix0")
    cards[0].quietly([frame(to: station(9), from: station(1))], 0)
    lab.netisr.settle()
    #expect(a.receive().isEmpty)
    cards[0].come([])
    lab.netisr.settle()
    #expect(a.receive().count == 1)
    // Ring 1 alone.
    try lab.ports.startPolling("vale0:ix0", ValePolling(mode: ValePolling.severalCPUs, firstCPU: 1, cpus: 1))
    cards[0].quietly([frame(to: station(9), from: station(1))], 0)
    lab.netisr.settle()
    #expect(a.receive().isEmpty && a.receive(ring: 1).isEmpty)
    cards[0].leave()
    lab.netisr.settle()
    a.close()
    #expect(lab.isEmpty(), "a card that leaves is polled no more")
  }

  @Test("Persistent ports: made, used alone and on a switch, kept without a holder, deleted")
  func persistent() throws {
    let (lab, _) = try rig()
    let system = lab.system, ports = lab.ports
    func make(_ name: String, _ request: ValeNewInterface = ValeNewInterface()) throws(NetmapError) -> ValeNewInterface {
      try system.onControl { () throws(NetmapError) in try ports.newInterface(name, request, in: system) }
    }
    func delete(_ name: String) -> NetmapError.Code? {
      code { () throws(NetmapError) in try system.onControl { () throws(NetmapError) in try ports.deleteInterface(name, in: system) } }
    }
    var wanted = ValeNewInterface()
    (wanted.transmitSlots, wanted.receiveRings) = (128, 2)
    let made = try make("v0", wanted)
    #expect(made.transmitSlots == 128 && made.receiveSlots == 1024 && made.receiveRings == 2 && made.memoryID > 1)
    for (name, error) in [("v0", .EEXIST), ("ix0", .EEXIST), ("vale3", .EINVAL), ("a:b", .EINVAL), ("sixteen_letters_", .EINVAL)] as [(String, NetmapError.Code)] {
      #expect(code { () throws(NetmapError) in _ = try make(name) } == error)
    }
    #expect(delete("v1") == .ENXIO && delete("ix0") == .EINVAL)
    #expect(lab.error("vale0:v0") == .EINVAL, "an interface's name")
    let alone = try lab.open("v0")
    #expect(alone.transmitRings[0].count == 128 && alone.region.id == made.memoryID)
    #expect(alone.send([frame(to: everybody, from: station(1))]) == 1 && alone.transmitRings[0].space == 127)
    #expect(delete("v0") == .EBUSY && code { () throws(NetmapError) in _ = try attach(lab, "vale0:v0") } == .EBUSY)
    alone.close()
    #expect(try attach(lab, "vale0:v0").port == 0)
    #expect(code { () throws(NetmapError) in _ = try attach(lab, "vale1:v0") } == .EBUSY && delete("v0") == .EBUSY)
    let a = try lab.open("vale0:a"), v = try lab.open("vale0:v0"), same = try lab.open("v0")
    #expect(v.adapter === same.adapter)
    a.send([frame(to: everybody, from: station(1))])
    #expect(v.receive().count == 1)
    v.send([frame(to: station(1), from: station(2))])
    #expect(a.receive().count == 1)
    #expect(try detach(lab, "vale0:v0") == 0)
    v.send([frame(to: station(1), from: station(2))])
    #expect(a.receive().isEmpty && v.transmitRings[0].space == 127)
    for port in [a, v, same] { port.close() }
    #expect(delete("v0") == nil && delete("v0") == .ENXIO && lab.error("v0") == .ENXIO)
  }
}

extension ArrayCard {
  /// Frames come, and the card does not say so.
  func quietly(_ frames: [[UInt8]], _ ring: Int) { put(frames, RingID(.receive, ring)) }
}
