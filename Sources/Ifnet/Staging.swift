// Stages: where a worker lets packets of a subqueue gather before it starts the ring.
//
//     send on worker w ──> stage (subqueue, w): count, bytes ── 4 packets, or about an MTU ──> start
//                                │ fewer
//                                └──> the worker's list ──> rollup, priority 50 ──> start, or kick the owner
//
// Invariants
// - A stage is touched by its worker alone. While it is on the worker's list, it holds its interface.

internal import Netisr
internal import Synchronization

/// A subqueue's stage on one worker.
@safe struct SendStage {
  var count = 0
  var bytes = 0
  /// IFSQ_STAGE_FLAG_QUED: it is on the worker's list.
  var isQueued = false
  /// IFSQ_STAGE_FLAG_SCHED: whoever held the start interlock left a kick here, interlock and all.
  var isScheduled = false
  var previous: UnsafeMutablePointer<SendStage>?
  var next: UnsafeMutablePointer<SendStage>?
  unowned(unsafe) let subqueue: Subqueue

  init(_ subqueue: Subqueue) {
    unsafe previous = nil
    unsafe next = nil
    unsafe self.subqueue = subqueue
  }
}

typealias SendStagePointer = UnsafeMutablePointer<SendStage>

/// The stages of one worker that wait for its rollup.
@safe final class StageList: @unchecked Sendable {
  private var first: SendStagePointer?
  private var last: SendStagePointer?

  init() {
    unsafe first = nil
    unsafe last = nil
  }

  // SAFETY of what follows: on the list's worker only; a stage on the list holds its interface, and so its memory.

  func insert(_ stage: SendStagePointer) {
    guard unsafe !stage.pointee.isQueued else { return }
    unsafe stage.pointee.isQueued = true
    unsafe stage.pointee.previous = last
    unsafe stage.pointee.next = nil
    if let last = unsafe last { unsafe last.pointee.next = stage } else { unsafe first = stage }
    unsafe last = stage
    _ = unsafe Unmanaged.passRetained(stage.pointee.subqueue.interface)
  }

  /// Takes a stage off and empties it; does nothing more when it is not on the list.
  func remove(_ stage: SendStagePointer) {
    unsafe stage.pointee.count = 0
    unsafe stage.pointee.bytes = 0
    unsafe stage.pointee.isScheduled = false
    guard unsafe stage.pointee.isQueued else { return }
    unsafe stage.pointee.isQueued = false
    let (previous, next) = unsafe (stage.pointee.previous, stage.pointee.next)
    if let previous = unsafe previous { unsafe previous.pointee.next = next } else { unsafe first = next }
    if let next = unsafe next { unsafe next.pointee.previous = previous } else { unsafe last = previous }
    unsafe stage.pointee.previous = nil
    unsafe stage.pointee.next = nil
    unsafe Unmanaged.passUnretained(stage.pointee.subqueue.interface).release()
  }

  /// Takes the first stage off: its subqueue, and whether a kick was left there.
  func popFirst() -> (interface: Interface, index: Int, isScheduled: Bool)? {
    guard let stage = unsafe first else { return nil }
    let subqueue = unsafe stage.pointee.subqueue
    let interface = subqueue.interface
    let isScheduled = unsafe stage.pointee.isScheduled
    unsafe remove(stage)
    return (interface, subqueue.index, isScheduled)
  }
}

/// The stages of every worker, and what they go by.
public final class Staging: Sendable {
  let netisr: Netisr
  let lists: [StageList]
  private let maximum = Atomic<Int>(4)
  private let header = Atomic<Int>(40)

  /// Adds the rollup (priority 50) to every worker, and `net.link.stage_cntmax` to the controls.
  init(_ netisr: Netisr) {
    self.netisr = netisr
    lists = netisr.workers.map { _ in StageList() }
    for worker in netisr.workers {
      let list = lists[worker.id]
      worker.addRollup(priority: 50) { [weak self] in self?.rollup(list) }
    }
    netisr.sysctl.add(
      "net.link.stage_cntmax", "packets that a worker stages before it starts a ring; 0 or less: none",
      read: { [weak self] in .integer(Int64(self?.countMaximum ?? 0)) }
    ) { [weak self] text throws(SysctlError) in
      guard let value = Int32(text) else {
        throw .invalid(name: "net.link.stage_cntmax", value: text, allowed: "a number, \(Int32.min) to \(Int32.max)")
      }
      self?.countMaximum = Int(value)
    }
  }

  /// `net.link.stage_cntmax`: how many packets make a worker start the ring. 0 or less switches staging off.
  public var countMaximum: Int {
    get { maximum.load(ordering: .relaxed) }
    set { maximum.store(newValue, ordering: .relaxed) }
  }

  /// max_protohdr, in bytes: 40, or 60 when there is IPv6. A stage that holds an MTU less this much is started.
  public var protocolHeader: Int {
    get { header.load(ordering: .relaxed) }
    set { header.store(newValue, ordering: .relaxed) }
  }

  /// Bytes from which on a stage is started: never below 0.
  func byteLimit(mtu: Int) -> Int { max(0, mtu &- protocolHeader) }

  /// What a queue's limit is raised by: one full stage for each worker.
  var queueSlack: Int { max(0, countMaximum) * lists.count }

  /// The calling worker's list; nil on other threads, and on another dispatcher's workers.
  func currentList() -> (list: StageList, worker: Int)? {
    guard let worker = Worker.current, worker.netisr === netisr else { return nil }
    return (lists[worker.id], worker.id)
  }

  private func rollup(_ list: StageList) {
    while let (interface, index, isScheduled) = list.popFirst() {
      let subqueue = interface.subqueues[index]
      if isScheduled { subqueue.scheduleStart(force: true) } else { subqueue.startUnlessStarted() }
    }
  }
}
