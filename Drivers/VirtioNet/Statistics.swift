// Counters, under the names that Linux's virtio_net driver uses where it has them.

public import DriverKit

/// What is counted for the device as a whole.
struct DeviceCounters {
  var resets: UInt64 = 0
  var transmitTimeouts: UInt64 = 0
  var linkChanges: UInt64 = 0
  var faults: UInt64 = 0
  /// Frames that were on a transmit ring when the device was reset.
  var lostFrames: UInt64 = 0
  var budget = ResetBudget()
}

extension VirtioNetDriver {
  public func statistics() -> [Statistic] {
    var receive = QueueCounters()
    var transmit = QueueCounters()
    var exhausted: UInt64 = 0
    var each: [Statistic] = []
    for i in 0..<queueCount {
      let (rx, rxKicks) = unsafe (pairs[i].receive.counters, pairs[i].receive.queue.notifications)
      let (tx, txKicks) = unsafe (pairs[i].transmit.counters, pairs[i].transmit.queue.notifications)
      receive.add(rx, kicks: rxKicks)
      transmit.add(tx, kicks: txKicks)
      each += [
        Statistic("rx_queue_\(i)_packets", rx.packets), Statistic("rx_queue_\(i)_bytes", rx.bytes),
        Statistic("rx_queue_\(i)_drops", rx.errors), Statistic("rx_queue_\(i)_kicks", rxKicks),
        Statistic("tx_queue_\(i)_packets", tx.packets), Statistic("tx_queue_\(i)_bytes", tx.bytes),
        Statistic("tx_queue_\(i)_drops", tx.drops), Statistic("tx_queue_\(i)_kicks", txKicks),
      ]
    }
    for pool in pools { exhausted += pool.exhausted }
    return [
      Statistic("rx_packets", receive.packets), Statistic("rx_bytes", receive.bytes),
      Statistic("rx_errors", receive.errors), Statistic("rx_kicks", receive.doorbells),
      Statistic("rx_buffers_exhausted", exhausted),
      Statistic("tx_packets", transmit.packets), Statistic("tx_bytes", transmit.bytes),
      Statistic("tx_dropped", transmit.drops + counters.lostFrames), Statistic("tx_kicks", transmit.doorbells),
      Statistic("tx_timeouts", counters.transmitTimeouts), Statistic("resets", counters.resets),
      Statistic("device_faults", counters.faults), Statistic("link_changes", counters.linkChanges),
    ] + each
  }
}

extension QueueCounters {
  mutating func add(_ other: QueueCounters, kicks: UInt64) {
    packets += other.packets
    bytes += other.bytes
    errors += other.errors
    drops += other.drops
    doorbells += kicks
  }
}
