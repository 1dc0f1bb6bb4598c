import ArgumentParser
import Testing

@testable import ringway

@Suite struct AmountTests {
  @Test(arguments: [("1", 1), ("5000", 5000), ("10k", 10_000), ("1.5M", 1_500_000), ("14.88Mpps", 14_880_000), ("2G", 2_000_000_000)])
  func rates(text: String, value: UInt64) throws { #expect(try Amount.rate(text) == value) }

  @Test(arguments: ["", "0", "k", "-1", "1x", "1e3", "11G", "nan", "inf", "1..2", "pps", "１"])
  func wrongRates(text: String) { #expect(throws: ValidationError.self) { try Amount.rate(text) } }

  @Test(arguments: [("0", 0), ("18446744073709551615", UInt64.max), ("3k", 3000), ("1M", 1_000_000)])
  func counts(text: String, value: UInt64) throws { #expect(try Amount.count(text) == value) }

  @Test(arguments: ["", "-1", "1.5.2", "99999999999999999999", "M"])
  func wrongCounts(text: String) { #expect(throws: ValidationError.self) { try Amount.count(text) } }

  @Test(arguments: [("4096", 4096), ("64K", 65_536), ("2M", 2 << 20), ("1G", 1 << 30)])
  func sizes(text: String, value: Int) throws { #expect(try Amount.bytes(text) == value) }

  @Test(arguments: [("10", 10.0), ("2.5", 2.5), ("500ms", 0.5), ("90s", 90), ("5m", 300), ("1h", 3600)])
  func times(text: String, value: Double) throws { #expect(try Amount.seconds(text) == value) }

  @Test(arguments: ["", "s", "-1", "5d", "1e9", "ms"])
  func wrongTimes(text: String) { #expect(throws: ValidationError.self) { try Amount.seconds(text) } }
}

@Suite struct FigureTests {
  @Test(arguments: [
    (0.0, "0 "), (7, "7 "), (999, "999 "), (1000, "1 k"), (1234, "1.23 k"), (1049, "1.05 k"), (12_345, "12.3 k"),
    (99_999, "100 k"), (999_499, "999 k"), (999_999, "1.00 M"), (14_880_952, "14.9 M"), (1e10, "10 G"), (5e15, "5000 T"),
  ])
  func scaled(value: Double, text: String) { #expect(Figure.scaled(value) == text) }

  @Test func grouped() {
    #expect(Figure.grouped(0) == "0")
    #expect(Figure.grouped(999) == "999")
    #expect(Figure.grouped(1000) == "1,000")
    #expect(Figure.grouped(.max) == "18,446,744,073,709,551,615")
  }

  @Test func aMeterGivesTheRateSinceTheLastLook() {
    var meter = RateMeter()
    #expect(meter.next(Totals(packets: 100, bytes: 6000), at: 1) == Rate(Totals(packets: 100, bytes: 6000), seconds: 1))
    let second = meter.next(Totals(packets: 400, bytes: 24_000), at: 3)
    #expect(second.packetsPerSecond == 150)
    #expect(second.bitsPerSecond == 72_000)
    // No time has passed: no division by zero.
    #expect(meter.next(Totals(packets: 400, bytes: 24_000), at: 3).packetsPerSecond == 0)
  }
}

@Suite struct ArgumentTests {
  /// What the scenarios and the manual pages rely on.
  @Test(arguments: [
    "pktgen tx 03:00.0 --count 10k --size 1514 --rate 1M --json --to 02:00:00:00:00:09 --run 7 --link-wait 500ms",
    "pktgen tx --device 0000:03:00.0 --seconds 5", "pktgen rx --device 03:00.0 --count 5 --seconds 40 --json --window 4096",
    "pktgen pair 03:00.0 04:00.0 --count 1 --mode poll", "bridge 03:00.0 04:00.0 --stats-interval 5s --json --mode interrupt",
    "bridge a b --memory-backing hugetlbfs --hugepage-size 1G --buffers 4096 --ring-size 1024 --mtu 9000 --queues 2 --idle 10",
    "bridge a b --queues 16 --allow-unsupported-sfp",
    "capture 03:00.0 -w - -c 5 -s 64 udp port 53", "capture 03:00.0 -w x --snaplen 64 --count 3 tcp and not port 22",
    "capture 03:00.0 --no-promiscuous --no-huge", "stats 03:00.0 --json --watch",
  ])
  func accepted(line: String) throws {
    _ = try RingwayCommand.parseAsRoot(line.split(separator: " ").map(String.init))
  }

  @Test(arguments: [
    "pktgen tx", "pktgen tx 03:00.0 --device 03:00.0", "pktgen tx 03:00.0 --rate 0", "pktgen tx 03:00.0 --to here",
    "pktgen tx 03:00.0 --run 65536", "pktgen rx 03:00.0 --window 3", "bridge 03:00.0", "bridge a b --ring-size 100",
    "bridge a b --ring-size 8192", "bridge a b --mtu 67", "bridge a b --queues 0", "bridge a b --mode fast",
    "bridge a b --buffers 5", "bridge a b --memory-backing disk", "capture", "capture 03:00.0 --snap 0",
    "capture 03:00.0 --snap 262145", "stats",
  ])
  func refused(line: String) {
    #expect(exitCode(of: line) == ExitCode.validationFailure.rawValue)
  }

  @Test func pktgenAloneShowsItsHelp() { #expect(exitCode(of: "pktgen") == nil) }

  /// nil when the line is accepted.
  private func exitCode(of line: String) -> Int32? {
    do { _ = try RingwayCommand.parseAsRoot(line.split(separator: " ").map(String.init)) } catch {
      return RingwayCommand.exitCode(for: error).rawValue
    }
    return nil
  }
}
