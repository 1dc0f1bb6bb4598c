// The live table of `ringway bridge`: what it shows, and how it counts.

import Ringway
import Testing

@testable import ringway

@Suite struct BridgeTableTests {
  func figures(_ seconds: Double, packets: UInt64, cost: BridgeFigures.Cost) -> BridgeFigures {
    BridgeFigures(
      ports: [
        BridgeFigures.Side(
          device: "vfio-user:/tmp/a", driver: "ixgbe", link: "up", rx_packets: packets, rx_bytes: packets * 1000, tx_packets: 3,
          tx_bytes: 180, tx_dropped: 4, drops: ["rx_missed_errors": packets / 10], interrupts: packets / 2),
        BridgeFigures.Side(
          device: "b", driver: "e1000e", link: "down", rx_packets: 3, rx_bytes: 180, tx_packets: packets,
          tx_bytes: packets * 1000, tx_dropped: 0, drops: [:], interrupts: 1),
      ], seconds: seconds, cost: cost)
  }

  @Test func ratesAreOfTheLastSecondAndTotalsOfAll() {
    var table = BridgeTable()
    _ = table.next(figures(1, packets: 1000, cost: .init(packets: 1000, busy: 500_000, total: 1_000_000)))
    let lines = table.next(figures(3, packets: 5000, cost: .init(packets: 5000, busy: 900_000, total: 3_000_000)))
    #expect(
      lines == [
        "3.0 s                              packets/s         b/s         packets               bytes",
        "vfio-user:/tmp/a, ixgbe, link up",
        "  received                             2,000     16 Mb/s           5,000           5,000,000",
        "  sent                                     0       0 b/s               3                 180",
        "  interrupts                           1,000                       2,500",
        "  dropped: transmit ring full              0                           4",
        "  dropped: rx_missed_errors              200                         500",
        "b, e1000e, link down",
        "  received                                 0       0 b/s               3                 180",
        "  sent                                 2,000     16 Mb/s           5,000           5,000,000",
        "  interrupts                               0                           1",
        "both: 100 cycles a packet, 20.0% of a processor",
      ])
  }

  @Test func theSummaryNamesEveryDrop() {
    let text = figures(2, packets: 100, cost: .init(packets: 0, busy: 0, total: 10)).longSummary
    #expect(text.contains("vfio-user:/tmp/a: 50 interrupts; drops: transmit ring full 4, rx_missed_errors 10"))
    #expect(text.contains("b: 1 interrupts; drops: none"))
    #expect(text.hasSuffix("forwarding took no packets, 0.0% of a processor"))
  }
}
