import DriverKit
import Packet
import Testing

@testable import Ringway

@Suite struct ForwarderTests {
  /// Two ports, each on a wire of its own, and what leaves on each.
  final class Joined {
    let pair: FakePair
    var out: [[[UInt8]]] = [[], []]
    init(_ options: PortOptions = PortOptions()) throws {
      pair = try FakePair(options, separateWires: true)
      for (index, driver) in pair.drivers.enumerated() {
        driver.wire.fault = { [unowned self] _, bytes in
          out[index].append(bytes)
          return []
        }
      }
    }
  }

  func frame(_ number: Int, size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 3 &+ number) } }

  @Test func framesPassUnchangedInOrderBothWays() throws {
    let joined = try Joined()
    var forwarder = try Forwarder(joined.pair.ports[0], joined.pair.ports[1])
    let frames = (0..<300).map { frame($0, size: 60 + $0 * 4) }
    let others = (0..<200).map { frame($0 + 1000, size: 60 + $0) }
    for frame in frames { joined.pair.drivers[0].arrive(frame, queue: 0) }
    for frame in others { joined.pair.drivers[1].arrive(frame, queue: 0) }
    var moved = 0
    for now in UInt64(1)...100 { moved += forwarder.round(now: now) }
    #expect(moved == 500)
    #expect(joined.out[1] == frames)
    #expect(joined.out[0] == others)
    forwarder.publish()
    let monitor = forwarder.monitor
    #expect(monitor.forward.receivedPackets == 300 && monitor.forward.sentPackets == 300)
    #expect(monitor.forward.receivedBytes == UInt64(frames.reduce(0) { $0 + $1.count }))
    #expect(monitor.forward.sentBytes == monitor.forward.receivedBytes)
    #expect(monitor.backward.sentPackets == 200)
    #expect(monitor.forward.dropped + monitor.backward.dropped == 0)
    #expect(Port.drain(joined.pair.ports, within: 1000))
  }

  /// The same buffers: nothing is taken from the second port's pool.
  @Test func nothingIsCopied() throws {
    let joined = try Joined()
    let (a, b) = (joined.pair.ports[0], joined.pair.ports[1])
    joined.pair.drivers[1].isStalled = true
    var forwarder = try Forwarder(a, b)
    let before = (a.pools[0].available, b.pools[0].available)
    for number in 0..<10 { joined.pair.drivers[0].arrive(frame(number, size: 100), queue: 0) }
    for now in UInt64(1)...10 { _ = forwarder.round(now: now) }
    #expect(b.pools[0].available == before.1)
    #expect(a.pools[0].available == before.0 - 10)
  }

  @Test func jumboFramesPass() throws {
    var options = PortOptions()
    options.mtu = 9000
    let joined = try Joined(options)
    var forwarder = try Forwarder(joined.pair.ports[0], joined.pair.ports[1])
    let frames = (0..<20).map { frame($0, size: 9014 - $0) }
    for frame in frames { joined.pair.drivers[0].arrive(frame, queue: 0) }
    for now in UInt64(1)...20 { _ = forwarder.round(now: now) }
    #expect(joined.out[1] == frames)
  }

  @Test func everyQueueIsServed() throws {
    var options = PortOptions()
    options.queues = 4
    let joined = try Joined(options)
    var forwarder = try Forwarder(joined.pair.ports[0], joined.pair.ports[1])
    for queue in 0..<4 { for number in 0..<50 { joined.pair.drivers[0].arrive(frame(number, size: 60 + queue), queue: queue) } }
    for now in UInt64(1)...50 { _ = forwarder.round(now: now) }
    for queue in 0..<4 { #expect(joined.out[1].filter { $0.count == 60 + queue } == (0..<50).map { frame($0, size: 60 + queue) }) }
  }

  /// A full ring is waited for; one that stands still is given up, and every packet is accounted for.
  @Test func aRingThatStandsStillCostsPacketsAndNothingElse() throws {
    let joined = try Joined()
    let (a, b) = (joined.pair.ports[0], joined.pair.ports[1])
    joined.pair.drivers[1].transmitRoom = 20
    joined.pair.drivers[1].isStalled = true
    var forwarder = try Forwarder(a, b, batch: 32, patience: 1000)
    for number in 0..<100 { joined.pair.drivers[0].arrive(frame(number, size: 60), queue: 0) }
    // Within its patience nothing is lost, from an even nanosecond on as from an odd one.
    for now in UInt64(2)...900 { _ = forwarder.round(now: now) }
    forwarder.publish()
    let monitor = forwarder.monitor
    #expect(monitor.forward.sentPackets == 20)
    #expect(monitor.forward.dropped == 0)
    #expect(monitor.forward.receivedPackets == 32)
    let pause = forwarder.rest(now: 900)
    #expect(pause != nil)
    // After it, everything that comes is.
    for now in UInt64(2000)...2020 { _ = forwarder.round(now: now) }
    forwarder.publish()
    #expect(monitor.forward.receivedPackets == 100)
    #expect(monitor.forward.dropped == 80)
    // It moves again: the next packets pass.
    joined.pair.drivers[1].isStalled = false
    for number in 0..<20 { joined.pair.drivers[0].arrive(frame(number, size: 60), queue: 0) }
    for now in UInt64(3000)...3020 { _ = forwarder.round(now: now) }
    forwarder.publish()
    #expect(monitor.forward.sentPackets == 40)
    #expect(monitor.forward.dropped == 80)
    #expect(monitor.forward.sentBytes == 40 * 60)
    #expect(Port.drain([a, b], within: 1000))
  }

  @Test func memoryMustBeShared() throws {
    let one = try FakePair()
    let other = try FakePair()
    do {
      _ = try Forwarder(one.ports[0], other.ports[0])
      Issue.record("packets would be sent from memory that the card does not reach")
    } catch { #expect(error.category == .usage) }
  }
}
