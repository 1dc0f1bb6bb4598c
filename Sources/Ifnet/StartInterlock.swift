// The start interlock: who runs if_start, and where.
//
//     interlock taken ──> hardware serializer free ──> if_start here ──> data left? ─ no ─> released
//                   │                                                       └ yes ─┐
//                   └── contended ──> kick ──> owner worker: if_start ──> data left? ─> kick, interlock held
//
// A kick that nobody forces stays with the worker: it marks the stage, and the rollup sends it off.

internal import Netisr
internal import Synchronization

extension Subqueue {
  private var slot: SerializerSlot { .transmit(index) }

  /// RUNNING and not oactive: the ring takes packets.
  private var isRunning: Bool { interface.flags.contains(.running) && !isActive }

  /// Runs if_start if the ring takes packets; the hardware serializer is held. Returns whether it still does.
  private func runStart() -> Bool {
    guard isRunning, noteStart() else { return false }
    interface.driver.start(self)
    return isRunning
  }

  /// ifsq_ifstart_try: directly, or on the owner when the hardware serializer is contended. The interlock is held.
  func tryStart(forceSchedule: Bool) {
    let serializer = interface.serializer
    guard serializer.tryEnter(slot) else { return scheduleStart(force: true) }
    let again = keepInterlock(isRunning: runStart())
    serializer.leave(slot)
    if again { scheduleStart(force: forceSchedule) }
  }

  /// From the rollup: packets have gathered and no more came.
  func startUnlessStarted() {
    if takeInterlock(wantsData: false) { tryStart(forceSchedule: true) }
  }

  /// ifsq_ifstart_schedule: leaves the kick with the calling worker's stage, or sends it to the owner.
  func scheduleStart(force: Bool) {
    if !force, leaveKick() { return }
    let owner = self.owner
    noteKick()
    staging.netisr.workers[owner].send(kicks[owner])
  }

  /// The kick has arrived; its message may be sent again from now on.
  func kicked(on worker: Int) {
    guard owner == worker else { return scheduleStart(force: true) }
    let serializer = interface.serializer
    serializer.enter(slot)
    let again = keepInterlock(isRunning: runStart())
    serializer.leave(slot)
    if again { scheduleStart(force: false) }
  }

  /// From transmit completion (ifsq_devstart): the ring has room again. Starts what waits, unless somebody does;
  /// on a thread that cannot have the hardware serializer now, the owner does it.
  public func ready() {
    isActive = false
    let serializer = interface.serializer
    guard serializer.tryEnter(slot) else { return scheduleStart(force: true) }
    devstart()
    serializer.leave(slot)
  }

  /// ifsq_devstart: the same for whoever holds the hardware serializer. Looks neither at RUNNING nor at oactive.
  public func devstart() {
    guard takeInterlock(wantsData: true), noteStart() else { return }
    interface.driver.start(self)
    if keepInterlock(isRunning: isRunning) { scheduleStart(force: false) }
  }

  /// ifsq_devstart_sched: has the owner start the ring, from any thread.
  public func devstartScheduled() { scheduleStart(force: true) }
}
