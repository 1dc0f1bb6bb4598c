// What happens to a card: its link, its events, the look after it once a second, and its end. On worker 0.

internal import DriverKit
public import Ifnet
internal import Netisr
internal import PCI
internal import Platform

extension CardAttachment {
  static var autoselect: String { "Ethernet autoselect" }

  /// From the attach on: removal requests, and the second's tick.
  func watch() {
    let worker = netisr.workers[0]
    if let descriptor = function?.eventDescriptor, descriptor >= 0,
      let token = try? worker.watch(descriptor, { [weak self] in self?.service() })
    {
      tokens.append(token)
    }
    tokens.append(worker.schedule(after: 1_000_000_000, every: 1_000_000_000) { [weak self] in self?.tick() })
  }

  /// While the card runs: its control interrupt. Where a queue has the same, that queue passes it on.
  func watchControl() {
    let descriptor = driver.controlDescriptor
    guard descriptor >= 0, !queues.contains(where: { $0.eventDescriptor == descriptor }) else { return }
    controlToken = try? netisr.workers[0].watch(descriptor) { [weak self] in self?.service() }
  }

  /// Handles what the card or its function has signalled.
  func service() {
    guard attached != nil else { return }
    if let function {
      let events = function.takeEvents()
      if events.contains(.removalRequested) { return lose(.askedBack) }
      if events.contains(.registerFault) || function.isGone { return lose(.gone) }
      if events.contains(.deviceError) { return lose(.quarantined("an uncorrectable PCI Express error was reported")) }
    }
    guard isRunning else { return }
    handle(still { [self] in driver.serviceControl() })
  }

  /// Once a second: the driver's look at the card, counters, buffers that were sent and not asked for.
  func tick() {
    guard attached != nil else { return }
    guard isRunning else { return service() }
    let events = still { [self] () -> DriverEvents in
      let events = driver.tick()
      settleAccount()
      return events
    }
    handle(events)
    guard isRunning else { return }
    for queue in queues { queue.worker.post { queue.reclaim() } }
    service()
  }

  /// The same at once, after something has changed.
  func lookAfter() {
    guard isRunning else { return }
    handle(still { [self] in driver.serviceControl() })
    setLink(driver.link)
  }

  private func handle(_ events: DriverEvents) {
    let health = driver.health
    shared.withLock { $0.health = health }
    switch health {
    case .gone: return lose(.gone)
    case .quarantined(let reason): return lose(.quarantined(reason))
    default: break
    }
    if events.contains(.link) || events.contains(.reset) { setLink(driver.link) }
    guard events.contains(.reset) else { return }
    for queue in queues { queue.worker.post { queue.goOn(wasReset: true) } }
  }

  /// A card that cannot be used any more takes its interface with it.
  func lose(_ reason: CardLoss) {
    guard attached != nil else { return }
    detach()
    onLoss?(self, reason)
  }

  // MARK: Watchdogs

  /// A full ring has stood still for five seconds. The driver looks at its card; when the ring is full all the same, the
  /// card is started anew.
  public func watchdog(_ subqueue: Subqueue) {
    subqueue.interface.count(.oerrors)
    guard queues.indices.contains(subqueue.index) else { return }
    let queue = queues[subqueue.index], first = netisr.workers[0]
    first.post { [weak self] in
      self?.tick()
      queue.worker.post { [weak self] in
        queue.reclaim()
        queue.goOn(wasReset: false)
        guard subqueue.isActive else { return }
        first.post { [weak self] in if let self, self.isRunning { self.restart() } }
      }
    }
  }

  /// Stop and start; what was on the rings is lost and counted.
  func restart() {
    stopCard()
    do { try startCard() } catch { lose(.quarantined("\(error)")) }
    for queue in queues { queue.worker.post { queue.goOn(wasReset: true) } }
  }

  // MARK: Link and media

  func setLink(_ link: LinkState) {
    shared.withLock { $0.link = link }
    let status: LinkStatus = link.status == .up ? .up : link.status == .down ? .down : .unknown
    attached?.setLink(status, baudRate: UInt64(max(0, link.speed)) * 1_000_000)
  }

  public var media: MediaStatus? {
    let link = self.link
    return MediaStatus(
      configured: Self.autoselect, active: link.status == .up ? Self.mediaName(link) : "none",
      status: link.status == .up ? "active" : link.status == .down ? "no carrier" : "unknown",
      baudRate: link.status == .up ? UInt64(max(0, link.speed)) * 1_000_000 : 0, choices: [Self.autoselect])
  }

  /// "1000baseT <full-duplex>".
  static func mediaName(_ link: LinkState) -> String {
    let name: String
    switch link.speed {
    case ...0: return "autoselect"
    case 10: name = "10baseT/UTP"
    case 100: name = "100baseTX"
    case 1000: name = "1000baseT"
    case let speed where speed % 1000 == 0: name = "\(speed / 1000)Gbase-T"
    case let speed: name = "\(speed)baseT"
    }
    return "\(name) <\(link.fullDuplex ? "full" : "half")-duplex>"
  }
}
