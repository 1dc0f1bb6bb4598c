// Registering handlers, limits of queues, and the stack instances that a protocol is enabled in.

internal import Packet
internal import Synchronization

extension Netisr {
  /// Registers a protocol's handler and enables it in every stack instance.
  ///
  /// A queue limit of 0 becomes the default one; one above the maximum is cut to it, with a warning
  /// (`onWarning`).
  public func register(_ handler: NetisrHandler) throws(NetisrError) {
    if let problem = problem(with: handler) { throw .registration(handler: handler.name, problem: problem) }
    let number = Int(handler.proto.rawValue)
    var limit = handler.queueLimit == 0 ? shared.defaultQueueLimit : handler.queueLimit
    if limit > shared.maxQueueLimit {
      onWarning?(
        "netisr: \(handler.name) asks for queues of \(limit) packets; \(shared.maxQueueLimit) (net.isr.maxqlimit) are allowed and used.")
      limit = shared.maxQueueLimit
    }
    let entry = HandlerEntry(handler), chosen = limit
    let taken = shared.registry.withLock { registry -> String? in
      if registry.entries[number] != nil { return "protocol \(number) has a handler already; unregister it first" }
      if registry.entries.contains(where: { $0?.name == handler.name }) { return "another protocol's handler has this name" }
      let slot = unsafe shared.slots + number
      if unsafe slot.pointee.draining.load(ordering: .sequentiallyConsistent) != 0 {
        return "the queues of the handler before it are still being emptied; try again"
      }
      unsafe slot.pointee.enableEverywhere()
      unsafe slot.pointee.limit.store(chosen, ordering: .relaxed)
      for i in 0..<shared.count { unsafe shared.blocks[i].pointee.streams[number].limit = chosen }
      registry.entries[number] = entry
      unsafe slot.pointee.entry.store(
        UnsafeRawPointer(Unmanaged.passUnretained(entry).toOpaque()), ordering: .sequentiallyConsistent)
      return nil
    }
    if let taken { throw .registration(handler: handler.name, problem: taken) }
  }

  private func problem(with handler: NetisrHandler) -> String? {
    if handler.name.isEmpty { return "it has no name" }
    if handler.name.contains(where: \.isWhitespace) { return "its name has white space in it" }
    if handler.proto.rawValue >= NetisrProtocol.count {
      return "the protocol's number is \(handler.proto.rawValue), at most \(NetisrProtocol.count - 1) is possible"
    }
    if handler.m2flow != nil && handler.policy != .flow { return "only the policy FLOW takes an m2flow" }
    if handler.m2cpuid != nil && handler.policy != .cpu { return "only the policy CPU takes an m2cpuid" }
    if handler.m2cpuid == nil && handler.policy == .cpu { return "the policy CPU needs an m2cpuid" }
    if handler.queueLimit < 0 { return "its queue limit is \(handler.queueLimit)" }
    return nil
  }

  /// Takes a handler away: disabled at once, what is queued is freed by the workers that hold it, and
  /// all counters start anew. Waits for the workers when the caller is none.
  public func unregister(_ proto: NetisrProtocol) throws(NetisrError) {
    let number = Int(proto.rawValue)
    guard number < NetisrProtocol.count else { throw .unregistered(proto: proto.rawValue) }
    let slot = unsafe shared.slots + number
    let found = shared.registry.withLock { registry -> HandlerEntry? in
      guard let entry = registry.entries[number] else { return nil }
      registry.entries[number] = nil
      registry.retired.append(entry)
      unsafe slot.pointee.draining.store(shared.count, ordering: .sequentiallyConsistent)
      unsafe slot.pointee.entry.store(nil, ordering: .sequentiallyConsistent)
      return entry
    }
    guard let found else { throw .unregistered(proto: proto.rawValue) }
    onEachWorker { [shared] worker in
      worker.purge(number) { _ in true }
      unsafe worker.block.pointee.streams[number].reset()
      unsafe shared.slots[number].draining.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    }
    unsafe shared.foreign[number].reset()
    shared.release(found, workers)
  }

  /// Runs `body` on every worker. Waits for all when the caller is no worker; otherwise for its own only.
  func onEachWorker(_ body: @escaping @Sendable (Worker) -> Void) {
    let isWorker = unsafe shared.current != nil
    for worker in workers {
      // A worker's message must not keep the worker alive: it would end on its own thread.
      if isWorker { worker.onWorker { [unowned worker] in body(worker) } } else { worker.perform { [unowned worker] in body(worker) } }
    }
  }

  // MARK: Limits and drops

  private func slot(_ proto: NetisrProtocol) throws(NetisrError) -> Int {
    let number = Int(proto.rawValue)
    guard number < NetisrProtocol.count, unsafe shared.slots[number].entry.load(ordering: .acquiring) != nil else {
      throw .unregistered(proto: proto.rawValue)
    }
    return number
  }

  /// Packets a queue of this protocol (netisr_getqlimit).
  public func queueLimit(_ proto: NetisrProtocol) throws(NetisrError) -> Int {
    unsafe shared.slots[try slot(proto)].limit.load(ordering: .relaxed)
  }

  /// Sets the limit on all workers (netisr_setqlimit); packets above it stay queued.
  public func setQueueLimit(_ proto: NetisrProtocol, _ limit: Int) throws(NetisrError) {
    let number = try slot(proto)
    guard limit >= 0, limit <= shared.maxQueueLimit else {
      throw .invalid(name: "the queue limit", value: "\(limit)", allowed: "0 to \(shared.maxQueueLimit) (net.isr.maxqlimit)")
    }
    unsafe shared.slots[number].limit.store(limit, ordering: .relaxed)
    for i in 0..<shared.count { unsafe shared.blocks[i].pointee.streams[number].limit = limit }
  }

  /// Packets that found a queue of this protocol full, over all workers (netisr_getqdrops).
  public func queueDrops(_ proto: NetisrProtocol) throws(NetisrError) -> UInt64 {
    let number = try slot(proto)
    return (0..<shared.count).reduce(0) { unsafe $0 + shared.blocks[$1].pointee.streams[number].drops }
  }

  /// Sets these counts to 0, and nothing else (netisr_clearqdrops).
  public func clearQueueDrops(_ proto: NetisrProtocol) throws(NetisrError) {
    let number = try slot(proto)
    for i in 0..<shared.count { unsafe shared.blocks[i].pointee.streams[number].clearDrops() }
  }

  // MARK: Stack instances

  /// Enables a protocol in a stack instance (netisr_register_vnet).
  public func registerVnet(_ proto: NetisrProtocol, _ vnet: Vnet) throws(NetisrError) {
    let number = try slot(proto)
    shared.registry.withLock { _ in unsafe shared.slots[number].disable(vnet, false) }
  }

  /// Disables a protocol in a stack instance (netisr_unregister_vnet), and frees what is queued for it or
  /// for interfaces that are gone; other packets keep their order. Waits for the workers when the caller
  /// is none.
  public func unregisterVnet(_ proto: NetisrProtocol, _ vnet: Vnet) throws(NetisrError) {
    let number = try slot(proto)
    shared.registry.withLock { _ in unsafe shared.slots[number].disable(vnet, true) }
    let vnetOf = vnetOfInterface
    onEachWorker { worker in
      worker.purge(number) { packet in
        if packet.vnet == vnet { return true }
        let interface = unsafe InterfaceIndex(packet.record.pointee.interface, generation: packet.record.pointee.generation)
        guard interface.index != 0, let vnetOf else { return false }
        return vnetOf(interface) == nil || vnetOf(interface) == vnet
      }
    }
  }
}

extension NetisrShared {
  /// Lets an entry go when no thread can be reading it any more.
  func release(_ entry: HandlerEntry, _ workers: [Worker]) {
    // A manual dispatcher runs messages inside handlers; there the entry waits for the dispatcher's end.
    guard !configuration.isManual else { return }
    let epoch = readers.turn(), left = Countdown(workers.count)
    for worker in workers {
      worker.post { [weak self] in if left.isLast() { self?.forget(entry, epoch) } }
    }
  }

  /// On a worker.
  private func forget(_ entry: HandlerEntry, _ epoch: UInt64) {
    if readers.isQuiet(epoch) { return registry.withLock { $0.retired.removeAll { $0 === entry } } }
    Worker.current?.schedule(after: 1_000_000) { [weak self] in self?.forget(entry, epoch) }
  }
}

private final class Countdown: Sendable {
  private let left: Atomic<Int>
  init(_ count: Int) { left = Atomic(count) }
  func isLast() -> Bool { left.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0 }
}
