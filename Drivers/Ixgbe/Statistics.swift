// The card's counters, which clear when they are read, added up into 64 bits; and the queues' own
// (82599 datasheet, 8.2.3.23). Names as `ethtool -S` shows them for Linux's ixgbe.

import DeviceIO
import DriverKit
import IntelRings

/// The card's counters that are shown, by register offset.
enum Counter: Int, CaseIterable {
  case crcErrors = 0x4000
  case illegalBytes = 0x4004
  case errorBytes = 0x4008
  case shortPackets = 0x4010
  case localFaults = 0x4034
  case remoteFaults = 0x4038
  case lengthErrors = 0x4040
  case xonSent = 0x3f60
  case xoffSent = 0x3f68
  case xonReceived = 0x41a4
  case xoffReceived = 0x41a8
  case received64 = 0x405c
  case received127 = 0x4060
  case received255 = 0x4064
  case received511 = 0x4068
  case received1023 = 0x406c
  case received1522 = 0x4070
  case received = 0x4074
  case broadcastReceived = 0x4078
  case multicastReceived = 0x407c
  case sent = 0x4080
  /// 36 bits: the low word here, the high word behind it; reading the high word clears both.
  case bytesReceived = 0x4088
  case bytesSent = 0x4090
  case undersized = 0x40a4
  case fragments = 0x40a8
  case oversized = 0x40ac
  case jabbers = 0x40b0
  case managementReceived = 0x40b4
  case managementDropped = 0x40b8
  case totalReceived = 0x40d0
  case totalSent = 0x40d4
  case multicastSent = 0x40f0
  case broadcastSent = 0x40f4
  case checksumErrors = 0x4120

  var isWide: Bool { self == .bytesReceived || self == .bytesSent }

  /// Frames lost for want of packet memory, a word for each of 8 traffic classes.
  static let missed = 0x3fa0
}

/// Counters since the driver attached.
struct Totals {
  private var values = [Counter: UInt64]()
  /// Frames lost for want of packet memory; for want of a descriptor.
  var missed: UInt64 = 0
  var dropped: UInt64 = 0
  subscript(_ counter: Counter) -> UInt64 { values[counter] ?? 0 }
  mutating func add(_ counter: Counter, _ value: UInt64) { values[counter, default: 0] &+= value }
}

extension IxgbeDriver {
  /// Reads every counter register once. Skipped when the card answers all ones.
  func accumulateStatistics() {
    guard isPresent else { return }
    for counter in Counter.allCases { totals.add(counter, readCounter(counter)) }
    for i in 0..<8 { totals.missed &+= UInt64(registers.read32(at: Counter.missed + 4 * i)) }
    for i in 0..<queueCount { totals.dropped &+= readDropped(i) }
  }

  /// Counters start at zero after a reset; some cards come up with counts from before. Queue i
  /// counts in counter i.
  func clearStatistics() {
    for i in 0..<4 {
      let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(4 * i + $1) << UInt32(8 * $1) }
      registers.write(Plain(word), to: Reg.rqsmr, index: i)
      registers.write(Plain(word), to: Reg.tqsm, index: i)
    }
    for counter in Counter.allCases { _ = readCounter(counter) }
    for i in 0..<8 { _ = registers.read32(at: Counter.missed + 4 * i) }
    for i in 0..<Self.mostQueues { _ = readDropped(i) }
  }

  private func readCounter(_ counter: Counter) -> UInt64 {
    let low = UInt64(registers.read32(at: counter.rawValue))
    return counter.isWide ? low | UInt64(registers.read32(at: counter.rawValue + 4) & 0xf) << 32 : low
  }

  /// This counter lies on the page of the doorbells: where that is shared memory, reading clears
  /// nothing, and writing (which a card ignores) does.
  private func readDropped(_ i: Int) -> UInt64 {
    let value = registers.read(Reg.qprdc, index: i, stride: Reg.queueStride)
    if value != 0 { registers.write(0, to: Reg.qprdc, index: i, stride: Reg.queueStride) }
    return value == .max ? 0 : UInt64(value)
  }

  public func statistics() -> [Statistic] {
    if health == .running { accumulateStatistics() }
    let t = totals
    var rx = QueueCounters(), tx = QueueCounters()
    for i in 0..<queueCount {
      rx.add(unsafe receivers[i].counters)
      tx.add(unsafe transmitters[i].counters)
    }
    var list = [
      Statistic("rx_packets", rx.packets), Statistic("tx_packets", tx.packets),
      Statistic("rx_bytes", rx.bytes), Statistic("tx_bytes", tx.bytes),
      Statistic("rx_pkts_nic", t[.received]), Statistic("tx_pkts_nic", t[.sent]),
      Statistic("rx_bytes_nic", t[.bytesReceived]), Statistic("tx_bytes_nic", t[.bytesSent]),
      Statistic("lsc_int", linkChanges), Statistic("rx_errors", t[.crcErrors] + t[.lengthErrors]),
      Statistic("rx_dropped", rx.drops), Statistic("tx_dropped", tx.drops),
      Statistic("multicast", t[.multicastReceived]), Statistic("broadcast", t[.broadcastReceived]),
      Statistic("tx_multicast", t[.multicastSent]), Statistic("tx_broadcast", t[.broadcastSent]),
      Statistic("rx_no_dma_resources", t.dropped), Statistic("rx_missed_errors", t.missed),
      Statistic("rx_crc_errors", t[.crcErrors]), Statistic("rx_length_errors", t[.lengthErrors]),
      Statistic("rx_long_length_errors", t[.oversized]), Statistic("rx_short_length_errors", t[.undersized]),
      Statistic("rx_fragments", t[.fragments]), Statistic("rx_jabbers", t[.jabbers]),
      Statistic("rx_illegal_byte_errors", t[.illegalBytes]), Statistic("rx_error_bytes", t[.errorBytes]),
      Statistic("rx_short_packet_discards", t[.shortPackets]), Statistic("rx_csum_offload_errors", t[.checksumErrors]),
      Statistic("mac_local_faults", t[.localFaults]), Statistic("mac_remote_faults", t[.remoteFaults]),
      Statistic("rx_flow_control_xon", t[.xonReceived]), Statistic("rx_flow_control_xoff", t[.xoffReceived]),
      Statistic("tx_flow_control_xon", t[.xonSent]), Statistic("tx_flow_control_xoff", t[.xoffSent]),
      Statistic("rx_size_64", t[.received64]), Statistic("rx_size_65_127", t[.received127]),
      Statistic("rx_size_128_255", t[.received255]), Statistic("rx_size_256_511", t[.received511]),
      Statistic("rx_size_512_1023", t[.received1023]), Statistic("rx_size_1024_max", t[.received1522]),
      Statistic("rx_total_packets", t[.totalReceived]), Statistic("tx_total_packets", t[.totalSent]),
      Statistic("rx_management_packets", t[.managementReceived]),
      Statistic("rx_management_dropped", t[.managementDropped]), Statistic("tx_timeout_count", hangs),
    ]
    for i in 0..<queueCount { list += statistics(ofQueue: i) }
    return list
  }

  private func statistics(ofQueue i: Int) -> [Statistic] {
    let rx = unsafe receivers[i].counters, tx = unsafe transmitters[i].counters
    return [
      Statistic("rx_queue_\(i)_packets", rx.packets), Statistic("rx_queue_\(i)_bytes", rx.bytes),
      Statistic("rx_queue_\(i)_errors", rx.errors), Statistic("rx_queue_\(i)_drops", rx.drops),
      Statistic("rx_queue_\(i)_doorbells", rx.doorbells), Statistic("rx_queue_\(i)_arms", rx.arms),
      Statistic("rx_queue_\(i)_moderation_us", UInt64(unsafe moderation[i].interval)),
      Statistic("tx_queue_\(i)_packets", tx.packets), Statistic("tx_queue_\(i)_bytes", tx.bytes),
      Statistic("tx_queue_\(i)_drops", tx.drops), Statistic("tx_queue_\(i)_doorbells", tx.doorbells),
      Statistic("tx_queue_\(i)_contexts", unsafe transmitters[i].contexts),
      Statistic("tx_queue_\(i)_lost_in_reset", unsafe transmitters[i].lost),
    ]
  }
}

extension QueueCounters {
  mutating func add(_ other: QueueCounters) {
    packets &+= other.packets
    bytes &+= other.bytes
    errors &+= other.errors
    drops &+= other.drops
    doorbells &+= other.doorbells
    arms &+= other.arms
  }
}
