import CRingway
import DriverKit
import ModelKit
import Models
import Packet
import Testing
import Wire

@testable import VirtioNet

@Suite struct FilterTests {
  let group = MACAddress(0x01, 0x00, 0x5e, 1, 2, 3)
  let station = MACAddress(0x02, 0, 0, 0, 0, 9)

  @Test func `start sets the receive mode`() throws {
    let bench = try Bench()
    try bench.start()
    #expect(bench.model.acceptsAll)
    var options = PortOptions()
    options.promiscuous = false
    let narrow = try Bench(VirtioNetModelOptions(), options)
    try narrow.start()
    #expect(!narrow.model.acceptsAll)
    narrow.inject(frame(1, to: station))
    narrow.inject(frame(2))
    narrow.inject(frame(3, to: .broadcast))
    #expect(narrow.receive() == [frame(2), frame(3, to: .broadcast)])
  }

  @Test func `addresses are let through by name`() throws {
    let bench = try Bench()
    try bench.start()
    var filter = ReceiveFilter()
    filter.unicast = [station]
    filter.multicast = [group]
    try bench.driver.setReceiveFilter(filter)
    #expect(!bench.model.acceptsAll)
    #expect(bench.model.filterAddresses == [station, group])
    let other = MACAddress(0x01, 0x00, 0x5e, 9, 9, 9)
    for (i, target) in [station, group, other].enumerated() { bench.inject(frame(i, to: target)) }
    #expect(bench.receive() == [frame(0, to: station), frame(1, to: group)])
    filter.allMulticast = true
    filter.unicast = []
    filter.multicast = []
    try bench.driver.setReceiveFilter(filter)
    #expect(bench.model.filterAddresses.isEmpty)
    bench.inject(frame(3, to: other))
    #expect(bench.receive() == [frame(3, to: other)])
    #expect(bench.complaints.isEmpty)
  }

  @Test func `a table that does not fit opens the filter`() throws {
    let bench = try Bench()
    try bench.start()
    var filter = ReceiveFilter()
    filter.multicast = (0..<2000).map { MACAddress(rawValue: 0x0100_5e00_0000 + UInt64($0)) }
    try bench.driver.setReceiveFilter(filter)
    #expect(bench.model.acceptsAllMulticast)
    #expect(!bench.model.acceptsAll)
    filter.multicast = [group]
    try bench.driver.setReceiveFilter(filter)
    #expect(!bench.model.acceptsAllMulticast)
    #expect(bench.model.filterAddresses == [group])
  }

  @Test func `VLANs are filtered only when that is asked for`() throws {
    func tagged(_ vlan: UInt16) -> [UInt8] {
      var bytes = frame(Int(vlan))
      bytes.replaceSubrange(12..<16, with: [0x81, 0, UInt8(vlan >> 8), UInt8(vlan & 0xff)])
      return bytes
    }
    var options = PortOptions()
    options.promiscuous = false
    let bench = try Bench(VirtioNetModelOptions(), options)
    try bench.start()
    bench.inject(tagged(5))
    #expect(bench.receive() == [tagged(5)])
    var filter = ReceiveFilter()
    filter.vlans = [7, 4094]
    try bench.driver.setReceiveFilter(filter)
    #expect(bench.model.filterVLANs == [7, 4094])
    for vlan in [5, 7, 4094] as [UInt16] { bench.inject(tagged(vlan)) }
    #expect(bench.receive() == [tagged(7), tagged(4094)])
    filter.vlans = [8]
    try bench.driver.setReceiveFilter(filter)
    #expect(bench.model.filterVLANs == [8])
    filter.vlans = nil
    try bench.driver.setReceiveFilter(filter)
    bench.inject(tagged(5))
    #expect(bench.receive() == [tagged(5)])
    #expect(bench.complaints.isEmpty)
    for bad in [0, 4095] as [UInt16] {
      filter.vlans = [bad]
      #expect(throws: DriverError.self) { try bench.driver.setReceiveFilter(filter) }
    }
  }

  @Test func `the address can be changed, and stays over a restart`() throws {
    let bench = try Bench()
    try bench.start()
    try bench.driver.setMACAddress(station)
    #expect(bench.model.address == station)
    bench.driver.stop()
    try bench.start()
    #expect(bench.model.address == station)
    #expect(bench.driver.macAddress == station)
    #expect(throws: DriverError.self) { try bench.driver.setMACAddress(group) }
    var fixed = VirtioNetModelOptions()
    fixed.features &= ~VirtioModelFeature.controlMAC
    let other = try Bench(fixed)
    #expect(throws: DriverError.self) { try other.driver.setMACAddress(station) }
  }

  @Test func `a refused command is an error, and the old filter stays`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.refusesCommands = true
    let error = try #require(throws: DriverError.self) { try bench.driver.setReceiveFilter(ReceiveFilter()) }
    guard case .unsupported = error else {
      Issue.record("\(error)")
      return
    }
    #expect(bench.driver.filter.promiscuous)
    bench.model.refusesCommands = false
    try bench.driver.setReceiveFilter(ReceiveFilter())
    #expect(!bench.model.acceptsAll)
  }

  @Test func `a control queue that does not answer is given up after two seconds`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.ignoresCommands = true
    let before = bench.clock.now()
    let error = try #require(throws: DriverError.self) { try bench.driver.setReceiveFilter(ReceiveFilter()) }
    guard case .timeout = error else {
      Issue.record("\(error)")
      return
    }
    #expect(bench.clock.now() - before < 3_000_000_000)
    // The device still owns the command's memory: the next one is refused at once.
    let second = bench.clock.now()
    #expect(throws: DriverError.self) { try bench.driver.setReceiveFilter(ReceiveFilter()) }
    #expect(bench.clock.now() == second)
    bench.driver.stop()
    bench.model.ignoresCommands = false
    try bench.start()
    try bench.driver.setReceiveFilter(ReceiveFilter())
    #expect(!bench.model.acceptsAll)
  }

  @Test func `without a control queue everything comes in`() throws {
    var options = VirtioNetModelOptions()
    options.features &= ~(VirtioModelFeature.controlQueue)
    let bench = try Bench(options)
    try bench.start()
    try bench.driver.setReceiveFilter(ReceiveFilter())
    #expect(!bench.driver.capabilities.contains(.multicastFilter))
    bench.inject(frame(1, to: station))
    #expect(bench.receive() == [frame(1, to: station)])
    #expect(bench.model.commands.isEmpty)
  }
}

@Suite struct EventTests {
  private func isSignalled(_ descriptor: Int32) -> Bool {
    var value: UInt64 = 0
    return unsafe read(descriptor, &value, 8) == 8
  }

  @Test func `link changes are told by interrupt and seen by poll`() throws {
    let bench = try Bench()
    try bench.start()
    #expect(bench.driver.link.status == .up)
    for i in 0..<100 {
      bench.model.setLink(up: i & 1 == 1)
      #expect(i % 3 == 0 ? bench.driver.tick() == .link : bench.driver.serviceControl() == .link)
      #expect(bench.driver.link.status == (i & 1 == 1 ? .up : .down))
      #expect(bench.driver.tick() == [])
    }
    bench.model.setLink(up: false)
    #expect(isSignalled(bench.driver.controlDescriptor))
    #expect(bench.statistic("link_changes") == 100)
  }

  @Test(arguments: RingFeatures.all) func `an armed queue wakes its owner`(features: RingFeatures) throws {
    let bench = try Bench(features.options)
    try bench.start()
    let descriptor = bench.driver.eventDescriptor(queue: 0)
    #expect(descriptor != bench.driver.controlDescriptor)
    // Masked at start: polling costs no interrupts.
    bench.inject(frame(0))
    #expect(bench.receive().count == 1)
    #expect(!isSignalled(descriptor))
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.inject(frame(1))
    bench.step()
    #expect(isSignalled(descriptor))
    // A frame that is there already is seen when arming.
    #expect(bench.driver.armInterrupt(queue: 0))
    #expect(bench.receive() == [frame(1)])
    bench.driver.maskInterrupt(queue: 0)
    bench.inject(frame(2))
    bench.step()
    #expect(!isSignalled(descriptor))
    #expect(bench.receive() == [frame(2)])
  }

  @Test func `a full transmit ring wakes its owner when half of it is sent`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.stopsTransmitting = true
    var batch = PacketBatch(capacity: 128)
    bench.fill(&batch, (0..<128).map { frame($0) })
    #expect(bench.driver.send(queue: 0, &batch) == 128)
    bench.step()
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.model.stopsTransmitting = false
    _ = bench.driver.tick()
    bench.step()
    #expect(isSignalled(bench.driver.eventDescriptor(queue: 0)))
  }

  @Test(arguments: [0, 1, 2]) func `fewer vectors than queues`(vectors: Int) throws {
    var options = VirtioNetModelOptions()
    options.vectors = vectors
    options.pairs = 3
    options.features |= VirtioModelFeature.multiqueue
    var port = PortOptions()
    port.queues = 3
    let bench = try Bench(options, port)
    try bench.start()
    #expect(bench.driver.controlDescriptor >= 0)
    for queue in 0..<3 {
      bench.send([frame(queue, from: Bench.station(queue))], queue: queue)
      #expect(!bench.driver.armInterrupt(queue: queue))
      bench.inject(frame(queue, from: Bench.station(queue)))
      bench.step()
      #expect(isSignalled(bench.driver.eventDescriptor(queue: queue)) == (vectors > 0))
    }
    #expect(bench.complaints.isEmpty)
  }

  @Test func `a vector that cannot be connected is an error that names it`() throws {
    var options = VirtioNetModelOptions()
    options.usableVectors = 1
    let bench = try Bench(options)
    let error = try #require(throws: DriverError.self) { try bench.start() }
    #expect(error.description.contains("vector 1"))
    #expect(bench.driver.health == .stopped)
    #expect(bench.pool.available == Bench.buffers)
  }
}
