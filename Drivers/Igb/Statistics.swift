// The card's counters, which clear when they are read, added up into 64 bits; and the queues' own
// (82576 datasheet, 8.19). Names as `ethtool -S` shows them for Linux's igb.

import DeviceIO
import DriverKit

/// The card's counters that are shown, by register offset.
enum Counter: Int, CaseIterable {
  case crcErrors = 0x4000
  case alignmentErrors = 0x4004
  case receiveErrors = 0x400c
  case missed = 0x4010
  case singleCollisions = 0x4014
  case excessiveCollisions = 0x4018
  case multipleCollisions = 0x401c
  case lateCollisions = 0x4020
  case collisions = 0x4028
  case deferred = 0x4030
  case noCarrier = 0x4034
  case lengthErrors = 0x4040
  case xonReceived = 0x4048
  case xonSent = 0x404c
  case xoffReceived = 0x4050
  case xoffSent = 0x4054
  case received = 0x4074
  case broadcastReceived = 0x4078
  case multicastReceived = 0x407c
  case sent = 0x4080
  /// 64 bits: the low word here, the high word behind it; reading the high word clears both.
  case bytesReceived = 0x4088
  case bytesSent = 0x4090
  case noBuffers = 0x40a0
  case undersized = 0x40a4
  case fragments = 0x40a8
  case oversized = 0x40ac
  case jabbers = 0x40b0
  case multicastSent = 0x40f0
  case broadcastSent = 0x40f4
  /// Frames that were cut into segments.
  case segmented = 0x40f8

  var isWide: Bool { self == .bytesReceived || self == .bytesSent }
}

/// Counters since the driver attached.
struct Totals {
  private var values = [Counter: UInt64]()
  /// What each queue lost for want of a descriptor.
  var missed: [UInt64] = []
  subscript(_ counter: Counter) -> UInt64 { values[counter] ?? 0 }
  mutating func add(_ counter: Counter, _ value: UInt64) { values[counter, default: 0] &+= value }
}

extension IgbDriver {
  /// Reads every counter register once. Skipped when the card answers all ones.
  func accumulateStatistics() {
    guard isPresent else { return }
    for counter in Counter.allCases { totals.add(counter, readCounter(counter)) }
    if totals.missed.count != queueCount { totals.missed = Array(repeating: 0, count: queueCount) }
    for i in 0..<queueCount { totals.missed[i] &+= readMissed(i) }
  }

  /// Twelve bits that stick at their end (8.19). QEMU's model has the register, but does not count.
  private func readMissed(_ i: Int) -> UInt64 {
    UInt64(registers.read(Reg.rqdpc, index: i, stride: Reg.queueStride) & 0xfff)
  }

  /// Counters start at zero after a reset; some cards come up with counts from before.
  func clearStatistics() {
    for counter in Counter.allCases { _ = readCounter(counter) }
    for i in 0..<queueCount { _ = readMissed(i) }
  }

  private func readCounter(_ counter: Counter) -> UInt64 {
    let low = UInt64(registers.read32(at: counter.rawValue))
    return counter.isWide ? low | UInt64(registers.read32(at: counter.rawValue + 4)) << 32 : low
  }

  public func statistics() -> [Statistic] {
    if health == .running { accumulateStatistics() }
    let t = totals
    let lengths = t[.undersized] + t[.oversized]
    var list = [
      Statistic("rx_packets", t[.received]), Statistic("tx_packets", t[.sent]),
      Statistic("rx_bytes", t[.bytesReceived]), Statistic("tx_bytes", t[.bytesSent]),
      Statistic("rx_broadcast", t[.broadcastReceived]), Statistic("tx_broadcast", t[.broadcastSent]),
      Statistic("rx_multicast", t[.multicastReceived]), Statistic("tx_multicast", t[.multicastSent]),
      Statistic(
        "rx_errors", t[.receiveErrors] + t[.crcErrors] + t[.alignmentErrors] + lengths),
      Statistic("tx_errors", t[.excessiveCollisions] + t[.lateCollisions]),
      Statistic("multicast", t[.multicastReceived]), Statistic("collisions", t[.collisions]),
      Statistic("rx_length_errors", lengths), Statistic("rx_crc_errors", t[.crcErrors]),
      Statistic("rx_frame_errors", t[.alignmentErrors]), Statistic("rx_no_buffer_count", t[.noBuffers]),
      Statistic("rx_missed_errors", t[.missed]), Statistic("tx_aborted_errors", t[.excessiveCollisions]),
      Statistic("tx_carrier_errors", t[.noCarrier]), Statistic("tx_window_errors", t[.lateCollisions]),
      Statistic("tx_abort_late_coll", t[.lateCollisions]), Statistic("tx_deferred_ok", t[.deferred]),
      Statistic("tx_single_coll_ok", t[.singleCollisions]), Statistic("tx_multi_coll_ok", t[.multipleCollisions]),
      Statistic("tx_timeout_count", hangs), Statistic("rx_long_length_errors", t[.oversized]),
      Statistic("rx_short_length_errors", t[.undersized]), Statistic("rx_align_errors", t[.alignmentErrors]),
      Statistic("rx_flow_control_xon", t[.xonReceived]), Statistic("rx_flow_control_xoff", t[.xoffReceived]),
      Statistic("tx_flow_control_xon", t[.xonSent]), Statistic("tx_flow_control_xoff", t[.xoffSent]),
      Statistic("rx_fragments", t[.fragments]), Statistic("rx_jabbers", t[.jabbers]),
      Statistic("tx_tcp_seg_good", t[.segmented]),
    ]
    for i in 0..<queueCount {
      let rx = unsafe receivers[i].counters, tx = unsafe transmitters[i].counters
      list += [
        Statistic("rx_queue_\(i)_packets", rx.packets), Statistic("rx_queue_\(i)_bytes", rx.bytes),
        Statistic("rx_queue_\(i)_errors", rx.errors), Statistic("rx_queue_\(i)_drops", rx.drops),
        Statistic("rx_queue_\(i)_missed", i < t.missed.count ? t.missed[i] : 0),
        Statistic("rx_queue_\(i)_doorbells", rx.doorbells), Statistic("rx_queue_\(i)_arms", rx.arms),
        Statistic("tx_queue_\(i)_packets", tx.packets), Statistic("tx_queue_\(i)_bytes", tx.bytes),
        Statistic("tx_queue_\(i)_drops", tx.drops), Statistic("tx_queue_\(i)_doorbells", tx.doorbells),
        Statistic("tx_queue_\(i)_lost_in_reset", unsafe transmitters[i].lost),
      ]
    }
    return list
  }
}
