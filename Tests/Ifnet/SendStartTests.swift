// Staging, the start interlock, kicks, owners, watchdogs.

import Ifnet
import Netisr
import Packet
import Platform
import Testing

@Suite struct SendStartTests {
  @Test("Case 50: three packets on a worker -> no if_start; the 4th -> one call with 4")
  func fourthStarts() throws {
    let rig = try SendRig(workers: 2)
    rig.netisr.workers[1].perform {
      for mark in 1...3 { rig.queue.send(rig.packet(UInt8(mark))) }
      #expect(rig.driver.starts.isEmpty)
      rig.queue.send(rig.packet(4))
      #expect(rig.driver.starts.map(\.frames.count) == [4])
    }
    #expect(rig.driver.starts.map(\.worker) == [1])
    #expect(rig.queue.counters.starts == 1)
    #expect(rig.queue.counters.staged == 3)
    rig.expectConserved(offered: 4)
  }

  @Test("Case 51: three packets, then idle -> rollup starts")
  func rollupStarts() throws {
    let rig = try SendRig(workers: 2)
    rig.send(1...3, on: 1)
    #expect(rig.driver.starts.isEmpty)
    rig.netisr.run(worker: 0)
    #expect(rig.driver.starts.isEmpty)
    rig.netisr.run(worker: 1)
    #expect(rig.driver.starts.map(\.frames.count) == [3])
    // The stage is empty again: three more wait anew.
    rig.send(4...6, on: 1)
    #expect(rig.driver.starts.count == 1)
    rig.netisr.run(worker: 1)
    #expect(rig.driver.sent == [1, 2, 3, 4, 5, 6])
  }

  @Test("Case 52: MTU 1500, one packet of 1460 bytes -> at once")
  func largeStarts() throws {
    let rig = try SendRig()
    rig.netisr.workers[0].perform {
      rig.queue.send(rig.packet(1, length: 1459))
      #expect(rig.driver.starts.isEmpty)
    }
    rig.netisr.run(worker: 0)
    rig.netisr.workers[0].perform {
      rig.queue.send(rig.packet(2, length: 1460))
      #expect(rig.driver.starts.count == 2)
    }
    // With IPv6 the longest headers have 60 bytes.
    rig.table.staging.protocolHeader = 60
    rig.netisr.workers[0].perform {
      rig.queue.send(rig.packet(3, length: 1440))
      #expect(rig.driver.starts.count == 3)
    }
    // Clamped: an MTU below the headers starts everything at once.
    rig.table.staging.protocolHeader = 65536
    rig.netisr.workers[0].perform {
      rig.queue.send(rig.packet(4))
      #expect(rig.driver.starts.count == 4)
    }
  }

  @Test("Case 53: the same from a non-worker -> at once")
  func nonWorkerStarts() throws {
    let rig = try SendRig()
    rig.send(1...1)
    #expect(rig.driver.starts == [RingDriver.Start(queue: 0, worker: nil, frames: [rig.packet(1).bytes()])])
    rig.send(2...3)
    #expect(rig.driver.starts.count == 3)
  }

  @Test("Case 54: oactive -> no if_start until devstart")
  func oactiveWaits() throws {
    let rig = try SendRig()
    rig.driver.setRoom(2)
    rig.send(1...3)
    #expect(rig.queue.isActive)
    let before = rig.driver.starts.count
    rig.send(4...5)
    rig.send(6...9, on: 0)
    rig.netisr.settle()
    #expect(rig.driver.starts.count == before)
    #expect(rig.queue.count == 7)
    rig.driver.setRoom(.max)
    rig.queue.ready()
    #expect(rig.driver.sent == Array(1...9))
    rig.expectConserved(offered: 9)
  }

  @Test("Case 55: serializer contended -> runs on the owner")
  func contended() throws {
    let rig = try SendRig(workers: 4)
    rig.queue.setOwner(2)
    rig.interface.serializer.enter(.transmit(0))
    rig.send(1...4, on: 1)
    #expect(rig.driver.starts.isEmpty)
    #expect(rig.queue.isStarted)
    rig.interface.serializer.leave(.transmit(0))
    rig.netisr.settle()
    #expect(rig.driver.starts.map(\.worker) == [2])
    #expect(rig.driver.sent == [1, 2, 3, 4])
    #expect(!rig.queue.isStarted)
  }

  @Test("Case 56: owner changes after the kick -> runs on the new owner")
  func ownerChanges() throws {
    let rig = try SendRig(workers: 4)
    rig.queue.setOwner(2)
    rig.interface.serializer.enter(.transmit(0))
    rig.send(1...4, on: 1)
    rig.interface.serializer.leave(.transmit(0))
    rig.queue.setOwner(3)
    rig.netisr.settle()
    #expect(rig.driver.starts.map(\.worker) == [3])
    #expect(rig.driver.sent == [1, 2, 3, 4])
    #expect(rig.queue.counters.kicks == 2)
  }

  @Test("Case 57: ring_count2(5,8) with 8 workers -> 4; (0,8) with 4 -> 4")
  func ringCount() {
    #expect(Interface.ringCount(5, maximum: 8, workers: 8) == 4)
    #expect(Interface.ringCount(0, maximum: 8, workers: 4) == 4)
    #expect(Interface.ringCount(-1, maximum: 16, workers: 64) == 16)
    #expect(Interface.ringCount(3, maximum: 8, workers: 1) == 1)
    #expect(Interface.ringCount(3, maximum: 6, workers: 8) == nil)
    #expect(Interface.ringCount(3, maximum: 0, workers: 8) == nil)
  }

  @Test("map_subq: the first by default, a mask, or the remainder")
  func mapping() throws {
    let rig = try SendRig(workers: 4, queues: 2)
    func queues() -> [Int] { (0..<4).map { n in rig.netisr.workers[n].perform { rig.interface.currentSubqueue.index } } }
    #expect(queues() == [0, 0, 0, 0])
    rig.interface.subqueueMap = .mask(1)
    #expect(queues() == [0, 1, 0, 1])
    rig.interface.subqueueMap = .modulo
    #expect(queues() == [0, 1, 0, 1])
    rig.interface.subqueueMap = .mask(7)
    #expect(queues() == [0, 1, 1, 1])
    #expect(rig.interface.currentSubqueue.index == 0)
  }

  @Test("Case 58: a subqueue's timer of 2 fires on the 2nd tick; lock busy -> 3rd")
  func watchdog() throws {
    let rig = try SendRig(workers: 2)
    rig.queue.setOwner(1)
    rig.queue.startWatchdog()
    func second() {
      rig.clock.sleep(nanoseconds: 1_000_000_000)
      rig.netisr.settle()
    }
    second()
    rig.queue.watchdogTimer = 2
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs }.isEmpty)
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs } == [1])
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs }.count == 1)
    rig.queue.watchdogTimer = 2
    second()
    rig.interface.serializer.enter(.transmit(0))
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs }.count == 1)
    rig.interface.serializer.leave(.transmit(0))
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs } == [1, 1])
    // It follows the owner, and stops for good.
    rig.queue.setOwner(0)
    second()
    rig.queue.watchdogTimer = 1
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs } == [1, 1, 0])
    rig.queue.watchdogTimer = 1
    rig.queue.stopWatchdog()
    #expect(rig.queue.watchdogTimer == 0)
    second()
    second()
    #expect(rig.driver.state.withLock { $0.watchdogs }.count == 3)
    #expect(!rig.queue.isWatchdogRunning)
  }

  @Test("Case 59: rollups of priority 50 and 200 -> 200 first")
  func rollupOrder() throws {
    let rig = try SendRig()
    let order = Guarded<[String]>([])
    rig.netisr.workers[0].addRollup(priority: 200) { order.withLock { $0.append("200") } }
    rig.driver.onStart.withLock { $0 = { _ in order.withLock { $0.append("if_start") } } }
    rig.send(1...2, on: 0)
    order.withLock { $0 = [] }
    rig.netisr.run(worker: 0)
    #expect(order.withLock { $0 } == ["200", "if_start"])
  }

  @Test("Data left after if_start is kicked again, with the interlock held, until nothing is left")
  func leftData() throws {
    let rig = try SendRig(workers: 2, driver: RingDriver(budget: 2))
    rig.queue.setOwner(1)
    rig.send(1...4, on: 0)
    #expect(rig.driver.starts.map(\.frames.count) == [2])
    #expect(rig.queue.isStarted)
    rig.netisr.settle()
    #expect(rig.driver.sent == [1, 2, 3, 4])
    #expect(rig.driver.starts.map(\.worker) == [0, 1])
    #expect(!rig.queue.isStarted)
  }

  @Test("An unforced kick stays in the stage; a stage that fills meanwhile sends it off")
  func scheduledStage() throws {
    let rig = try SendRig(workers: 2, driver: RingDriver(budget: 4))
    rig.queue.setOwner(1)
    rig.netisr.workers[0].perform {
      var batch = PacketBatch(capacity: 6)
      for mark in 1...6 { rig.check(batch.append(rig.packet(UInt8(mark))) == nil) }
      rig.queue.send(batch: &batch)
      // Four went directly; the kick for the rest waits for this worker's rollup.
      #expect(rig.driver.starts.map(\.frames.count) == [4])
      #expect(rig.queue.counters.kicks == 0)
      rig.queue.send(rig.packet(7))
      #expect(rig.queue.counters.kicks == 0)
      for mark in 8...10 { rig.queue.send(rig.packet(UInt8(mark))) }
      #expect(rig.queue.counters.kicks == 1)
    }
    rig.netisr.settle()
    #expect(rig.driver.sent == Array(1...10))
    rig.expectConserved(offered: 10)
  }

  @Test("net.link.stage_cntmax: 0 or less switches staging off")
  func stagingOff() throws {
    let rig = try SendRig(workers: 2, driver: RingDriver(budget: 1))
    #expect(try rig.netisr.sysctl.read("net.link.stage_cntmax") == .integer(4))
    try rig.netisr.sysctl.write("net.link.stage_cntmax", "0")
    #expect(throws: SysctlError.self) { try rig.netisr.sysctl.write("net.link.stage_cntmax", "many") }
    rig.netisr.workers[0].perform {
      rig.queue.send(rig.packet(1))
      #expect(rig.driver.starts.count == 1)
      var batch = PacketBatch(capacity: 2)
      for mark in 2...3 { rig.check(batch.append(rig.packet(UInt8(mark))) == nil) }
      rig.queue.send(batch: &batch)
      // The kick is no longer left in the stage: it is on its way.
      #expect(rig.queue.counters.kicks == 1)
    }
    try rig.netisr.sysctl.write("net.link.stage_cntmax", "2")
    rig.netisr.settle()
    let before = rig.driver.starts.count
    rig.send(4...5, on: 0)
    #expect(rig.driver.starts.count == before + 1)
  }

  @Test("An enqueue error with data pending forces a start; without, it does not")
  func errorForcesStart() throws {
    let rig = try SendRig(length: 4)
    rig.table.staging.countMaximum = 100
    rig.queue.setMaxLength(2)
    // 102 packets fit; stages of 100 gather until then.
    rig.table.staging.countMaximum = 1000
    rig.netisr.workers[0].perform {
      for _ in 0..<102 { rig.queue.send(rig.packet(1, length: 7)) }
      #expect(rig.driver.starts.isEmpty)
      rig.check(!rig.queue.send(rig.packet(2, length: 7)))
      #expect(rig.driver.starts.count == 1)
    }
    rig.netisr.settle()
    rig.expectConserved(offered: 103)
  }

  @Test("Not running: nothing is started, the interlock is free, and devstart does not look at it")
  func notRunning() throws {
    let rig = try SendRig()
    rig.interface.setDriverFlags([], clear: .running)
    rig.send(1...2)
    #expect(rig.driver.starts.isEmpty)
    #expect(!rig.queue.isStarted)
    rig.queue.ready()
    #expect(rig.driver.sent == [1, 2])
    rig.queue.ready()
    #expect(rig.driver.starts.count == 1)
  }

  @Test("devstart_sched runs if_start on the owner; devstart on another thread goes there too")
  func devstartScheduled() throws {
    let rig = try SendRig(workers: 3)
    rig.queue.setOwner(2)
    rig.queue.isActive = true
    rig.send(1...1)
    rig.queue.isActive = false
    rig.queue.devstartScheduled()
    rig.queue.devstartScheduled()
    rig.netisr.settle()
    // Two kicks at once are one message.
    #expect(rig.driver.starts.map(\.worker) == [2])
    rig.queue.isActive = true
    rig.send(2...2)
    rig.interface.serializer.enter(.transmit(0))
    rig.queue.ready()
    rig.interface.serializer.leave(.transmit(0))
    rig.netisr.settle()
    #expect(rig.driver.starts.map(\.worker) == [2, 2])
  }

  @Test("A card's queue is its owner's: others kick")
  func ownerSerializer() throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 3
    configuration.isManual = true
    let netisr = try Netisr(configuration, clock: SendClock())
    let serializer = OwnerSerializer(netisr, queues: 2)
    #expect(!serializer.tryEnter(.transmit(0)))
    serializer.ownerChanged(queue: 1, to: 2)
    serializer.ownerChanged(queue: 7, to: 2)
    let held = (0..<3).map { n in
      netisr.workers[n].perform { [SerializerSlot.all, .main, .receive(0), .transmit(0), .transmit(1), .transmit(7)].map { serializer.tryEnter($0) } }
    }
    #expect(held == [[true, true, true, true, false, false], Array(repeating: false, count: 6), [false, false, false, false, true, false]])
  }

  @Test("Serializers: all of a driver's locks or none; one that is held is not entered")
  func serializers() {
    let slots = SlotSerializer(receive: 2, transmit: 2)
    slots.enter(.transmit(1))
    #expect(slots.isHeld(.transmit(1)))
    #expect(!slots.isHeld(.all))
    #expect(!slots.tryEnter(.all))
    #expect(!slots.isHeld(.main))
    #expect(slots.tryEnter(.transmit(0)))
    slots.leave(.transmit(0))
    slots.leave(.transmit(1))
    #expect(slots.tryEnter(.all))
    #expect(slots.isHeld(.receive(1)))
    slots.leave(.all)
    let one = LockSerializer()
    one.enter(.main)
    #expect(!one.tryEnter(.transmit(3)))
    one.leave(.main)
    #expect(!one.isHeld(.main))
  }
}
