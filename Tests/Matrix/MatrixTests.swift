// Every driver against every model, in process: drivers x features x faults.
//
// The cells follow from a seed. A failure names its cell; `RINGWAY_MATRIX=NAME` (or any part of a
// name) runs only those, `RINGWAY_MATRIX_SEED=N` draws other cells.

import CRingway
import DriverKit
import ModelKit
import Platform
import Testing

private func environment(_ name: String) -> String? {
  guard let value = unsafe getenv(name) else { return nil }
  return unsafe String(cString: value)
}

@Suite struct MatrixTests {
  /// Runs a cell; nil when all of it held.
  private static func failure(_ cell: Cell) -> String? {
    do {
      let rig = try Rig(cell)
      do { try rig.run() } catch { rig.failures.append("\(error)") }
      return rig.failures.isEmpty ? nil : rig.failures.joined(separator: "; ")
    } catch { return "cannot be set up: \(error)" }
  }

  @Test func everyDriverAgainstEveryModel() async {
    let seed = environment("RINGWAY_MATRIX_SEED").flatMap { UInt64($0) } ?? 82599
    var cells = Cells.all(seed: seed)
    if let part = environment("RINGWAY_MATRIX") { cells = cells.filter { $0.name.contains(part) } }
    #expect(!cells.isEmpty, "no cell has such a name")
    let clock = MonotonicClock(), start = clock.now(), chosen = cells
    let results = await withTaskGroup(of: [(index: Int, failure: String?, time: UInt64)].self) { group in
      for lane in 0..<4 {
        group.addTask {
          stride(from: lane, to: chosen.count, by: 4).map { index in
            let start = clock.now()
            return (index, Self.failure(chosen[index]), clock.now() - start)
          }
        }
      }
      return await group.reduce(into: []) { $0 += $1 }.sorted { $0.index < $1.index }
    }
    if environment("RINGWAY_MATRIX_TIMES") != nil { printTimes(results.map { (chosen[$0.index], $0.time) }) }
    let failures = results.compactMap { result in result.failure.map { (result.index, $0) } }
    // The first few of each kind say most.
    var shown: [String: Int] = [:]
    for (index, text) in failures {
      let kind = "\(chosen[index].subject)/\(chosen[index].scenario)"
      shown[kind, default: 0] += 1
      if shown[kind, default: 0] > 3 { continue }
      Issue.record("\(chosen[index].name): \(text) (again: RINGWAY_MATRIX='\(chosen[index].name)' swift test --filter MatrixTests)")
    }
    let tenths = (clock.now() - start) / 100_000_000
    print("matrix: \(cells.count) cells, \(failures.count) failed, \(tenths / 10).\(tenths % 10) s, seed \(seed)")
    let kinds = shown.map { "\($0.key): \($0.value)" }.sorted()
    #expect(kinds.isEmpty, "failed cells by kind")
  }

  /// Where the time goes: milliseconds by subject and scenario.
  private func printTimes(_ cells: [(cell: Cell, time: UInt64)]) {
    for (kind, group) in Dictionary(grouping: cells, by: { "\($0.cell.subject)/\($0.cell.scenario)" }).sorted(by: { $0.key < $1.key }) {
      let sum = group.reduce(0) { $0 + $1.time }
      print("\(kind): \(group.count) cells, \(sum / 1_000_000) ms, \(sum / UInt64(group.count) / 1000) us each")
    }
  }

  /// Shared doorbells change when the device notices, not what it does: the same frames in the same
  /// order on each queue, both ways, as when every access traps, and as when the device acts at each.
  @Test func trappedAndSharedAgree() throws {
    var random = SeededGenerator(seed: 3)
    for subject in Subject.allCases where subject != .ixgbeSFP {
      for queues in subject.queueChoices {
        for wire in ["", "drop=p:0.2", "duplicate=p:0.2", "reorder=p:0.2:3", "corrupt=p:0.1:silent"] {
          let cell = Cell(
            subject: subject, scenario: .forward, isShared: false, queues: queues, receiveRing: 64, transmitRing: 64, mtu: 1500,
            strips: subject.strips, moderation: 20, batch: 7, wireFault: wire, modelFault: nil, seed: random.next() >> 40)
          var shared = cell
          shared.isShared = true
          let rigs = [try Rig(cell), try Rig(shared), try Rig(cell, stepsByItself: true)]
          for rig in rigs {
            try rig.run()
            #expect(rig.failures.isEmpty, "\(rig.cell.name): \(rig.failures)")
          }
          for other in rigs.dropFirst() {
            #expect(rigs[0].got == other.got, "\(cell.name)")
            #expect(rigs[0].ledger.left.count == other.ledger.left.count)
            for queue in 0..<queues {
              #expect(
                rigs[0].ledger.left.filter { $0.queue == queue } == other.ledger.left.filter { $0.queue == queue }, "\(cell.name)")
            }
          }
          #expect(rigs[0].got.contains { !$0.isEmpty })
        }
      }
    }
  }
}
