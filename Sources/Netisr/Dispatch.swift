// Packets into netisr: which handler, which worker, now or later.
//
// Everything up to the handler's call works on raw records, so that it neither counts references nor
// allocates; a packet is owned by this code from its entry to the handler, a stream or the ledger.

internal import CRingway
public import Packet
internal import Synchronization

extension Netisr {
  /// Hands a packet to its protocol as the dispatch policy says (netisr_dispatch_src).
  /// - Parameters:
  ///   - source: tells flows of one interface apart, for the SOURCE policy.
  ///   - vnet: the stack instance that the packet belongs to.
  @discardableResult
  public func dispatch(_ proto: NetisrProtocol, _ packet: consuming Packet, source: UInt = 0, vnet: Vnet = .base) -> DispatchResult {
    let record = unsafe packet.intoRaw()
    return unsafe shared.with(proto, record) { (entry, slot, block) in
      if unsafe slot.pointee.isDisabled(vnet) { return unsafe shared.refuse(proto, record, .netisrDisabled, .notEnabled) }
      let policy = shared.policy(of: entry, onWorker: unsafe block != nil)
      if policy == .direct { return unsafe shared.runDirect(entry, proto, record, block) }
      return unsafe shared.place(entry, proto, record, source, vnet, policy, block)
    }
  }

  /// The same for a whole batch, in its order: it is empty afterwards. Handler and checks are looked up once.
  public func dispatch(_ proto: NetisrProtocol, batch: inout PacketBatch, source: UInt = 0, vnet: Vnet = .base) {
    let count = batch.count
    guard count > 0 else { return }
    // The records stay where they are, and are this function's: the batch is not used while it is lent.
    let records = unsafe batch.fullSlots
    batch.removePrefix(count)
    unsafe shared.dispatch(proto, records, count, source, vnet)
  }

  /// Puts a packet into a worker's queue, whatever the dispatch policy (netisr_queue_src).
  @discardableResult
  public func queue(_ proto: NetisrProtocol, _ packet: consuming Packet, source: UInt = 0, vnet: Vnet = .base) -> DispatchResult {
    let record = unsafe packet.intoRaw()
    return unsafe shared.with(proto, record) { (entry, slot, block) in
      if unsafe slot.pointee.isDisabled(vnet) { return unsafe shared.refuse(proto, record, .netisrDisabled, .notEnabled) }
      return unsafe shared.place(entry, proto, record, source, vnet, .deferred, block)
    }
  }
}

extension NetisrShared {
  typealias SlotPointer = UnsafeMutablePointer<HandlerSlot>

  /// Finds a protocol's handler and keeps it while `body` runs. Without one the packet is dropped.
  @inline(__always)
  func with(
    _ proto: NetisrProtocol, _ record: RawPacket, _ body: (HandlerEntry, SlotPointer, WorkerBlock.Pointer?) -> DispatchResult
  ) -> DispatchResult {
    let number = Int(proto.rawValue)
    guard number < NetisrProtocol.count else { return unsafe refuse(proto, record, .netisrUnregistered, .unregistered) }
    let slot = unsafe slots + number
    // A worker keeps an entry until its loop comes round; other threads say that they are reading.
    let block = unsafe current
    let epoch = unsafe block == nil ? readers.enter() : 0
    defer { if unsafe block == nil { readers.leave(epoch) } }
    guard let raw = unsafe slot.pointee.entry.load(ordering: .acquiring) else {
      return unsafe refuse(proto, record, .netisrUnregistered, .unregistered)
    }
    return unsafe Unmanaged<HandlerEntry>.fromOpaque(raw)._withUnsafeGuaranteedRef { unsafe body($0, slot, block) }
  }

  /// A protocol's own policy beats the global one. What only workers may run is queued elsewhere.
  @inline(__always)
  func policy(of entry: HandlerEntry, onWorker: Bool) -> DispatchPolicy {
    if !onWorker && entry.workersOnly { return .deferred }
    return policy(of: entry)
  }

  @inline(never)
  func refuse(_ proto: NetisrProtocol, _ record: RawPacket, _ reason: DropReason, _ result: DispatchResult) -> DispatchResult {
    unsafe drop(record, Int(proto.rawValue), reason)
    return result
  }

  /// Counts and calls the handler.
  @inline(__always)
  func runDirect(
    _ entry: HandlerEntry, _ proto: NetisrProtocol, _ record: RawPacket, _ block: WorkerBlock.Pointer?
  ) -> DispatchResult {
    unsafe countDirect(proto, 1, block)
    unsafe entry.handler(Packet(unsafe: record))
    return .ok
  }

  @inline(__always)
  private func countDirect(_ proto: NetisrProtocol, _ n: Int, _ block: WorkerBlock.Pointer?) {
    if let block = unsafe block {
      unsafe block.pointee.streams[Int(proto.rawValue)].count(direct: n)
    } else {
      unsafe foreign[Int(proto.rawValue)].countShared(direct: n)
    }
  }

  /// Hybrid and deferred: selects a worker, and runs the handler here or queues the packet there.
  @inline(never)
  func place(
    _ entry: HandlerEntry, _ proto: NetisrProtocol, _ record: RawPacket, _ source: UInt, _ vnet: Vnet,
    _ policy: DispatchPolicy, _ block: WorkerBlock.Pointer?
  ) -> DispatchResult {
    let number = Int(proto.rawValue)
    guard let id = unsafe select(entry, record, source, policy, block) else {
      return unsafe refuse(proto, record, .netisrNoPlacement, .noBuffers)
    }
    let target = unsafe blocks[id]
    if policy == .hybrid, unsafe target == block, unsafe isIdle(target) {
      unsafe runHybrid(entry, number, record, target)
      return .ok
    }
    guard unsafe push(number, record, vnet, to: target) else { return .noBuffers }
    unsafe announce(number, to: target, from: block)
    return .ok
  }

  /// None of RUNNING, DISPATCHING and SCHEDULED is set.
  @inline(__always) private func isIdle(_ block: WorkerBlock.Pointer) -> Bool {
    unsafe !block.pointee.isRunning && !block.pointee.isDispatching && block.pointee.pending.load(ordering: .relaxed) == 0
  }

  // What was queued meanwhile is found before this worker sleeps: it is awake, and looks.
  @inline(__always)
  private func runHybrid(_ entry: HandlerEntry, _ proto: Int, _ record: RawPacket, _ block: WorkerBlock.Pointer) {
    unsafe block.pointee.isDispatching = true
    unsafe entry.handler(Packet(unsafe: record))
    unsafe block.pointee.isDispatching = false
    unsafe block.pointee.streams[proto].countHybrid()
  }

  /// The worker for a packet, in the order of the rules; nil when a callback gives the packet up.
  @inline(__always)
  private func select(
    _ entry: HandlerEntry, _ record: RawPacket, _ source: UInt, _ policy: DispatchPolicy, _ block: WorkerBlock.Pointer?
  ) -> Int? {
    if count == 1 { return 0 }
    let workers = UInt(count)
    switch entry.policy {
    case .cpu:
      switch unsafe Self.ask(record, { entry.m2cpuid?($0, source) ?? .none }) {
      case .drop: return nil
      case .cpu(let n): return Int(UInt(n) % workers)
      case .none: if policy == .hybrid, let block = unsafe block { return unsafe block.pointee.id }
      }
    case .flow:
      if unsafe !record.pointee.flags.contains(.hashed), let m2flow = entry.m2flow,
        unsafe !Self.ask(record, { m2flow($0, source) })
      {
        return nil
      }
      if unsafe record.pointee.flags.contains(.hashed) { return unsafe Int(UInt(record.pointee.hash) % workers) }
    case .source: break
    }
    return unsafe Int((UInt(record.pointee.interface) &+ source) % workers)
  }

  /// Lends the packet to a placement callback.
  private static func ask<T>(_ record: RawPacket, _ body: (borrowing Packet) -> T) -> T {
    let packet = unsafe Packet(unsafe: record)
    let answer = body(packet)
    _ = unsafe packet.intoRaw()
    return answer
  }

  // MARK: Batches

  /// Dispatches `count` records, which are this function's.
  func dispatch(_ proto: NetisrProtocol, _ records: UnsafeMutablePointer<RawPacket>, _ count: Int, _ source: UInt, _ vnet: Vnet) {
    // The first record stands for all of them where there is no handler.
    var done = 0
    let result = unsafe with(proto, records[0]) { (entry, slot, block) in
      done = count
      if unsafe slot.pointee.isDisabled(vnet) {
        for i in 0..<count { unsafe drop(records[i], Int(proto.rawValue), .netisrDisabled) }
        return .notEnabled
      }
      let policy = policy(of: entry, onWorker: unsafe block != nil)
      if policy == .direct {
        unsafe countDirect(proto, count, block)
        var i = 0
        while i < count {
          unsafe entry.handler(Packet(unsafe: records[i]))
          i &+= 1
        }
        return .ok
      }
      unsafe place(entry, proto, records, count, source, vnet, policy, block)
      return .ok
    }
    guard result == .unregistered, done == 0 else { return }
    for i in 1..<max(1, count) { unsafe drop(records[i], Int(proto.rawValue), .netisrUnregistered) }
  }

  /// As `place`, for many: a worker is told once.
  private func place(
    _ entry: HandlerEntry, _ proto: NetisrProtocol, _ records: UnsafeMutablePointer<RawPacket>, _ count: Int, _ source: UInt,
    _ vnet: Vnet, _ policy: DispatchPolicy, _ block: WorkerBlock.Pointer?
  ) {
    let number = Int(proto.rawValue)
    // Workers below 64 that have something new.
    var told: UInt64 = 0
    for i in 0..<count {
      let record = unsafe records[i]
      guard let id = unsafe select(entry, record, source, policy, block) else {
        unsafe drop(record, number, .netisrNoPlacement)
        continue
      }
      let target = unsafe blocks[id]
      if policy == .hybrid, unsafe target == block, unsafe isIdle(target), told >> UInt64(id & 63) & 1 == 0 {
        unsafe runHybrid(entry, number, record, target)
      } else if unsafe push(number, record, vnet, to: target) {
        if id < 64, unsafe target != block { told |= 1 << UInt64(id) } else { unsafe announce(number, to: target, from: block) }
      }
    }
    while told != 0 {
      let id = told.trailingZeroBitCount
      told &= told &- 1
      unsafe announce(number, to: blocks[id], from: block)
    }
  }
}
