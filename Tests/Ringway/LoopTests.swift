import DriverKit
import Glibc
import Packet
import Platform
import Testing

@testable import Ringway

/// Work that counts its rounds and does nothing else.
struct Idle: ~Copyable, PortWork {
  var rounds = 0
  var enough = Int.max
  mutating func round(now: UInt64) -> Int {
    rounds += 1
    return 0
  }
  func isDone(now: UInt64) -> Bool { rounds >= enough }
}

final class Witness: LoopObserver {
  var events: [(String, PortEvents)] = []
  var seconds = 0
  func loopSaw(_ events: PortEvents, on port: Port) { self.events.append((port.name, events)) }
  func loopTick(elapsed: UInt64) { seconds += 1 }
}

@Suite struct LoopTests {
  @Test(arguments: [WaitMode.poll, .interrupt, .adaptive(idleMicroseconds: 100)]) func endsAfterItsTime(mode: WaitMode) throws {
    let pair = try FakePair()
    let loop = try PortLoop(pair.ports, mode: mode)
    var work = Idle()
    let start = ContinuousClock.now
    #expect(try loop.run(&work, limit: 30_000_000) == .timeout)
    let took = ContinuousClock.now - start
    #expect(took >= .milliseconds(29) && took < .seconds(5))
    if mode == .poll {
      #expect(pair.drivers[0].armings == 0)
    } else {
      #expect(pair.drivers[0].armings > 0)
      // Asleep means that there were few rounds.
      if mode == .interrupt { #expect(work.rounds < 50) }
    }
  }

  @Test func endsWhenTheWorkIsDone() throws {
    let pair = try FakePair()
    let loop = try PortLoop(pair.ports, mode: .poll)
    var work = Idle()
    work.enough = 10
    #expect(try loop.run(&work, limit: 5_000_000_000) == .done)
    let rounds = work.rounds
    #expect(rounds == 10)
  }

  @Test(arguments: [WaitMode.poll, .interrupt, .adaptive(idleMicroseconds: 0)]) func stopsWhenToldTo(mode: WaitMode) throws {
    let pair = try FakePair()
    let stop = FakeDriver.EventFDBox()
    let loop = try PortLoop(pair.ports, mode: mode, stop: [stop.event.descriptor])
    let descriptor = stop.event.descriptor
    let other = try JoinedThread(name: "stop") {
      usleep(20_000)
      EventFD.signal(descriptor)
    }
    var work = Idle()
    #expect(try loop.run(&work, limit: 20_000_000_000) == .stopped)
    other.join()
    // The request is still there for whoever made it.
    #expect(EventFD.drain(descriptor) == 1)
  }

  @Test func anInterruptWakes() throws {
    let pair = try FakePair()
    let loop = try PortLoop(pair.ports, mode: .interrupt)
    let descriptor = pair.ports[1].eventDescriptor()
    let other = try JoinedThread(name: "interrupt") {
      for _ in 0..<5 {
        usleep(10_000)
        EventFD.signal(descriptor)
      }
    }
    var work = Idle()
    work.enough = 4
    #expect(try loop.run(&work, limit: 20_000_000_000) == .done)
    other.join()
    #expect(pair.ports[1].interrupts >= 2 && pair.ports[1].interrupts <= 5 && pair.ports[0].interrupts == 0)
    #expect(loop.figures.packets == 0 && loop.figures.busyTicks == 0 && loop.figures.totalTicks > 0)
  }

  @Test func dropsAreCountersThatSayWhy() throws {
    let names = [
      ("rx_missed_errors", "rx_missed_errors"), ("rx_queue_0_drops", "rx_queue_drops"),
      ("tx_queue_15_lost_in_reset", "tx_queue_lost_in_reset"), ("rx_queue_3_errors", "rx_queue_errors"),
    ]
    for (name, reason) in names { #expect(Port.dropReason(name) == reason) }
    // Sums of others, and counters of what did not get lost.
    for name in ["rx_errors", "rx_no_buffer_count", "rx_queue_0_packets", "rx_queue_x_drops", "drops", "", "tx_dropped"] {
      #expect(Port.dropReason(name) == nil)
    }
    let pair = try FakePair()
    #expect(pair.ports[0].drops().isEmpty)
    pair.drivers[0].missed = 7
    #expect(pair.ports[0].drops() == [Statistic("rx_missed_errors", 7)])
  }

  @Test func eventsReachTheObserver() throws {
    let pair = try FakePair()
    let loop = try PortLoop(pair.ports, mode: .interrupt)
    let witness = Witness()
    pair.drivers[1].raise([.link, .reset])
    var work = Idle()
    #expect(try loop.run(&work, limit: 20_000_000, observer: witness) == .timeout)
    #expect(witness.events.count == 1)
    #expect(witness.events[0].0 == pair.ports[1].name)
    #expect(witness.events[0].1 == [.link, .reset])
  }

  @Test(arguments: [WaitMode.poll, .interrupt]) func aLostCardEndsTheLoopAndSparesTheOther(mode: WaitMode) throws {
    let pair = try FakePair()
    let loop = try PortLoop(pair.ports, mode: mode)
    let witness = Witness()
    pair.functions[1].pull()
    var work = Idle()
    do {
      _ = try loop.run(&work, limit: 5_000_000_000, observer: witness)
      Issue.record("the loop went on")
    } catch {
      #expect(error.category == .deviceMissing)
      #expect("\(error)".contains(pair.ports[1].name))
    }
    #expect(witness.events.map(\.1) == [.lost])
    #expect(pair.functions[1].closes == 1)
    #expect(pair.ports[0].isOpen)
    #expect(pair.functions[0].closes == 0)
  }

  @Test func ticksOnceASecond() throws {
    let pair = try FakePair()
    let loop = try PortLoop(pair.ports, mode: .interrupt)
    let witness = Witness()
    var work = Idle()
    #expect(try loop.run(&work, limit: 2_300_000_000, observer: witness) == .timeout)
    #expect(witness.seconds == 2)
    #expect(pair.drivers.map(\.ticks) == [2, 2])
  }

  /// Sending at a rate, receiving, on a real clock and with sleep.
  @Test(arguments: [WaitMode.poll, .interrupt, .standard]) func aRunOverTheLoop(mode: WaitMode) throws {
    let pair = try FakePair()
    var options = GeneratorOptions()
    options.count = 500
    options.rate = 10_000
    var work = Both(
      try PacketGenerator(pair.ports[0], stream: pair.stream(), options: options), PacketReceiver(pair.ports[1]))
    let loop = try PortLoop(pair.ports, mode: mode)
    let start = ContinuousClock.now
    #expect(try loop.run(&work, limit: 20_000_000_000) == .done)
    #expect(ContinuousClock.now - start >= .milliseconds(49))
    let packets = work.receiver.counts.packets
    #expect(packets == 500)
    let figures = loop.figures
    #expect(figures.packets >= 500 && figures.busyTicks > 0 && figures.totalTicks > figures.busyTicks)
  }
}

struct Both: ~Copyable, PortWork {
  var generator: PacketGenerator
  var receiver: PacketReceiver
  init(_ generator: consuming PacketGenerator, _ receiver: consuming PacketReceiver) {
    self.generator = generator
    self.receiver = receiver
  }
  mutating func round(now: UInt64) -> Int { generator.round(now: now) + receiver.round(now: now) }
  func isDone(now: UInt64) -> Bool { receiver.counts.packets == 500 }
  func rest(now: UInt64) -> UInt64? { generator.rest(now: now) }
}
