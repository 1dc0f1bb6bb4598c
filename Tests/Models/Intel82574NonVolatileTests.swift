// The 82574L's non-volatile memory, PHY and semaphores.

import ModelKit
import Models
import Testing

@Suite struct Intel82574NonVolatileTests {
  let bench: Card82574
  init() throws { bench = try Card82574() }

  private func word(_ index: UInt32) -> UInt32 {
    bench[0x14] = index << 2 | 1
    return bench[0x14] >> 16
  }

  @Test func theWordsAddUp() {
    var sum: UInt16 = 0
    for index: UInt32 in 0..<64 {
      sum &+= UInt16(word(index))
      #expect(bench[0x14] & 2 != 0)
    }
    #expect(sum == 0xbaba)
    #expect(word(0) == 0x5452 && word(1) == 0x1200 && word(2) == 0x5634)
    // Management is off (initialisation control 2), and there is no second address.
    #expect(word(0x0f) & 0x6000 == 0)
    #expect(word(0x37) == 0xffff)
    #expect(word(64) == 0xffff)
    #expect(bench.model.bus.complaintCount == 1)
  }

  @Test func aWordCanBeWritten() {
    #expect(bench[0x102c] & 2 != 0, "the write register starts idle")
    bench[0x102c] = 0x1234 << 16 | 5 << 2 | 1
    #expect(word(5) == 0x1234)
    bench[0x102c] = 0x1234 << 16 | 99 << 2 | 1
    #expect(bench.model.bus.complaintCount == 1)
  }

  // MARK: The serial bus (EEC)

  /// Moves one byte out and one in, most significant bit first.
  private func exchange(_ byte: UInt8) -> UInt8 {
    var result: UInt8 = 0
    let idle: UInt32 = 1 << 6 | 2
    for bit in (0..<8).reversed() {
      let input: UInt32 = byte >> UInt8(bit) & 1 != 0 ? 4 : 0
      bench[0x10] = idle | input
      result = result << 1 | (bench[0x10] & 8 != 0 ? 1 : 0)
      bench[0x10] = idle | input | 1
    }
    bench[0x10] = idle
    return result
  }
  private func select() { bench[0x10] = 1 << 6 | 2 }
  private func deselect() { bench[0x10] = 1 << 6 }

  @Test func theSerialBusReadsAndWrites() {
    #expect(bench[0x10] & 1 << 8 != 0, "a memory is there")
    #expect(bench[0x10] & 1 << 7 == 0)
    bench[0x10] = 1 << 6
    #expect(bench[0x10] & 1 << 7 != 0, "asked for and granted")
    select()
    _ = exchange(3)
    _ = exchange(0)
    #expect([exchange(0), exchange(0), exchange(0), exchange(0)] == [0x52, 0x54, 0x00, 0x12])
    deselect()
    // A write without leave changes nothing.
    for enables in [false, true] {
      if enables {
        select()
        _ = exchange(6)
        deselect()
        select()
        _ = exchange(5)
        #expect(exchange(0) == 2)
        deselect()
      }
      select()
      _ = exchange(2)
      _ = exchange(0x40)
      _ = exchange(0xcd)
      _ = exchange(0xab)
      deselect()
      #expect(word(0x20) == (enables ? 0xabcd : 0xffff))
    }
    bench[0x10] = 0
    #expect(bench[0x10] & 1 << 7 == 0)
  }

  // MARK: Semaphores

  @Test func theFirstReaderHasTheSemaphore() {
    #expect(bench[0x5b50] & 1 == 0)
    #expect(bench[0x5b50] & 1 == 1)
    bench[0x5b50] = 2
    #expect(bench[0x5b50] & 3 == 2)
  }

  @Test func thePHYHasOneOwner() {
    bench[0xf00] = bench[0xf00] | 1 << 5
    #expect(bench[0xf00] & 1 << 5 != 0)
    // Nobody can speak for the hardware or the firmware.
    bench[0xf00] = 7 << 5
    #expect(bench[0xf00] & 7 << 5 == 1 << 5)
    bench[0] = 1 << 26
    #expect(bench[0xf00] & 7 << 5 == 0, "a reset takes it back")
  }
}

@Suite struct Intel82574PHYTests {
  private func read(_ bench: Card82574, _ register: UInt32) -> UInt32 {
    bench[0x20] = 2 << 26 | 1 << 21 | register << 16
    return bench[0x20] & 0xffff
  }
  private func write(_ bench: Card82574, _ register: UInt32, _ value: UInt32) {
    bench[0x20] = 1 << 26 | 1 << 21 | register << 16 | value
    #expect(bench[0x20] & 3 << 28 == 1 << 28)
  }

  @Test func onlyThePHYAtAddressOneAnswers() throws {
    let bench = try Card82574()
    #expect(read(bench, 2) == 0x0141 && read(bench, 3) == 0x0cb1)
    #expect(bench[0x20] & 0x5000_0000 == 0x1000_0000)
    bench[0x20] = 2 << 26 | 2 << 21 | 2 << 16
    #expect(bench[0x20] & 1 << 30 != 0)
    bench[0x20] = 3 << 26 | 1 << 21
    #expect(bench[0x20] & 1 << 30 != 0)
    #expect(bench.model.bus.complaintCount == 1)
    // The interrupt that MDIC can ask for.
    bench[0x20] = 2 << 26 | 1 << 21 | 1 << 29
    #expect(bench[0xc8] & 1 << 9 != 0)
  }

  @Test func pagesAreApartBehindTheFirstSixteenRegisters() throws {
    let bench = try Card82574()
    write(bench, 16, 0x1111)
    write(bench, 22, 769)
    #expect(read(bench, 16) == 0)
    write(bench, 16, 0x2222)
    #expect(read(bench, 2) == 0x0141)
    write(bench, 22, 0)
    #expect(read(bench, 16) == 0x1111)
    write(bench, 22, 769)
    #expect(read(bench, 16) == 0x2222)
  }

  @Test func aLinkTakesItsTimeAndSaysSo() throws {
    let bench = try Card82574(negotiationTime: 2_000_000)
    bench[0] = bench[0] | 1 << 6
    #expect(bench[8] & 2 == 0)
    _ = bench[0xc0]
    bench.card.advance(nanoseconds: 1_999_999)
    #expect(bench[8] & 2 == 0)
    #expect(read(bench, 1) & 0x24 == 0)
    bench.card.advance(nanoseconds: 1)
    #expect(bench[8] & 0xc3 == 0x83, "link, full duplex, 1000")
    #expect(bench[0xc0] & 4 != 0)
    // The status register remembers that the link was lost until it is read.
    _ = read(bench, 1)
    #expect(read(bench, 1) & 0x24 == 0x24)
    #expect(read(bench, 17) & 0xfc00 == 0xac00)
    bench.model.setLink(up: false)
    #expect(bench[8] & 2 == 0)
    #expect(bench[0xc0] & 4 != 0)
    bench.model.setLink(up: true)
    bench.card.advance(nanoseconds: 2_000_000)
    #expect(bench[8] & 2 != 0)
    #expect(read(bench, 1) & 4 == 0)
    #expect(read(bench, 1) & 4 != 0)
  }

  @Test(arguments: [(0x0300, 0x01e1, 2, true), (0, 0x01e1, 1, true), (0, 0x00a1, 1, false), (0, 0x0061, 0, true)])
  func theBestCommonModeIsTaken(gigabit: UInt32, advertised: UInt32, speed: UInt32, full: Bool) throws {
    let bench = try Card82574()
    bench[0] = bench[0] | 1 << 6
    write(bench, 4, advertised)
    write(bench, 9, gigabit)
    write(bench, 0, 0x1340)
    #expect(read(bench, 0) == 0x1140, "restart clears itself")
    #expect(bench[8] >> 6 & 3 == speed)
    #expect(bench[8] & 1 == (full ? 1 : 0))
    #expect(bench[8] & 2 != 0)
  }

  @Test func nothingInCommonIsNoLink() throws {
    let bench = try Card82574()
    bench[0] = bench[0] | 1 << 6
    write(bench, 4, 1)
    write(bench, 9, 0)
    write(bench, 0, 0x1340)
    #expect(bench[8] & 2 == 0)
    #expect(read(bench, 1) & 0x20 != 0)
    write(bench, 0, 0x1940)
    #expect(read(bench, 1) & 0x20 == 0, "powered down")
  }
}
