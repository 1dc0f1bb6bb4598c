// The rings of a session that one worker syncs.

internal import CRingway
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
internal import Netisr
internal import Platform
internal import Synchronization

/// A session on one of its workers. Everything that is not atomic belongs to that worker.
@safe final class SessionPart: @unchecked Sendable {
  let worker: Worker
  let poller: SyncPoller
  /// Its number in the session: which doorbell of the page is its own.
  let index: Int
  let page: PageMemory
  private let waker: SessionWaker
  private let adapter: any NetmapAdapter
  private let region: NetmapRegion
  let krings: [Kring]
  private let count: Int
  /// The last request that was answered, and where the ring is in the page. The page's own copies are the program's.
  private let answered: UnsafeMutablePointer<UInt32>
  private let offsets: UnsafeMutablePointer<Int>
  let doorbell: EventFD

  /// In the poller's list.
  var isActive = false
  /// Nanoseconds of the clock at the first fruitless look; 0: the last look found something.
  var idleSince: UInt64 = 0
  private var token: WorkerToken?
  private var isEnded = false

  private let syncCount = Atomic<UInt64>(0), ringCount = Atomic<UInt64>(0)
  var syncs: UInt64 { syncCount.load(ordering: .relaxed) }
  /// Times that the doorbell woke the worker.
  var rings: UInt64 { ringCount.load(ordering: .relaxed) }

  /// - Parameters:
  ///   - krings: with their places in the page.
  init(
    _ worker: Worker, _ poller: SyncPoller, index: Int, page: PageMemory, waker: SessionWaker, adapter: any NetmapAdapter,
    region: NetmapRegion, krings: [(place: Int, kring: Kring)]
  ) throws(NetmapError) {
    (self.worker, self.poller, self.index, self.page) = (worker, poller, index, page)
    (self.waker, self.adapter, self.region) = (waker, adapter, region)
    self.krings = krings.map(\.kring)
    count = krings.count
    do { doorbell = try EventFD() } catch { throw NetmapError(.ENOMEM, "No descriptor for a doorbell: \(error).") }
    unsafe answered = .allocate(capacity: count)
    unsafe answered.initialize(repeating: 0, count: count)
    unsafe offsets = .allocate(capacity: count)
    for (i, entry) in krings.enumerated() { unsafe (offsets + i).initialize(to: SyncPage.ring(entry.place)) }
    for i in 0..<count { show(i) }
  }

  deinit {
    unsafe answered.deallocate()
    unsafe offsets.deallocate()
  }

  /// From now on the doorbell is heard. From a thread that is not another worker.
  func start() throws(NetmapError) {
    // The program shares the doorbell and may make it blocking or fill it: its changes are watched, and it is never read.
    do {
      let token = try worker.watch(doorbell.descriptor, onChange: true) { [weak self] in self?.ring() }
      worker.perform { [self] in self.token = token }
    } catch { throw NetmapError(.ENOMEM, "\(error)") }
  }

  /// The worker forgets the session. When this returns none of its rings is touched any more.
  func end() {
    worker.perform { [self] in
      isEnded = true
      token?.cancel()
      token = nil
      poller.remove(self)
    }
  }

  /// The doorbell rang.
  private func ring() {
    guard !isEnded else { return }
    ringCount.wrappingAdd(1, ordering: .relaxed)
    wakeUp()
  }

  func wakeUp() {
    idleSince = 0
    page.store(SyncPage.sleeping(index), 0)
    poller.add(self)
  }

  /// Answers the requests that are there.
  /// - Returns: how many there were.
  func serve() -> Int {
    var done = 0, i = 0
    while i < count {
      // SAFETY: i is below the number of elements of both.
      let offset = unsafe offsets[i]
      let request = page.load(offset + SyncPage.request)
      if unsafe request != answered[i] {
        unsafe answered[i] = request
        synchronise(i, offset, request)
        done &+= 1
      }
      i &+= 1
    }
    if done > 0, page.isTaken || region.isQuarantined { poller.settings.reportFault() }
    return done
  }

  private func synchronise(_ i: Int, _ offset: Int, _ request: UInt32) {
    // Without its memory a region is of no use: its programs' syncs fail.
    let isWhole = !region.isQuarantined, isClean = isWhole && adapter.synchronise(krings[i])
    if !isClean, !isWhole || adapter.isGone { waker.tellGone() }
    show(i, isFaulted: !isClean)
    // This worker alone writes it.
    syncCount.store(syncCount.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    page.store(offset + SyncPage.done, request)
    // Either this side sees that somebody waits, or he sees that it is done.
    rw_fence()
    if page.load(offset + SyncPage.waiters) != 0 { page.wake(offset + SyncPage.done) }
  }

  private func show(_ i: Int, isFaulted: Bool = false) {
    let offset = unsafe offsets[i], kring = krings[i]
    page.store(offset + SyncPage.hwcur, kring.hwcur)
    page.store(offset + SyncPage.hwtail, kring.hwtail)
    page.store(offset + SyncPage.status, isFaulted ? SyncPage.faulted : 0)
  }

  /// The worker stops looking.
  /// - Returns: false when a request came at the last moment.
  func rest() -> Bool {
    page.store(SyncPage.sleeping(index), 1)
    rw_fence()
    guard serve() == 0 else {
      page.store(SyncPage.sleeping(index), 0)
      idleSince = 0
      return false
    }
    return true
  }
}
