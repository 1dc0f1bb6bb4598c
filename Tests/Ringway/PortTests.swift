import DMAMemory
import DriverKit
import NetmapCore
import PCI
import Packet
import Platform
import SystemPackage
import Testing
import VFIO

@testable import Ringway

@Suite struct PortTests {
  @Test func moveABatch() throws {
    let pair = try FakePair()
    var batch = PacketBatch(capacity: 4)
    for byte in UInt8(1)...3 {
      guard let packet = pair.ports[0].allocate() else { throw Nothing() }
      _ = packet.fill(with: [UInt8](repeating: byte, count: 60))
      _ = batch.append(packet)
    }
    let sent = pair.ports[0].send(&batch)
    let received = pair.ports[1].receive(into: &batch, max: 2)
    #expect(sent == 3)
    #expect(received == 2)
    var bytes: [UInt8?] = []
    batch.forEach { bytes.append($0.byte(at: 59)) }
    #expect(bytes == [1, 2])
  }

  @Test func closingGoesInOrderAndOnce() throws {
    let pair = try FakePair()
    let port = pair.ports[0]
    #expect(port.isOpen && port.health == .running)
    port.close()
    port.close()
    #expect(!port.isOpen)
    #expect(port.health == .stopped)
    #expect(port.failure == nil)
    #expect(pair.drivers[0].stops == 1)
    #expect(pair.functions[0].closes == 1)
    // A closed port does nothing, and says so where it can.
    var batch = PacketBatch(capacity: 4)
    let moved = (port.receive(into: &batch), port.send(&batch))
    #expect(moved == (0, 0))
    #expect(port.eventDescriptor() == -1)
    #expect(port.controlDescriptor == -1)
    #expect(port.service() == [])
    #expect(throws: RingwayError.self) { _ = try port.wait(milliseconds: 0) }
    #expect(throws: RingwayError.self) { try port.setReceiveFilter(ReceiveFilter()) }
    #expect(port.statistics() == [Statistic("rx_missed_errors", 0)])
    #expect(pair.drivers[1].stops == 0)
  }

  @Test func queuesThatAreNotThereAreHarmless() throws {
    let pair = try FakePair()
    var batch = PacketBatch(capacity: 4)
    for queue in [-1, 1, .max] {
      let moved = (pair.ports[0].receive(queue: queue, into: &batch), pair.ports[0].send(queue: queue, &batch))
      #expect(moved == (0, 0))
      let none = pair.ports[0].allocate(queue: queue) == nil
      #expect(none)
    }
  }

  @Test func droppingAPortClosesIt() throws {
    let driver = FakeDriver(FakeWire())
    let function = FakeFunction("dropped")
    do { _ = try Port(driver, function: function, claim: CardClaim("dropped"), memory: FakePair.memory(), clock: MonotonicClock()) }
    #expect(driver.stops == 1)
    #expect(function.closes == 1)
    // The claim went with it.
    _ = try CardClaim("dropped")
  }

  @Test func aCardIsOpenOnce() throws {
    let claim = try CardClaim("0000:01:00.0")
    do {
      _ = try CardClaim("0000:01:00.0")
      Issue.record("the card was given twice")
    } catch {
      #expect(error.category == .usage)
      #expect("\(error)".contains("0000:01:00.0 is open"))
    }
    withExtendedLifetime(claim) {}
  }

  @Test func aDriverThatDoesNotStartLeavesNothing() throws {
    let driver = FakeDriver(FakeWire())
    driver.startFailure = .timeout(card: "x", waitingFor: "the reset")
    let function = FakeFunction("x")
    let memory = try FakePair.memory()
    do {
      _ = try Port(driver, function: function, claim: CardClaim("x"), memory: memory, clock: MonotonicClock())
      Issue.record("it started")
    } catch { #expect("\(error)".contains("the reset")) }
    #expect(driver.stops == 1)
    #expect(function.closes == 1)
    // Its buffers are back: a pool of all of them can be had.
    #expect(try memory.takePool(count: memory.allocator.bufferCount - 2).available == memory.allocator.bufferCount - 2)
  }

  /// A packet of a closed port stays valid, and its pool is not given out while it is away.
  @Test func packetsOutliveTheirPort() throws {
    let memory = try FakePair.memory()
    func open(_ name: String) throws -> Port {
      try Port(FakeDriver(FakeWire()), function: nil, claim: CardClaim(name), memory: memory, clock: MonotonicClock())
    }
    var first: Port? = try open("first")
    let pool = ObjectIdentifier(try #require(first).pools[0])
    var packet: Packet? = first?.allocate()
    first = nil
    let second = try open("second")
    #expect(ObjectIdentifier(second.pools[0]) != pool)
    let kept = packet?.fill(with: [1, 2, 3])
    #expect(kept == true)
    packet = nil
    let third = try open("third")
    #expect(ObjectIdentifier(third.pools[0]) == pool)
  }

  @Test func tooFewBuffersAreSaid() throws {
    var options = MemoryOptions()
    options.kind = .normal
    options.buffers = 600
    let memory = try PortMemory(options)
    let function = FakeFunction("small")
    do {
      _ = try Port(FakeDriver(FakeWire()), function: function, claim: CardClaim("small"), memory: memory, clock: MonotonicClock())
      Issue.record("it started")
    } catch {
      #expect(error.category == .configuration)
      #expect("\(error)".contains("buffer pool"))
    }
    #expect(function.closes == 1)
  }

  @Test func unknownCardsAreRefused() throws {
    let function = FakeFunction("strange")
    function.identity = PCIIdentity(vendor: 0xdead, device: 0xbeef)
    let memory = try FakePair.memory()
    do {
      _ = try Port(attaching: function, memory: memory)
      Issue.record("it was attached")
    } catch {
      #expect(error.category == .configuration)
      #expect("\(error)".contains("dead:beef"))
    }
    // A function that was handed over is closed also when nothing comes of it.
    #expect(function.closes == 1)
  }

  @Test func removalClosesThePort() throws {
    let pair = try FakePair()
    pair.functions[0].pull()
    #expect(pair.ports[0].service() == .lost)
    #expect(!pair.ports[0].isOpen)
    #expect(pair.ports[0].health == .gone)
    #expect(pair.drivers[0].stops == 1)
    #expect(pair.functions[0].closes == 1)
    guard case .gone = pair.ports[0].failure else {
      Issue.record("the failure is \(String(describing: pair.ports[0].failure))")
      return
    }
    #expect(pair.ports[0].failure?.category == .deviceMissing)
  }

  @Test func aQuarantinedDriverClosesThePort() throws {
    let pair = try FakePair()
    pair.drivers[0].health = .quarantined(reason: "a length of 70000")
    pair.drivers[0].raise(.lost)
    #expect(pair.ports[0].service() == .lost)
    #expect("\(pair.ports[0].failure!)".contains("a length of 70000"))
    #expect(pair.ports[1].tick() == [])
    pair.drivers[1].health = .gone
    #expect(pair.ports[1].tick() == .lost)
    #expect(pair.ports[1].health == .gone)
  }

  @Test func anUncorrectableErrorIsOne() throws {
    let pair = try FakePair()
    pair.functions[0].events = .deviceError
    #expect(pair.ports[0].service() == .lost)
    #expect(pair.ports[0].failure?.category == .other)
  }

  @Test func waitLooksBeforeItSleeps() throws {
    let pair = try FakePair()
    #expect(try pair.ports[1].wait(milliseconds: 1) == false)
    pair.drivers[1].arrive([UInt8](repeating: 0, count: 60), queue: 0)
    #expect(try pair.ports[1].wait(milliseconds: 0))
    // An interrupt ends the wait.
    var batch = PacketBatch(capacity: 4)
    pair.ports[1].receive(into: &batch)
    _ = pair.ports[1].arm()
    EventFD.signal(pair.ports[1].eventDescriptor())
    #expect(try pair.ports[1].wait(milliseconds: 1000))
    #expect(try pair.ports[1].wait(milliseconds: 1) == false)
  }

  @Test func waitingForALinkIsBounded() throws {
    let pair = try FakePair()
    try pair.ports[0].waitForLink(seconds: 0)
    pair.drivers[0].link = LinkState(status: .down)
    do {
      try pair.ports[0].waitForLink(seconds: 0.02)
      Issue.record("there is no link")
    } catch { #expect("\(error)".contains("no link after 0.02 s")) }
  }

  struct Nothing: Error {}
}

@Suite struct RingwayErrorTests {
  /// What a person has to change, for one error of each kind.
  static let errors: [(RingwayError, RingwayError.Category)] = [
    (.vfio(.invalidAddress("x")), .usage),
    (.vfio(.noSuchFunction(address: "x")), .deviceMissing),
    (.vfio(.notBound(address: "x", driver: nil)), .configuration),
    (.vfio(.noPermission(path: "/dev/vfio/1")), .permission),
    (.vfio(.noIOMMU(address: "x")), .configuration),
    (.vfio(.busy(address: "x", path: "/dev/vfio/1")), .other),
    (.vfio(.alreadyOpen(address: "x")), .usage),
    (.vfio(.gone(address: "x")), .deviceMissing),
    (.vfio(.system(operation: "open", subject: "x", errno: .permissionDenied)), .permission),
    (.function(.gone(function: "x")), .deviceMissing),
    (.function(.mapping(function: "x", bar: 0, errno: 1)), .permission),
    (.driver(.gone(card: "x")), .deviceMissing),
    (.driver(.option(card: "x", name: "mtu", value: "1", allowed: "68")), .usage),
    (.driver(.memory(.memoryLockLimit(wanted: 2, limit: 1))), .configuration),
    (.driver(.function(.gone(function: "x"))), .deviceMissing),
    (.memory(.memory(.tooFewHugepages(wanted: 2, available: 1, pageSize: 2 << 20, node: nil, total: 1))), .configuration),
    (.memory(.mapping(.gone)), .deviceMissing),
    (.scan(.noSuchDevice(try! PCIAddress("00:00.0"))), .deviceMissing),
    (.scan(.noPCIBus("/sys")), .configuration),
    (.address(.malformed("x")), .usage),
    (.system(SystemError("open", "x", .permissionDenied)), .permission),
    (.system(SystemError("open", "x", .noSuchFileOrDirectory)), .other),
    (.capture(.filter(expression: "x", message: "y")), .usage),
    (.capture(.full(path: "x")), .other),
    (.gone(card: "x"), .deviceMissing),
    (.noLink(card: "x", seconds: 10), .other),
  ]

  @Test(arguments: errors.indices) func category(index: Int) {
    let (error, category) = Self.errors[index]
    #expect(error.category == category, "\(error)")
  }

  /// Two sentences: what failed, and what to do.
  @Test(arguments: errors.indices) func saysWhatToDo(index: Int) {
    let text = Self.errors[index].0.description
    let advice = ["`", "Run", "Use", "Check", "Open", "Write", "Choose", "Allowed", "allowed", "Mount", "Raise", "Free", "described", "gone", "lists"]
    #expect(advice.contains { text.contains($0) }, "\(text)")
    #expect(text.contains("x") || text.contains("/") || text.contains("hugepages") || text.contains("card") || text.contains("0000"), "\(text)")
  }
}
