// Workers with packets, and loops that run on them.

import DMAMemory
import DeviceIO
import Foundation
import Netisr
import Packet
import Platform
import Synchronization

/// A failure that a person reads.
struct BenchError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A dispatcher with threads, and a pool for each worker.
@safe final class Rig: @unchecked Sendable {
  static let packetsAWorker = 8192
  let netisr: Netisr
  private let memory: [UnsafeMutableRawPointer]

  init(workers: Int, dispatch: DispatchPolicy = .direct) throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = workers
    configuration.bindThreads = true
    configuration.dispatch = dispatch
    configuration.defaultQueueLimit = configuration.maxQueueLimit
    netisr = try Netisr(configuration)
    guard netisr.workers.count == workers else { throw BenchError("this machine gives \(netisr.workers.count) workers, \(workers) are needed") }
    var memory: [UnsafeMutableRawPointer] = unsafe []
    for worker in netisr.workers {
      let base = UnsafeMutableRawPointer.allocate(byteCount: Self.packetsAWorker * 2048, alignment: 4096)
      unsafe memory.append(base)
      let pool = unsafe PacketPool(
        unsafe: base, stride: 2048, iova: IOVA(rawValue: 0x10_0000), indices: Array(0..<UInt32(Self.packetsAWorker)))
      // Packets that another worker frees come back by way of the pool's returns.
      pool.bind(to: worker.token)
      worker.pool = pool
    }
    unsafe self.memory = memory
  }

  deinit { for unsafe base in unsafe memory { unsafe base.deallocate() } }

  /// Runs `slice` on every worker, again and again, until each has done `count` operations.
  /// - Parameters:
  ///   - slice: how many of at most `max` operations it has done; 0 lets the worker do something else first.
  ///   - isDone: asked when all slices have run.
  /// - Returns: nanoseconds an operation, all workers together.
  func measure(
    _ count: Int, isDone: @escaping @Sendable () -> Bool = { true }, _ slice: @escaping @Sendable (Worker, _ max: Int) -> Int
  ) throws -> Double {
    let clock = MonotonicClock()
    let share = count / netisr.workers.count
    let running = Atomic(netisr.workers.count)
    @Sendable func step(_ worker: Worker, _ left: Int) {
      let done = slice(worker, min(left, 256))
      if left > done {
        worker.post { step(worker, left - done) }
      } else {
        running.wrappingSubtract(1, ordering: .releasing)
      }
    }
    let start = clock.now()
    for worker in netisr.workers { worker.post { step(worker, share) } }
    while running.load(ordering: .acquiring) > 0 || !isDone() {
      clock.sleep(nanoseconds: 20_000)
      guard clock.now() - start < 60_000_000_000 else { throw BenchError("a measurement did not end within a minute") }
    }
    return Double(clock.now() - start) / Double(share * netisr.workers.count)
  }
}
