// What a cell of the matrix is: a driver on a model, set up in one way, doing one thing, with one
// thing going wrong. A cell's name says all of it, and runs it again alone:
//
//     RINGWAY_MATRIX=<name or part of one> swift test --filter MatrixTests

import DriverKit
import ModelKit

/// A driver and the model that it runs on.
enum Subject: String, CaseIterable, Sendable {
  case e1000e
  /// An 82599 for backplanes.
  case ixgbe
  /// One with an SFP+ cage, whose module is read over two wires, slowly: few cells.
  case ixgbeSFP
  case virtio
  /// Without mergeable buffers and event indexes.
  case virtioPlain
  /// A device that completes buffers in any order but the right one.
  case virtioReversed

  var isVirtio: Bool { rawValue.hasPrefix("virtio") }
  var queueChoices: [Int] {
    switch self {
    case .e1000e: [1, 2]
    case .ixgbe: [1, 2, 4, 8]
    case .ixgbeSFP: [2]
    case .virtio: [1, 2, 4]
    case .virtioPlain, .virtioReversed: [1]
    }
  }
  var mtus: [Int] { self == .virtioPlain ? [1500] : [1500, 1500, 9000] }
  var strips: Bool { !isVirtio }
}

/// What a cell does.
enum Scenario: String, CaseIterable, Sendable {
  case receive, send, forward, overrun, checksums, segmentation, filter, interrupts, restart, link
  /// With a device that breaks its word.
  case lies
}

struct Cell: Sendable {
  var subject: Subject
  var scenario: Scenario
  var isShared: Bool
  var queues: Int
  var receiveRing: Int
  var transmitRing: Int
  var mtu: Int
  var strips: Bool
  var moderation: Int
  var batch: Int
  /// As on the command line of a model; empty for a good wire.
  var wireFault: String
  var modelFault: ModelFault?
  var seed: UInt64

  var name: String {
    let fault = modelFault.map { "/\($0)" } ?? ""
    return "\(subject)/\(scenario)/\(isShared ? "shared" : "trapped")/q\(queues)/r\(receiveRing)/t\(transmitRing)/mtu\(mtu)"
      + "\(strips ? "/strip" : "")/mod\(moderation)/b\(batch)/\(wireFault.isEmpty ? "good" : wireFault)\(fault)/\(seed)"
  }

  var options: PortOptions {
    var options = PortOptions()
    options.queues = queues
    options.receiveDescriptors = receiveRing
    options.transmitDescriptors = transmitRing
    options.mtu = mtu
    options.stripVLAN = strips
    options.moderationMicroseconds = moderation
    return options
  }
}

/// Every cell: each subject, scenario, mode, number of queues and fault together; what is left
/// (ring sizes, MTU, tags, moderation, batches) is drawn by the seed, several times.
enum Cells {
  static let wireFaults = [
    "", "drop=every:5", "drop=p:0.2", "duplicate=every:4", "duplicate=p:0.1:3", "reorder=every:6:2", "reorder=p:0.2:4",
    "corrupt=every:5", "corrupt=p:0.1:silent", "delay=every:7:40us", "delay=p:0.1:5us", "stall=20:80us",
  ]
  static let modelFaults: [ModelFault] = [
    .gone, .transmitHang, .neverReports, .neverDelivers, .receiveLength(0, count: 5), .receiveLength(17, count: 5),
    .receiveLength(65535, count: 5), .receiveLength(.max, count: 3), .missingEnd(count: 1), .missingEnd(count: 300),
    .receiveError(count: 4), .wrongCompletion(0xffff, count: 2), .wrongCompletion(70, count: 1),
    .wrongCompletion(3, count: 9), .duplicateCompletion(count: 1), .duplicateCompletion(count: 9), .indexJump(1, count: 1),
    .indexJump(1000, count: 2), .indexJump(0xffff, count: 1), .interruptStorm, .noInterrupts, .stuckReset,
    .wrongAddress(count: 3), .randomRegisters(seed: 7), .randomRegisters(seed: 1234),
  ]

  static func all(seed: UInt64) -> [Cell] {
    var cells: [Cell] = []
    var random = SeededGenerator(seed: seed)
    for subject in Subject.allCases {
      for scenario in Scenario.allCases {
        for isShared in [false, true] {
          for queues in subject.queueChoices {
            for (wire, fault) in variants(scenario) {
              cells += (0..<repeats(subject, scenario)).map { _ in
                draw(subject, scenario, isShared, queues, wire, fault, &random)
              }
            }
          }
        }
      }
    }
    return cells
  }

  private static func repeats(_ subject: Subject, _ scenario: Scenario) -> Int {
    if subject == .ixgbeSFP { return [.filter, .restart, .link].contains(scenario) ? 1 : 0 }
    return switch scenario {
    case .receive, .send, .forward: 4
    case .lies: 2
    default: 6
    }
  }

  /// The faults that go with a scenario.
  private static func variants(_ scenario: Scenario) -> [(String, ModelFault?)] {
    switch scenario {
    case .receive, .forward: wireFaults.map { ($0, nil) }
    case .send: wireFaults.map { ($0.isEmpty ? "" : "tx.\($0)", nil) }
    case .overrun, .restart: [("", nil), ("duplicate=every:3", nil), ("corrupt=every:7", nil)]
    case .checksums: [("", nil), ("corrupt=every:3:silent", nil)]
    case .lies: modelFaults.map { ("", $0) }
    case .segmentation, .filter, .interrupts, .link: [("", nil)]
    }
  }

  private static func draw(
    _ subject: Subject, _ scenario: Scenario, _ isShared: Bool, _ queues: Int, _ wire: String, _ fault: ModelFault?,
    _ random: inout SeededGenerator
  ) -> Cell {
    func pick<T>(_ choices: [T]) -> T { choices[Int(random.next() % UInt64(choices.count))] }
    return Cell(
      subject: subject, scenario: scenario, isShared: isShared, queues: queues,
      receiveRing: pick(scenario == .overrun && queues > 2 ? [64] : [64, 64, 128, 256]),
      transmitRing: pick([64, 64, 128, 256]), mtu: pick(subject.mtus), strips: pick([false, subject.strips]),
      moderation: pick([0, 20, 125]), batch: pick([1, 3, 7, 16, 32, 33]), wireFault: wire, modelFault: fault,
      seed: random.next() >> 40)
  }
}
