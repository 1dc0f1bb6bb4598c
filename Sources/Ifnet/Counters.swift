// What an interface counts: a block a worker, written by that worker alone, and one for all other threads.

internal import CRingway
internal import Netisr
internal import Synchronization

/// What an interface has counted, summed over workers.
@frozen public struct InterfaceCounters: BitwiseCopyable, Sendable, Equatable {
  public var ipackets: UInt64 = 0, ibytes: UInt64 = 0, ierrors: UInt64 = 0, imcasts: UInt64 = 0, iqdrops: UInt64 = 0
  public var opackets: UInt64 = 0, obytes: UInt64 = 0, oerrors: UInt64 = 0, omcasts: UInt64 = 0, oqdrops: UInt64 = 0
  public var collisions: UInt64 = 0, noproto: UInt64 = 0
  public init() {}
}

/// One of an interface's counters.
public enum InterfaceCounter: Int, CaseIterable, Sendable {
  case ipackets, ibytes, ierrors, imcasts, iqdrops
  case opackets, obytes, oerrors, omcasts, oqdrops
  case collisions, noproto
}

/// Which of a dispatcher's workers the calling thread is: two loads and a comparison.
@safe final class WorkerNumbers: @unchecked Sendable {
  let count: Int
  private let tokens: UnsafeMutablePointer<UInt32>

  init(_ workers: [Worker]) {
    count = workers.count
    unsafe tokens = .allocate(capacity: workers.count)
    for (i, worker) in workers.enumerated() { unsafe (tokens + i).initialize(to: worker.token) }
  }
  deinit { unsafe tokens.deallocate() }

  /// The calling worker's number; `count` for every other thread, workers of other dispatchers among them.
  @inline(__always) var current: Int {
    let id = Int(rw_thread_worker_id())
    // SAFETY: id is below count; the tokens never change.
    guard id < count, unsafe tokens[id] == rw_thread_token() else { return count }
    return id
  }
}

/// The blocks: 128 bytes each, so that two workers never write one cache line (or its neighbour, which is fetched
/// with it).
@safe final class CounterBlocks: @unchecked Sendable {
  private static let stride = 16
  private let words: UnsafeMutablePointer<Atomic<UInt64>>
  private let numbers: WorkerNumbers

  init(_ numbers: WorkerNumbers) {
    self.numbers = numbers
    let count = (numbers.count + 1) * Self.stride
    unsafe words = UnsafeMutableRawPointer.allocate(byteCount: count * 8, alignment: 128)
      .bindMemory(to: Atomic<UInt64>.self, capacity: count)
    for i in 0..<count { unsafe (words + i).initialize(to: Atomic(0)) }
  }

  deinit { unsafe UnsafeMutableRawPointer(words).deallocate() }

  /// Adds to a counter of the calling thread's block.
  @inline(__always) func add(_ counter: InterfaceCounter, _ n: UInt64) {
    let slot = numbers.current
    // SAFETY: the slot is at most count, the counter below the stride.
    let word = unsafe words + (slot &* Self.stride &+ counter.rawValue)
    if slot < numbers.count {
      // Its only writer: no locked instruction is needed.
      unsafe word.pointee.store(word.pointee.load(ordering: .relaxed) &+ n, ordering: .relaxed)
    } else {
      _ = unsafe word.pointee.wrappingAdd(n, ordering: .relaxed)
    }
  }

  func sum(_ counter: InterfaceCounter) -> UInt64 {
    var total: UInt64 = 0
    for slot in 0...numbers.count { unsafe total &+= words[slot * Self.stride + counter.rawValue].load(ordering: .relaxed) }
    return total
  }

  var total: InterfaceCounters {
    var all = InterfaceCounters()
    (all.ipackets, all.ibytes, all.ierrors) = (sum(.ipackets), sum(.ibytes), sum(.ierrors))
    (all.imcasts, all.iqdrops, all.opackets) = (sum(.imcasts), sum(.iqdrops), sum(.opackets))
    (all.obytes, all.oerrors, all.omcasts) = (sum(.obytes), sum(.oerrors), sum(.omcasts))
    (all.oqdrops, all.collisions, all.noproto) = (sum(.oqdrops), sum(.collisions), sum(.noproto))
    return all
  }
}
