// Causes, masks, vectors and moderation of the 82574L's model, on virtual time.

import ModelKit
import Models
import Testing

@Suite struct Intel82574InterruptTests {
  let bench: Card82574
  init() throws { bench = try Card82574() }

  private func use(_ kind: ModelBus.InterruptKind) { bench.model.bus.interruptKind = kind }
  private func sent(_ vector: Int = 0) -> Int { bench.model.bus.interrupts[vector] ?? 0 }

  @Test func causesWaitForTheirMask() {
    use(.msix)
    bench[0xe4] = 0x8_0000 | 8
    bench[0xc8] = 1 << 20
    #expect(sent() == 0)
    bench[0xd0] = 1 << 20
    #expect(sent() == 1)
    // Still set and let through: no second message for the same cause.
    bench[0xd0] = 1 << 20
    #expect(sent() == 1)
    #expect(bench[0xc0] == 1 << 20 | 1 << 31)
    #expect(bench[0xc0] == 0, "reading clears")
  }

  /// 7.4.5: with nothing let through, or with an interrupt asserted, reading clears; otherwise not.
  @Test func readingClearsOnlyWhatWasAskedFor() {
    bench[0xc8] = 1 << 2
    #expect(bench[0xc0] == 1 << 2)
    #expect(bench[0xc0] == 0)
    bench[0xd0] = 1 << 7
    bench[0xc8] = 1 << 2
    #expect(bench[0xc0] == 1 << 2)
    #expect(bench[0xc0] == 1 << 2, "not let through: the read has no effect")
    bench[0xc8] = 1 << 7
    #expect(bench[0xc0] == 1 << 31 | 1 << 7 | 1 << 2)
    #expect(bench[0xc0] == 0)
    bench[0xc8] = 6
    bench[0xc0] = 2
    #expect(bench[0xc8] == 4, "ones clear, and ICS shows it without clearing")
  }

  @Test func eachCauseHasItsVector() {
    use(.msix)
    // RxQ0 1, RxQ1 2, TxQ0 3, TxQ1 nowhere, other 4.
    bench[0xe4] = 0xc_0000 | 0xba9 | 0x3000
    bench[0xd0] = 0x1ff_0000 | 4
    bench[0xc8] = 1 << 20 | 1 << 21
    bench[0xc8] = 1 << 22 | 1 << 23
    bench.model.setLink(up: false)
    #expect((0..<5).map { sent($0) } == [0, 1, 1, 1, 1])
    #expect(bench[0xc8] & 1 << 24 != 0)
  }

  @Test func sendingClearsAndMasksWhatItIsToldTo() {
    use(.msix)
    bench[0xe4] = 8
    bench[0xdc] = 1 << 20
    bench[0xd0] = 1 << 20
    bench[0xc8] = 1 << 20
    #expect(bench[0xc8] == 0 && bench[0xd0] == 1 << 20)
    bench[0xc8] = 1 << 20
    #expect(sent() == 2, "cleared automatically, so it comes again")
    // CTRL_EXT.EIAME and IAM: masked as well.
    bench[0x18] = 1 << 24
    bench[0xe0] = 1 << 20
    bench[0xc8] = 1 << 20
    #expect(sent() == 3 && bench[0xd0] == 0)
    bench[0xc8] = 1 << 20
    #expect(sent() == 3)
    bench[0xd0] = 1 << 20
    #expect(sent() == 4)
  }

  @Test(arguments: [ModelBus.InterruptKind.intx, .msi])
  func oneMessageForEverything(kind: ModelBus.InterruptKind) {
    use(kind)
    bench[0xd0] = 0x97
    bench[0xc8] = 0x90
    #expect(sent() == 1)
    #expect(bench[0xc0] == 0x8000_0090)
    bench[0xc8] = 0x40
    #expect(sent() == 1, "a cause that is not let through")
    // CTRL_EXT.IAME: reading masks what IAM says.
    bench[0x18] = 1 << 27
    bench[0xe0] = .max
    bench[0xc8] = 0x10
    #expect(sent() == 2)
    _ = bench[0xc0]
    #expect(bench[0xd0] == 0)
    bench[0xc8] = 0x10
    #expect(sent() == 2)
    bench[0xd8] = .max
    bench[0xd0] = 0x10
    #expect(sent() == 3)
  }

  @Test func withoutAListenerNothingIsSent() {
    bench[0xe4] = 8
    bench[0xd0] = 1 << 20
    bench[0xc8] = 1 << 20
    #expect(sent() == 0)
    use(.msix)
    bench.card.settle()
    #expect(sent() == 1, "what waited is sent when somebody listens")
  }

  // MARK: Moderation

  @Test func vectorsKeepTheirDistance() {
    use(.msix)
    bench[0xe4] = 8
    bench[0xdc] = 1 << 20
    bench[0xd0] = 1 << 20
    // 100 intervals of 256 ns.
    bench[0xe8] = 100
    for _ in 0..<10 { bench[0xc8] = 1 << 20 }
    #expect(sent() == 1)
    #expect(bench.model.deadline == 25_600)
    bench.card.advance(nanoseconds: 25_599)
    #expect(sent() == 1)
    bench.card.advance(nanoseconds: 1)
    #expect(sent() == 2)
    #expect(bench.model.deadline == nil, "nothing waits")
    bench.card.advance(nanoseconds: 1_000_000)
    #expect(sent() == 2)
  }

  @Test func legacyInterruptsKeepTheirDistanceToo() {
    use(.msi)
    bench[0xc4] = 1000
    bench[0xd0] = 1
    for _ in 0..<4 {
      bench[0xc8] = 1
      _ = bench[0xc0]
    }
    bench[0xc8] = 1
    #expect(sent() == 1)
    bench.card.advance(nanoseconds: 256_000)
    #expect(sent() == 2)
  }

  @Test func receivedFramesWaitForTheirTimers() {
    use(.msi)
    bench.start()
    bench[0xd0] = 1 << 7
    // 10 and 25 units of 1.024 microseconds.
    bench[0x2820] = 10
    bench[0x282c] = 25
    bench.arrive(plainFrame(1))
    #expect(sent() == 0)
    bench.card.advance(nanoseconds: 10 * 1024)
    #expect(sent() == 1)
    #expect(bench[0xc0] & 1 << 7 != 0)
    // Each frame starts the first timer anew; the second one goes on.
    for _ in 0..<3 {
      bench.arrive(plainFrame(2))
      bench.card.advance(nanoseconds: 8 * 1024)
      #expect(sent() == 1)
    }
    bench.card.advance(nanoseconds: 1024)
    #expect(sent() == 2)
    #expect(bench[0x4104] == 1)
    #expect(bench[0x4108] == 1)
    _ = bench[0xc0]
    bench.arrive(plainFrame(3))
    bench[0x2820] = 10 | 1 << 31
    #expect(sent() == 3, "the flush bit ends the wait")
    #expect(bench[0x2820] == 10)
  }

  @Test func sentFramesWaitWhenTheyAskForIt() {
    use(.msi)
    bench.start()
    bench[0xd0] = 1
    bench[0x3820] = 100
    for delayed: UInt64 in [1 << 31, 0] {
      bench.post(0, bench.lend(plainFrame(1)), 60 | 0x0b << 24 | delayed)
      bench.go()
      #expect(sent() == (delayed == 0 ? 2 : 0))
      bench.card.advance(nanoseconds: 100 * 1024)
      #expect(sent() == (delayed == 0 ? 2 : 1))
      _ = bench[0xc0]
    }
  }

  @Test func interruptsThatAreBroken() {
    use(.msix)
    bench[0xe4] = 8
    bench[0xd0] = 1 << 20
    bench.model.inject(.noInterrupts)
    bench[0xc8] = 1 << 20
    #expect(sent() == 0)
    bench.model.inject(.none)
    bench.model.inject(.interruptStorm)
    #expect(bench.model.step(budget: 1) >= 5)
    #expect((0..<5).allSatisfy { sent($0) > 0 })
  }
}
