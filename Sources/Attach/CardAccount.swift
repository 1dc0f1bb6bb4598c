// The account of what a card lost: its own counters, as differences, in the ledger and in the interface's counters.
//
// received (on the wire's end here) = what the interface counted as input + what the card says that it lost.

internal import DriverKit
internal import Ifnet
internal import Packet
internal import Synchronization

/// What the card has said so far.
struct CardAccount {
  /// One way of losing frames, and where it is counted.
  struct Loss {
    let reason: DropReason
    let counter: InterfaceCounter
    /// The counters that make it up; `N` stands for every queue.
    let names: [String]
  }

  /// Every driver's words for it.
  static let losses = [
    Loss(
      reason: .receiveRing, counter: .iqdrops,
      names: ["rx_missed_errors", "rx_no_dma_resources", "rx_queue_N_drops"]),
    Loss(
      reason: .receiveError, counter: .ierrors,
      names: ["rx_crc_errors", "rx_align_errors", "rx_length_errors", "rx_queue_N_errors"]),
    Loss(reason: .deviceReset, counter: .oerrors, names: ["tx_queue_N_lost_in_reset"]),
    Loss(reason: .transmitRing, counter: .oerrors, names: ["tx_queue_N_drops"]),
  ]

  private var seen: [String: UInt64] = [:]
  /// Frames that were on the rings of a card that was stopped are not sent, and the driver does not count them.
  mutating func forgetDriver() { seen = [:] }

  /// What is new since the last time; a counter that went back began anew.
  mutating func difference(_ name: String, _ value: UInt64) -> UInt64 {
    let old = seen.updateValue(value, forKey: name) ?? 0
    return value >= old ? value - old : value
  }
}

extension CardAttachment {
  /// Reads the card's counters. While every owner stands still.
  func settleAccount() {
    let statistics = driver.statistics()
    shared.withLock { $0.statistics = statistics }
    guard let interface = attached else { return }
    var values: [String: UInt64] = [:]
    for statistic in statistics { values[statistic.name] = statistic.value }
    // virtio-net has one sum for frames that it refused and frames that a reset took: what is no queue's is the reset's.
    if let dropped = values["tx_dropped"], values["tx_queue_0_lost_in_reset"] == nil {
      let refused = queues.indices.reduce(UInt64(0)) { $0 &+ (values["tx_queue_\($1)_drops"] ?? 0) }
      values["tx_queue_0_lost_in_reset"] = dropped >= refused ? dropped - refused : 0
    }
    if let collisions = values["collisions"] {
      interface.count(.collisions, account.difference("collisions", collisions))
    }
    for loss in CardAccount.losses {
      for name in loss.names {
        guard let at = name.firstIndex(of: "N"), name.contains("_N_") else {
          note(values[name], name, loss, queue: 0, interface)
          continue
        }
        for queue in queues.indices {
          let own = name[..<at] + "\(queue)" + name[name.index(after: at)...]
          note(values[String(own)], String(own), loss, queue: queue, interface)
        }
      }
    }
  }

  private func note(_ value: UInt64?, _ name: String, _ loss: CardAccount.Loss, queue: Int, _ interface: Interface) {
    guard let value else { return }
    let new = account.difference(name, value)
    guard new > 0 else { return }
    interface.count(loss.counter, new)
    table.drops.count(new, loss.reason, interface: interface.index, queue: UInt8(clamping: queue))
  }
}
