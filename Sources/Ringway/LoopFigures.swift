// What a loop costs, and what its ports lose.

internal import CRingway
public import DriverKit

/// Processor time of a loop, in ticks of the time-stamp counter (`rw_ticks`): a steady clock, near the
/// processor's nominal frequency. Two readings a pass of up to 16 rounds.
///
/// Read it on the loop's thread: an observer does.
public final class LoopFigures {
  /// Packets that the work's rounds moved.
  public private(set) var packets: UInt64 = 0
  /// Ticks of the passes that moved any: drivers and work together, without the waiting.
  public private(set) var busyTicks: UInt64 = 0
  /// Ticks since the loop began.
  public private(set) var totalTicks: UInt64 = 0
  private var last: UInt64 = 0

  init() {}

  /// What a running loop keeps in local variables.
  struct Cost {
    fileprivate var packets: UInt64
    fileprivate var busy: UInt64

    @inline(__always) mutating func add(_ moved: Int, since before: UInt64) {
      packets &+= UInt64(moved)
      busy &+= rw_ticks() &- before
    }
  }

  func begin() -> Cost {
    last = rw_ticks()
    return Cost(packets: packets, busy: busyTicks)
  }

  func note(_ cost: Cost) {
    packets = cost.packets
    busyTicks = cost.busy
    let now = rw_ticks()
    totalTicks &+= now &- last
    last = now
  }
}

extension Port {
  /// Frames that did not get through at this card, by the counter that says why; queues added up.
  ///
  /// Counters of drops only, and none that is contained in another of the list.
  public func drops() -> [Statistic] {
    var sums: [(name: String, value: UInt64)] = []
    for counter in statistics() where counter.value > 0 {
      guard let reason = Self.dropReason(counter.name) else { continue }
      if let index = sums.firstIndex(where: { $0.name == reason }) {
        sums[index].value &+= counter.value
      } else {
        sums.append((reason, counter.value))
      }
    }
    return sums.map { Statistic($0.name, $0.value) }
  }

  /// "rx_queue_3_drops" is "rx_queue_drops"; nil for a counter of something else.
  static func dropReason(_ name: String) -> String? {
    let words = name.split(separator: "_")
    if words.count >= 4, words[1] == "queue", words[2].allSatisfy(\.isNumber) {
      let reason = words[3...].joined(separator: "_")
      return ["drops", "errors", "lost_in_reset"].contains(reason) ? "\(words[0])_queue_\(reason)" : nil
    }
    return cardDrops.contains(name) ? name : nil
  }

  /// What cards count themselves: no descriptor, no room on the chip, damaged on the wire.
  private static let cardDrops: Set<String> = [
    "rx_missed_errors", "rx_no_dma_resources", "rx_crc_errors", "rx_length_errors", "rx_frame_errors",
    "tx_aborted_errors", "tx_carrier_errors",
  ]
}
