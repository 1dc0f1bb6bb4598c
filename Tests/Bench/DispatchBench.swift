// Dispatch to a protocol that does nothing: what netisr itself costs.

import CRingway
import Netisr
import Packet
import Synchronization

/// A counter a worker, each on cache lines of its own, written by its worker alone.
@safe final class WorkerCounts: @unchecked Sendable {
  private let counts: UnsafeMutablePointer<Atomic<Int>>
  private let workers: Int
  init(_ workers: Int) {
    self.workers = workers
    unsafe counts = .allocate(capacity: workers * 16)
    for i in 0..<workers * 16 { unsafe (counts + i).initialize(to: Atomic(0)) }
  }
  deinit { unsafe counts.deallocate() }
  /// On the worker that counts.
  @inline(__always) func add(_ n: Int = 1) {
    // SAFETY: a worker's number is below the count of workers.
    let count = unsafe counts + Int(rw_thread_worker_id()) * 16
    unsafe count.pointee.store(count.pointee.load(ordering: .relaxed) &+ n, ordering: .relaxed)
  }
  var total: Int { (0..<workers).reduce(0) { unsafe $0 + (counts + $1 * 16).pointee.load(ordering: .relaxed) } }
}

struct DispatchBench {
  let packets: Int

  func run(_ rounds: Int, _ report: inout Report) throws {
    let policies: [(String, DispatchPolicy)] = [("direct", .direct), ("hybrid", .hybrid), ("deferred", .deferred)]
    for workers in [1, 2] {
      var times: [String: [Double]] = [:]
      for _ in 0..<rounds {
        for (name, policy) in policies { times[name, default: []].append(try once(workers, policy)) }
      }
      for (name, _) in policies {
        report.add("Dispatch to a null protocol", "\(name), \(workers) worker\(workers == 1 ? "" : "s")", times[name] ?? [])
      }
    }
  }

  /// Each worker makes packets, whose receiving interfaces spread them evenly over the workers.
  private func once(_ workers: Int, _ policy: DispatchPolicy) throws -> Double {
    let rig = try Rig(workers: workers, dispatch: policy)
    let handled = WorkerCounts(workers), made = WorkerCounts(workers)
    let netisr = rig.netisr
    try netisr.register(
      NetisrHandler(name: "null", proto: .ip, policy: .source) { packet in
        _ = consume packet
        handled.add()
      })
    try netisr.start()
    defer { netisr.stop() }
    let total = packets / workers * workers
    return try rig.measure(packets, isDone: { handled.total >= total }) { worker, max in
      // Not more on their way than queues and pools hold.
      guard made.total - handled.total < 2048 else { return 0 }
      var n = 0
      while n < max, let packet = worker.allocate() {
        packet.interface = InterfaceIndex(UInt16(truncatingIfNeeded: n & 1), generation: 0)
        netisr.dispatch(.ip, packet)
        n += 1
      }
      made.add(n)
      return n
    }
  }
}
