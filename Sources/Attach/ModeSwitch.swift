// Opening and closing: rings go over to a program and come back, while traffic runs.
//
//   open    krings made ─> per queue, on its owner: driver's pool replaced, tenant in ─> program
//   close   per queue, on its owner: pending sent or counted, unshown frames up the stack, the
//           stack's pool back ─> rings freed ─> buffers freed once the card sends none of them
//
// Worker 0 leads and asks the owners, one after the other. So `open` and `close` are called from
// worker 0 or from a thread that is no worker: another worker would wait for itself.

public import NetmapAPI
public import NetmapCore
internal import Netisr
internal import Packet

extension NetmapCard {
  /// Opens the port for a program.
  /// - Parameters:
  ///   - selection: which rings. Rings that another program holds are shared, unless one of the two
  ///     wants them alone (EBUSY).
  /// - Throws: EINVAL for rings that do not exist and cards that cannot change over, EBUSY, ENOMEM.
  public func open(_ selection: RingSelection) throws(NetmapError) -> NetmapPort {
    let control = netisr.worker(0)
    if Worker.current != nil, !control.isCurrent {
      throw NetmapError(.EINVAL, "\(name): a netmap port is opened from worker 0 or from a thread that is no worker")
    }
    return try control.perform { [self] in
      Result { () throws(NetmapError) in try openOnControl(selection) }
    }.get()
  }

  private func openOnControl(_ selection: RingSelection) throws(NetmapError) -> NetmapPort {
    if isGone { throw NetmapError(.ENXIO, "\(name) is gone") }
    guard let ids = selection.rings(of: counts) else {
      throw NetmapError(
        .EINVAL, "\(name): there is no such ring; it has \(counts.transmit) of the card and \(counts.hostReceive) to the host")
    }
    let isExclusive = selection.flags.contains(.exclusive)
    for id in ids {
      guard let entry = entries[id] else { continue }
      if entry.isExclusive || isExclusive { throw NetmapError(.EBUSY, "\(name): \(id) is held by another program") }
    }
    let holder = try region.enter()
    var fresh: [RingID] = []
    do throws(NetmapError) {
      let port = try portOwner()
      var made: [RingID: Made] = [:]
      do throws(NetmapError) {
        for id in ids where entries[id] == nil { made[id] = try makeRing(id, holder: holder, port: port) }
        try install(made, isExclusive: isExclusive, fresh: &fresh)
      } catch {
        for (id, ring) in made where !fresh.contains(id) { discard(ring) }
        throw error
      }
      for id in ids { entries[id]?.users += 1 }
      do throws(NetmapError) { return try makePort(ids, selection, holder: holder) } catch {
        release(ids)
        fresh = []
        throw error
      }
    } catch {
      removeRings(fresh)
      region.leave()
      throw error
    }
  }

  private func makePort(_ ids: [RingID], _ selection: RingSelection, holder: BufferOwner) throws(NetmapError) -> NetmapPort {
    let memory: InterfaceMemory
    do { memory = try allocator.allocateInterface(name: name, counts: counts, owner: holder) } catch {
      throw NetmapError(.ENOMEM, "\(name): \(error)")
    }
    var krings: [Kring] = []
    for id in ids {
      guard let kring = entries[id]?.kring else { continue }
      krings.append(kring)
      memory.list(kring.memory, at: counts.place(of: id.direction, id.number, host: id.isHost))
    }
    note(open: 1)
    return NetmapPort(card: self, krings: krings, memory: memory, holder: holder, flags: selection.flags)
  }

  private func portOwner() throws(NetmapError) -> BufferOwner {
    if let port { return port }
    do {
      let owner = try allocator.registerOwner("netmap:\(name)")
      port = owner
      return owner
    } catch { throw NetmapError(.ENOMEM, "\(name): \(error)") }
  }

  /// A ring with its buffers that no queue knows of yet.
  struct Made {
    let kring: Kring
    /// Receive rings: the adapter's list of them.
    let slots: ReceiveSlots?
    let buffers: [UInt32]
  }

  private func makeRing(_ id: RingID, holder: BufferOwner, port: BufferOwner) throws(NetmapError) -> Made {
    let count = slots(id.direction), isSent = id.direction == .transmit
    let number = id.isHost ? (isSent ? counts.transmit : counts.receive) + id.number : id.number
    do {
      let memory = try allocator.allocateRing(
        slots: count, id: UInt16(truncatingIfNeeded: number), direction: id.direction, owner: holder)
      do {
        let buffers = try allocator.allocateBuffers(count, owner: isSent ? holder : port)
        let kring = Kring(
          id, memory, ledger: allocator.ledger, bufferSize: allocator.bufferSize, holder: holder, wakeup: try KringWakeup())
        guard isSent else { return Made(kring: kring, slots: ReceiveSlots(kring, indices: buffers, port: port), buffers: buffers) }
        for (i, index) in buffers.enumerated() {
          kring.ring.setSlot(
            UInt32(i), NetmapSlot(bufferIndex: index, length: UInt16(truncatingIfNeeded: min(allocator.bufferSize, 0xffff))))
        }
        return Made(kring: kring, slots: nil, buffers: buffers)
      } catch {
        allocator.freeRing(memory.index, owner: holder)
        throw error
      }
    } catch { throw NetmapError(.ENOMEM, "\(name): \(error)") }
  }

  private func discard(_ ring: Made) {
    allocator.freeBuffers(ring.buffers)
    allocator.freeRing(ring.kring.memory.index, owner: ring.kring.holder)
  }

  /// Hands fresh rings to their queues; `fresh` are those that are in.
  private func install(_ made: [RingID: Made], isExclusive: Bool, fresh: inout [RingID]) throws(NetmapError) {
    for number in 0..<max(queues.count, hosts.count) {
      let sent = made[RingID(.transmit, number)], received = made[RingID(.receive, number)]
      if sent != nil || received != nil {
        let (kring, slots) = (sent?.kring, received?.slots), queue = queues[number]
        try workers[number].perform {
          Result { () throws(NetmapError) in try queue.install(transmit: kring, receive: slots) }
        }.get()
      }
      if let kring = made[RingID(.transmit, number, isHost: true)]?.kring {
        let pair = hosts[number]
        owner(of: kring.id).perform { pair.transmit = kring }
      }
      if let slots = made[RingID(.receive, number, isHost: true)]?.slots { hosts[number].begin(receive: slots) }
      for (id, ring) in made where id.number == number {
        entries[id] = Entry(kring: ring.kring, slots: ring.slots, users: 0, isExclusive: isExclusive)
        fresh.append(id)
      }
    }
  }

  // MARK: Closing

  /// A program's port goes; with its last holder a ring goes back. From the same threads as `open`.
  func close(_ krings: [Kring], _ memory: InterfaceMemory, holder: BufferOwner) {
    let control = netisr.worker(0)
    control.perform { [self] in
      release(krings.map(\.id))
      allocator.freeInterface(memory.index, owner: holder)
      region.leave()
      note(open: -1)
    }
  }

  private func release(_ ids: [RingID]) {
    var unused: [RingID] = []
    for id in ids {
      guard var entry = entries[id] else { continue }
      entry.users -= 1
      entries[id] = entry
      if entry.users <= 0 { unused.append(id) }
    }
    removeRings(unused)
  }

  /// Takes rings out of their queues, and gives rings and buffers back.
  private func removeRings(_ ids: [RingID]) {
    guard let port, let holder = ids.first.flatMap({ entries[$0]?.kring.holder }) else { return }
    let wanted = Set(ids)
    var dead: [UInt32] = [], programs: [UInt32] = []
    if isGone { collectLeft(ids, &dead, &programs) }
    for number in 0..<max(queues.count, hosts.count) where !isGone {
      let sent = wanted.contains(RingID(.transmit, number)), received = wanted.contains(RingID(.receive, number))
      if sent || received {
        let queue = queues[number]
        let remains = workers[number].perform { queue.uninstall(transmit: sent, receive: received) }
        dead += remains.port
        programs += remains.program
        if remains.stillSends { sending += 1 }
      }
      removeHostRings(number, wanted, &dead, &programs)
    }
    for id in ids {
      guard let entry = entries.removeValue(forKey: id) else { continue }
      wake(entry.kring)
      allocator.freeRing(entry.kring.memory.index, owner: holder)
    }
    // What the programs' slots name is believed as far as the ledger agrees. The rest is taken back when
    // the region's last port closes.
    let ledger = allocator.ledger
    grave += dead + programs.filter { ledger.transfer($0, from: holder, to: port) }
    bury()
  }

  private func removeHostRings(_ number: Int, _ wanted: Set<RingID>, _ dead: inout [UInt32], _ programs: inout [UInt32]) {
    if wanted.contains(RingID(.receive, number, isHost: true)), let slots = hosts[number].endReceive() {
      let unshown = slots.takeUnshown().count
      if unshown > 0 { count(UInt64(unshown), .modeChange, queue: number % queues.count) }
      let buffers = slots.dissolve()
      dead += buffers.port
      programs += buffers.program
    }
    let id = RingID(.transmit, number, isHost: true)
    if wanted.contains(id), let kring = entries[id]?.kring {
      let pair = hosts[number]
      owner(of: id).perform { pair.transmit = nil }
      programs += (0..<kring.count).map { kring.ring.slot($0).bufferIndex }
    }
  }

  /// What the rings of a card that has gone hold.
  private func collectLeft(_ ids: [RingID], _ dead: inout [UInt32], _ programs: inout [UInt32]) {
    for id in ids {
      guard let entry = entries[id] else { continue }
      if let buffers = entry.slots?.dissolve() {
        dead += buffers.port
        programs += buffers.program
      } else {
        let kring = entry.kring
        programs += (0..<kring.count).map { kring.ring.slot($0).bufferIndex }
      }
    }
  }

  /// The card has gone, or leaves the stack; on worker 0, after its driver was stopped. Programs that
  /// wait wake with an error. Their rings and buffers stay until they close.
  public func leave() {
    guard !isGone else { return }
    for number in queues.indices {
      let queue = queues[number]
      workers[number].perform { queue.leave() }
    }
    for (id, entry) in entries where id.isHost {
      let pair = hosts[id.number]
      if id.direction == .receive { _ = pair.endReceive() } else { owner(of: entry.kring.id).perform { pair.transmit = nil } }
    }
    markGone()
    for entry in entries.values { wake(entry.kring) }
  }

  /// Frees what nobody uses: nothing, for as long as the card may still read a closed program's
  /// buffers. (A program may have named such a buffer in any ring.)
  private func bury() {
    guard sending == 0, let port, !grave.isEmpty else { return }
    allocator.freeBuffers(grave, owner: port)
    grave = []
  }

  /// From a queue's owner: transmit sides of programs that have gone are empty now.
  func finishedSending(_ sides: Int) {
    netisr.worker(0).post { [weak self] in
      guard let self else { return }
      sending -= sides
      bury()
    }
  }
}
