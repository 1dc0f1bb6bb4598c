// The fault injector: every kind by number, and the same harm for the same seed.

import ModelKit
import Testing

private func faulty(_ faults: String..., frames: Int = 10, seed: UInt64 = 1) throws -> (FaultyWire, TestWire) {
  let inner = TestWire()
  for number in 0..<frames { inner.send(numbered(UInt64(number + 1))) }
  return (FaultyWire(inner, faults: try faults.map { try WireFault(parsing: $0) }, seed: seed), inner)
}
private func sentNumbers(_ wire: TestWire) -> [UInt64] { numbers(wire.takeSent().map(\.bytes)) }

@Suite struct FaultyWireTests {
  @Test func dropsAndDuplicates() throws {
    let (wire, _) = try faulty("drop=2,4-5", "duplicate=every:3:2")
    #expect(numbers(drain(wire)) == [1, 3, 3, 3, 6, 6, 6, 7, 8, 9, 9, 9, 10])
    let counts = wire.arrivingCounts
    #expect(counts.seen == 10 && counts.dropped == 3 && counts.duplicated == 3 && counts.passed == 4 && counts.delivered == 13)
    #expect(wire.leavingCounts == FaultyWire.Counts())
  }

  @Test func reorders() throws {
    let (wire, _) = try faulty("reorder=1:3", "reorder=6")
    #expect(numbers(drain(wire)) == [2, 3, 4, 1, 5, 7, 6, 8, 9, 10])
    #expect(wire.arrivingCounts.reordered == 2 && wire.arrivingCounts.delivered == 10)
    // The last one, which nothing passes, is held for a millisecond.
    let (last, _) = try faulty("reorder=10")
    #expect(numbers(drain(last, at: 500)) == Array(1...9) && last.nextArrival == 1_000_500 && last.heldFrames == 1)
    #expect(drain(last, at: 1_000_499).isEmpty && numbers(drain(last, at: 1_000_500)) == [10])
  }

  @Test func delaysAndStalls() throws {
    let (wire, _) = try faulty("delay=3:2ms")
    #expect(numbers(drain(wire, at: 100)) == [1, 2, 4, 5, 6, 7, 8, 9, 10])
    #expect(wire.nextArrival == 2_000_100 && drain(wire, at: 2_000_099).isEmpty)
    #expect(numbers(drain(wire, at: 2_000_100)) == [3] && wire.nextArrival == nil)
    let (still, _) = try faulty("stall=4:5us")
    #expect(numbers(drain(still, at: 0)) == [1, 2, 3] && still.nextArrival == 5000)
    #expect(drain(still, at: 4999).isEmpty && numbers(drain(still, at: 5000)) == Array(4...10))
    #expect(still.arrivingCounts.stalls == 1 && still.arrivingCounts.delayed == 1 && still.arrivingCounts.passed == 9)
  }

  @Test func corrupts() throws {
    let (wire, _) = try faulty("corrupt=2", "corrupt=4:silent")
    var got: [(bytes: [UInt8], bad: Bool)] = []
    while unsafe wire.receive(at: 0, { frame, marks in unsafe got.append(([UInt8](frame), marks.contains(.badCheckSequence))) }) {}
    #expect(got.map(\.bad) == [false, true] + [Bool](repeating: false, count: 8))
    for (index, frame) in got.enumerated() {
      let right = numbered(UInt64(index + 1))
      let bits = zip(right, frame.bytes).reduce(0) { $0 + ($1.0 ^ $1.1).nonzeroBitCount }
      #expect(bits == (index == 1 || index == 3 ? 1 : 0), "frame \(index + 1)")
      #expect(frame.bytes[0..<14] == right[0..<14], "addresses stay right")
    }
    #expect(wire.arrivingCounts.corrupted == 1 && wire.arrivingCounts.corruptedSilently == 1)
  }

  @Test func leaving() throws {
    let (wire, inner) = try faulty(
      "tx.drop=1", "tx.duplicate=2", "tx.corrupt=3", "tx.corrupt=4:silent", "tx.reorder=5:2", "tx.delay=9:1us", frames: 0)
    for number in 1...10 { send(wire, numbered(UInt64(number)), queue: number % 3, at: 1000) }
    let sent = inner.takeSent()
    let plain = sent.map { frame in unsafe frame.bytes.withUnsafeBytes { unsafe NumberedFrame.read($0).map { $0.isWhole ? $0.0.sequence : 0 } ?? 0 } }
    #expect(plain == [2, 2, 0, 6, 7, 5, 8, 10])
    #expect(sent[5].queue == 2, "a frame keeps its queue")
    #expect(wire.nextArrival == 2000 && drain(wire, at: 1999).isEmpty && inner.sent.isEmpty)
    #expect(drain(wire, at: 2000).isEmpty && sentNumbers(inner) == [9])
    let counts = wire.leavingCounts
    #expect(counts.seen == 10 && counts.delivered == 9 && counts.dropped == 1 && counts.corrupted == 1 && counts.passed == 4)
    #expect(counts.duplicated + counts.reordered + counts.delayed + counts.corruptedSilently == 4)
  }

  @Test func stallsWhatLeaves() throws {
    let (wire, inner) = try faulty("tx.stall=2:1ms", frames: 0)
    for number in 1...5 { send(wire, numbered(UInt64(number)), at: 10) }
    #expect(sentNumbers(inner) == [1])
    send(wire, numbered(6), at: 1_000_010)
    #expect(sentNumbers(inner) == [2, 3, 4, 5, 6])
  }

  @Test func sameSeedSameHarm() throws {
    func run(_ seed: UInt64) throws -> ([[UInt8]], FaultyWire.Counts) {
      let (wire, _) = try faulty(
        "drop=p:0.1", "duplicate=p:0.1", "corrupt=p:0.1:silent", "reorder=p:0.1:3", "delay=p:0.1:3us", frames: 500, seed: seed)
      var frames: [[UInt8]] = []
      for now in 0..<600 { frames += drain(wire, at: UInt64(now) * 100, limit: 1) }
      frames += drain(wire, at: 10_000_000)
      return (frames, wire.arrivingCounts)
    }
    let (first, second, other) = (try run(5), try run(5), try run(6))
    #expect(first.0 == second.0 && first.1 == second.1 && first.0 != other.0)
    let counts = first.1
    #expect(counts.seen == 500)
    #expect(counts.passed + counts.dropped + counts.duplicated + counts.corruptedSilently + counts.reordered + counts.delayed == 500)
    #expect(counts.delivered == 500 - counts.dropped + counts.duplicated && Int(counts.delivered) == first.0.count)
    for harmed in [counts.dropped, counts.duplicated, counts.corruptedSilently, counts.reordered, counts.delayed] {
      #expect((15...85).contains(harmed), "a tenth of 500, and never outside of this for these seeds")
    }
  }

  @Test func everythingDropped() throws {
    let (wire, inner) = try faulty("drop=p:1", frames: 1000)
    var looks = 0
    while inner.waiting > 0, looks < 100 {
      #expect(drain(wire).isEmpty)
      looks += 1
    }
    #expect(looks < 10 && wire.arrivingCounts.dropped == 1000)
  }
}

@Suite struct WireTextTests {
  @Test func faults() throws {
    #expect(try WireFault(parsing: "drop=5,7") == WireFault(.drop, .numbers([5...5, 7...7])))
    #expect(try WireFault(parsing: "rx.duplicate=every:10") == WireFault(.duplicate(copies: 1), .every(10)))
    #expect(try WireFault(parsing: "tx.corrupt=p:0.01:silent") == WireFault(.corrupt(marked: false), .probability(0.01), direction: .leaving))
    #expect(try WireFault(parsing: "delay=3:2ms") == WireFault(.delay(2_000_000), .numbers([3...3])))
    #expect(try WireFault(parsing: "stall=1k-2k:1s") == WireFault(.stall(1_000_000_000), .numbers([1000...2000])))
    #expect(try WireFault(parsing: "hang=9") == WireFault(.hang, .numbers([9...9]), direction: .leaving))
    #expect(try WireFault(parsing: "reorder=4:16") == WireFault(.reorder(by: 16), .numbers([4...4])))
    for bad in [
      "", "drop", "drop=", "drop=0", "drop=7-5", "drop=x", "drop=1,,2", "drop=5:2", "drop=every:0", "drop=every", "drop=p:1.5",
      "drop=p:nan", "delay=3", "delay=3:2", "delay=3:ms", "delay=3:99999999999s", "corrupt=3:loud", "duplicate=3:0",
      "duplicate=3:5000", "lose=3", "xx.drop=3", "drop=1:2:3", "drop=-5", "reorder=2:1:1", "drop=18446744073709551616",
    ] {
      let error = #expect(throws: WireError.self) { try WireFault(parsing: bad) }
      #expect(error?.description.hasPrefix("'\(bad)'") == true)
    }
  }

  @Test func wires() throws {
    #expect(try WireSpec(parsing: "null") == WireSpec(.null))
    #expect(try WireSpec(parsing: "null,record=a.pcap") == WireSpec(.null, recording: "a.pcap"))
    #expect(try WireSpec(parsing: "tap:rw0,netns=lab") == WireSpec(.tap(name: "rw0", namespace: "lab")))
    #expect(try WireSpec(parsing: "tap:rw0,netns=/proc/1/ns/net,record=x") == WireSpec(.tap(name: "rw0", namespace: "/proc/1/ns/net"), recording: "x"))
    #expect(try WireSpec(parsing: "pcap:a.pcap,out=b.pcap,speed=real") == WireSpec(.pcap(input: "a.pcap", output: "b.pcap", speed: .real)))
    #expect(try WireSpec(parsing: "pcap:,out=b") == WireSpec(.pcap(input: nil, output: "b", speed: .fast)))
    #expect(try WireSpec(parsing: "pcap:out=b") == WireSpec(.pcap(input: nil, output: "b", speed: .fast)))
    var settings = GeneratorSettings()
    settings.rate = 1_000_000
    settings.sizes = 64...64
    settings.count = 1000
    settings.seed = 1
    #expect(try WireSpec(parsing: "gen:rate=1M,size=64,count=1000,seed=1") == WireSpec(.generator(settings)))
    settings.sizes = 60...1514
    settings.flows = 8
    settings.destination = .init(2, 0, 0, 0, 0, 1)
    #expect(try WireSpec(parsing: "gen:rate=1M,size=60-1514,count=1k,flows=8,to=02:00:00:00:00:01") == WireSpec(.generator(settings)))
    #expect(try WireSpec(parsing: "gen") == WireSpec(.generator(GeneratorSettings())))
    #expect(try WireSpec(parsing: "pair:x") == WireSpec(.pair("x")))
    #expect(try WireSpec(parsing: "dgram:/a,to=/b") == WireSpec(.datagram(local: "/a", remote: "/b")))
    for bad in [
      "", "nil", "tap", "tap:", "tap:a,b", "tap:a,netns", "tap:a,speed=fast", "tap:a,netns=x,netns=y", "pcap", "pcap:", "pcap:a,speed=slow",
      "gen:size=59", "gen:size=1514-60", "gen:size=60-61-62", "gen:rate=fast", "gen:flows=0", "gen:to=here", "gen:64", "pair", "dgram:/a",
      "null:x", "gen:rate=2G", "gen:count=18446744073709551615",
    ] {
      let error = #expect(throws: WireError.self, "\(bad)") { try WireSpec(parsing: bad) }
      #expect(error?.description.contains("for example") == true)
    }
  }

  @Test func rooms() throws {
    let room = WireRoom()
    let a = try room.open(try WireSpec(parsing: "pair:x"))
    let b = try room.open(try WireSpec(parsing: "pair:x"), faults: [try WireFault(parsing: "tx.drop=1")])
    #expect(throws: WireError.self) { try room.open(try WireSpec(parsing: "pair:x")) }
    send(b, numbered(1))
    send(b, numbered(2))
    #expect(numbers(drain(a)) == [2] && b is FaultyWire)
    #expect(try room.open(try WireSpec(parsing: "gen:count=3")) is GeneratorWire)
    #expect(throws: WireError.self) { try room.open(try WireSpec(parsing: "pcap:/nowhere")) }
  }
}
