// A subqueue's watchdog: a `Watchdog` on the owner worker, wherever that goes, under the hardware serializer.

extension Subqueue {
  /// Seconds until `driver.watchdog(subqueue)` is called; 0: never. A driver sets it when it gives the card
  /// packets, and to 0 when the card has sent them all.
  public var watchdogTimer: Int {
    get { watchdog.timer }
    set { watchdog.timer = newValue }
  }

  /// ifsq_watchdog_start: looks once a second from now on, on the owner. The timer is 0 then.
  public func startWatchdog() {
    watchdog.onExpiry { [weak interface, index] in
      guard let interface else { return true }
      // Somebody is in the driver: in a second again.
      guard interface.serializer.tryEnter(.transmit(index)) else { return false }
      interface.driver.watchdog(interface.subqueues[index])
      interface.serializer.leave(.transmit(index))
      return true
    }
    watchdog.start()
  }

  /// ifsq_watchdog_stop: it does not fire again, except where it is firing now. The timer is 0 then.
  public func stopWatchdog() { watchdog.stop() }

  public var isWatchdogRunning: Bool { watchdog.isRunning }
}
