// How each subject is made, and where its counters are.

import DeviceIO
import DriverKit
import E1000e
import Ixgbe
import ModelKit
import Models
import NetmapCore
import PCI
import VirtioNet

/// Where the frames that reached a card went, by its own and its driver's counters.
struct Account: Equatable, CustomStringConvertible {
  /// Frames that the driver handed out.
  var delivered = 0
  var deliveredBytes = 0
  var damaged = 0
  /// For want of buffers.
  var missed = 0
  var filtered = 0
  /// Too long, and errors that the driver saw.
  var refused = 0
  /// Frames that left, by the device's counter and by the driver's.
  var sentByCard = 0
  var sentByDriver = 0

  var received: Int { delivered + damaged + missed + filtered + refused }
  var description: String {
    "delivered \(delivered), damaged \(damaged), missed \(missed), filtered \(filtered), refused \(refused), sent \(sentByCard)/\(sentByDriver)"
  }
}

extension Subject {
  func makeModel(_ cell: Cell, _ wire: any ModelWire) throws -> any DeviceModel {
    switch self {
    case .e1000e: return try E1000eModel(wire: wire)
    case .ixgbe: return try Intel82599Model(device: 0x10f7, wire: wire)
    case .ixgbeSFP: return try Intel82599Model(wire: wire)
    case .virtio, .virtioPlain, .virtioReversed: return try makeVirtio(cell, wire)
    }
  }

  private func makeVirtio(_ cell: Cell, _ wire: any ModelWire) throws -> VirtioNetModel {
    var options = VirtioNetModelOptions()
    options.pairs = cell.queues
    options.queueSize = 256
    if self == .virtioPlain {
      options.features &= ~(VirtioModelFeature.mergeableBuffers | VirtioModelFeature.eventIndex)
    }
    options.reversesCompletions = self == .virtioReversed
    let model = try VirtioNetModel(options)
    model.wire = wire
    return model
  }

  func makeDriver(
    _ card: InProcessCard, _ allocator: NetmapAllocator, _ options: PortOptions, _ clock: any TimeSource
  ) throws -> any NetDriver {
    switch self {
    case .e1000e: try E1000eDriver(card, allocator: allocator, options: options, clock: clock)
    case .ixgbe, .ixgbeSFP: try IxgbeDriver(card, allocator: allocator, options: options, clock: clock)
    case .virtio, .virtioPlain, .virtioReversed:
      try VirtioNetDriver(card, allocator: allocator, options: options, clock: clock)
    }
  }
}

extension Rig {
  /// - Parameter counters: the driver's, by name.
  func account(_ counters: [String: Int]) -> Account {
    func statistic(_ name: String) -> Int { counters[name] ?? 0 }
    func total(_ name: String) -> Int {
      (0..<cell.queues).reduce(0) { $0 + statistic(name.replacingQueue($1)) }
    }
    var account = Account()
    account.delivered = total("rx_queue_N_packets")
    account.deliveredBytes = total("rx_queue_N_bytes")
    account.sentByDriver = total("tx_queue_N_packets")
    if let model = model as? VirtioNetModel {
      account.damaged = model.counters.damaged
      account.filtered = model.counters.filtered
      account.missed = model.counters.noBuffer
      account.refused = model.counters.tooLong + model.counters.unattended + statistic("rx_errors")
      account.sentByCard = model.counters.sentFrames
    }
    if let model = model as? E1000eModel {
      account.damaged = statistic("rx_crc_errors")
      account.filtered = model.filteredOut
      account.missed = statistic("rx_missed_errors")
      account.refused = statistic("rx_length_errors") + total("rx_queue_N_errors")
      account.sentByCard = statistic("tx_packets")
    }
    if let model = model as? Intel82599Model {
      account.damaged = statistic("rx_crc_errors")
      account.filtered = model.filteredOut
      account.missed = statistic("rx_missed_errors") + statistic("rx_no_dma_resources")
      account.refused = statistic("rx_long_length_errors") + statistic("rx_short_length_errors") + total("rx_queue_N_errors")
      account.sentByCard = statistic("tx_pkts_nic")
    }
    return account
  }
}

extension String {
  /// "rx_queue_N_packets" with the queue's number.
  fileprivate func replacingQueue(_ queue: Int) -> String {
    split(separator: "N", maxSplits: 1, omittingEmptySubsequences: false).joined(separator: "\(queue)")
  }
}
