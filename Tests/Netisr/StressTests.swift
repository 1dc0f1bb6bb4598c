// Everything at once, with threads; at the end the books must balance.

import CRingway
import Packet
import Platform
import Synchronization
import Testing

@testable import Netisr

extension Worker {
  /// A packet out of this worker's pool with an interface; nil when it is empty.
  func make(_ interface: UInt16) -> Packet? {
    guard let packet = allocate() else { return nil }
    packet.fill(with: [1, 2, 3, 4])
    packet.interface = InterfaceIndex(interface, generation: 1)
    return packet
  }
}

extension Netisr {
  /// handled = dispatched + hybridDispatched + queued - purged, on every stream.
  func expectConservation(_ location: SourceLocation = #_sourceLocation) {
    for line in workStreams {
      let expected = line.dispatched + line.hybridDispatched + line.queued - line.purged
      #expect(line.handled == expected, "\(line)", sourceLocation: location)
      #expect(line.length == 0, "\(line)", sourceLocation: location)
    }
  }
}

@Suite(.serialized) struct StressTests {
  /// Workers send packets of their own pools to each other, under every policy, while limits, stack
  /// instances and handlers change.
  @Test func theBooksBalanceUnderEverythingAtOnce() throws {
    let workers = 3, rounds = 150
    let netisr = try threaded(workers) { $0.idleMicroseconds = 5 }
    let memories = (0..<workers).map { _ in Memory(512) }
    for worker in netisr.workers {
      let memory = memories[worker.id]
      memory.pool.bind(to: worker.token)
      worker.perform { [unowned worker] in worker.pool = memory.pool }
    }
    let handled = Tally(), made = Tally(), ticks = Tally(), kicks = Tally(), drained = Tally()
    let vnets = [Vnet.base, Vnet(rawValue: 1), Vnet(rawValue: 2)]
    for (proto, policy) in [(NetisrProtocol.ip, DispatchPolicy.deferred), (.arp, .hybrid), (.ipv6, .direct), (.epair, .default)] {
      var handler = NetisrHandler(name: "p\(proto)", proto: proto, dispatch: policy, queueLimit: 64) { _ in handled.add() }
      handler.drainedcpu = { _ in drained.add() }
      try netisr.register(handler)
    }
    let done = Tally()
    for worker in netisr.workers {
      worker.schedule(after: 0, every: 200_000) { ticks.add() }
      let kick = KickMessage { kicks.add() }
      @Sendable func round(_ n: Int, _ worker: Worker) {
        for i in 0..<32 {
          guard let packet = worker.make(UInt16(truncatingIfNeeded: n + i)) else { continue }
          made.add()
          netisr.dispatch([.ip, .arp, .ipv6, .epair][i % 4], packet, source: UInt(i), vnet: vnets[(n + i) % 3])
        }
        netisr.workers[(worker.id + 1) % workers].send(kick)
        if n < rounds {
          let id = worker.id
          netisr.workers[id].post { round(n + 1, netisr.workers[id]) }
        } else {
          done.add()
        }
      }
      worker.post { [unowned worker] in round(1, worker) }
    }
    let policies = ["deferred", "hybrid", "direct"]
    var turn = 0
    while done.value < workers {
      turn += 1
      try netisr.setQueueLimit(.ip, [8, 64, 1][turn % 3])
      try netisr.unregisterVnet(.arp, vnets[1])
      try netisr.sysctl.write("net.isr.dispatch", policies[turn % 3])
      try netisr.registerVnet(.arp, vnets[1])
      netisr.barrier()
      if turn > 20_000 { break }
    }
    #expect(done.value == workers)
    eventually("timers and kicks") { ticks.value > 0 && kicks.value > 0 }
    netisr.barrier()
    netisr.barrier()
    netisr.expectConservation()
    netisr.stop()
    netisr.expectConservation()
    let dropped = netisr.drops.snapshot().reduce(0) { $0 + Int($1.packets) }
    #expect(handled.value + dropped == made.value)
    for memory in memories { #expect(memory.pool.available == 512) }
  }

  /// Threads that are no worker produce, directly and into queues; a protocol comes and goes.
  @Test func foreignThreadsAndAComingAndGoingHandler() throws {
    let netisr = try threaded(2), handled = Tally(), made = Tally(), finished = Tally()
    @Sendable func handler(_ proto: NetisrProtocol, _ policy: DispatchPolicy) -> NetisrHandler {
      NetisrHandler(name: "p\(proto)", proto: proto, dispatch: policy, queueLimit: 32) { _ in handled.add() }
    }
    try netisr.register(handler(.ip, .direct))
    try netisr.register(handler(.arp, .deferred))
    let memories = (0..<3).map { _ in Memory(128) }
    for memory in memories { memory.pool.bind(to: .max) }
    do {
      var threads: [JoinedBox] = []
      for (n, memory) in memories.enumerated() {
        threads.append(
          try JoinedBox {
            // A thread that is no worker, but owns its pool.
            unsafe rw_thread_set(rw_thread())
            memory.pool.unbind()
            let own = UInt32.max - UInt32(n)
            memory.pool.bind(to: own)
            for i in 0..<3000 {
              unsafe rw_thread_set(rw_thread(token: own, worker_id: 0, worker: nil, block: nil))
              let packet = memory.pool.allocate()
              unsafe rw_thread_set(rw_thread())
              guard let packet else { continue }
              packet.fill(with: [9])
              made.add()
              netisr.dispatch(i % 2 == 0 ? .ip : .arp, packet, source: UInt(i))
            }
            finished.add()
          })
      }
      while finished.value < 3 {
        try netisr.unregister(.ip)
        try netisr.register(handler(.ip, .direct))
      }
    }
    eventually("the last reader of a former handler") { netisr.shared.registry.withLock { $0.retired.isEmpty } }
    netisr.stop()
    let dropped = netisr.drops.snapshot().reduce(0) { $0 + Int($1.packets) }
    #expect(handled.value + dropped == made.value)
    for memory in memories { #expect(memory.pool.available == 128) }
  }

  @Test func manyProducersIntoOneStreamStayBelowItsLimit() throws {
    let netisr = try threaded(1), handled = Tally()
    try netisr.register(
      NetisrHandler(name: "test", proto: .ip, dispatch: .deferred, queueLimit: 10) { _ in handled.add() })
    let memories = (0..<4).map { _ in Memory(64) }, accepted = Tally(), refused = Tally()
    do {
      var threads: [JoinedBox] = []
      for memory in memories {
        // Bound to nobody who frees: what the worker frees comes back by the list.
        memory.pool.bind(to: 0xffff_0000)
        threads.append(
          try JoinedBox {
            for _ in 0..<2000 {
              unsafe rw_thread_set(rw_thread(token: 0xffff_0000, worker_id: 0, worker: nil, block: nil))
              let packet = memory.pool.allocate()
              unsafe rw_thread_set(rw_thread())
              guard let packet else { continue }
              if netisr.queue(.ip, packet) == .ok { accepted.add() } else { refused.add() }
            }
          })
      }
    }
    netisr.stop()
    let line = try netisr.stream(0)
    #expect(line.watermark <= 10)
    #expect(Int(line.queued) == accepted.value)
    #expect(Int(line.queueDrops) == refused.value)
    #expect(handled.value == accepted.value)
    for memory in memories { #expect(memory.pool.available == 64) }
  }
}

/// A joined thread in an array.
final class JoinedBox {
  private let thread: JoinedThread
  init(_ body: @escaping @Sendable () -> Void) throws { thread = try JoinedThread(name: "test", body) }
}
