// The virtio-net model and its bus: indirect descriptors, shared doorbells, interrupts, the access window.

import DMAMemory
import ModelKit
import Models
import PCI
import Testing

@Suite struct VirtioNetBusTests {
  static let plain = VirtioModelFeature.version1 | VirtioModelFeature.accessPlatform | VirtioModelFeature.mac
  let frame: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0] + Array(1...50)

  private func offerBuffer(_ driver: HandDriver, _ id: Int = 0, at buffer: Int = 0x8000) {
    driver.describe(0, id, buffer, 2048, flags: 2)
    driver.offer(0, UInt16(id))
  }
  private func send(_ driver: HandDriver, notify: Bool = true) {
    driver.fill([UInt8](repeating: 0, count: 12) + frame, at: 0xa000)
    driver.describe(1, 0, 0xa000, UInt32(12 + frame.count), flags: 0)
    driver.offer(1, 0)
    if notify { driver.notify(1) }
    driver.card.settle()
  }

  @Test func `a table of descriptors stands for a chain`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.indirectDescriptors)
    driver.fill([UInt8](repeating: 0, count: 12), at: 0xa000)
    driver.fill(frame, at: 0xb000)
    // The table at 0xc000: header, then two parts of the frame.
    for (i, (address, count, flags)) in [(0xa000, 12, 1), (0xb000, 14, 1), (0xb00e, frame.count - 14, 0)].enumerated() {
      let at = 0xc000 + i * 16
      driver.put(HandDriver.base + UInt64(address), at)
      driver.put(UInt32(count), at + 8)
      driver.put(UInt16(flags), at + 12)
      driver.put(UInt16(i + 1), at + 14)
    }
    driver.describe(1, 7, 0xc000, 48, flags: 4)
    driver.offer(1, 7)
    driver.notify(1)
    driver.card.settle()
    #expect(driver.wire.takeSent().map(\.bytes) == [frame])
    #expect(driver.get(0x2804, UInt32.self) == 7)
    #expect(driver.model.bus.complaints.isEmpty)
    // A table in a table, and a table with something behind it.
    for flags in [4, 5] as [UInt16] {
      let other = try HandDriver()
      other.start(Self.plain | VirtioModelFeature.indirectDescriptors)
      other.put(HandDriver.base + 0xc000, 0xc000)
      other.put(16 as UInt32, 0xc008)
      other.put(4 as UInt16, 0xc00c)
      other.describe(1, 0, 0xc000, 16, flags: flags)
      other.offer(1, 0)
      other.notify(1)
      other.card.settle()
      #expect(other.model.deviceStatus & 0x40 != 0)
      #expect(other.used(1) == 0)
    }
  }

  @Test func `with shared doorbells nobody notifies, and the device looks`() throws {
    let driver = try HandDriver(VirtioNetModelOptions(), mode: .shared)
    driver.start(Self.plain)
    send(driver, notify: false)
    #expect(driver.wire.takeSent().map(\.bytes) == [frame])
    #expect(driver.get(0x2800, UInt16.self) == 1, "VIRTQ_USED_F_NO_NOTIFY")
    driver.notify(1)
    driver.card.settle()
    #expect(driver.model.notifications.isEmpty)
    #expect(driver.card.step() == 0, "idle")
  }

  @Test func `the line is up until the cause is read`() throws {
    let driver = try HandDriver()
    final class Count { var lines = 0 }
    let count = Count()
    driver.start(Self.plain)
    driver.model.bus.interruptKind = .intx
    driver.model.bus.deliver = { kind, vector in if kind == .intx && vector == 0 { count.lines += 1 } }
    offerBuffer(driver)
    driver.wire.send(frame)
    driver.card.settle()
    #expect(count.lines == 1)
    #expect(driver.registers.read8(at: 0x1000) == 1)
    #expect(driver.registers.read8(at: 0x1000) == 0)
    driver.model.setLink(up: false)
    #expect(driver.registers.read8(at: 0x1000) == 2)
    driver.card.writeConfig16(0x0406, at: 4)
    driver.model.setLink(up: true)
    #expect(count.lines == 2, "the command register keeps it down")
  }

  @Test func `registers are reached through configuration space`() throws {
    let driver = try HandDriver()
    driver.model.reset()
    let access = try #require((0x40..<0x100).first { driver.card.readConfig8(at: $0) == 9 && driver.card.readConfig8(at: $0 + 3) == 5 })
    driver.card.writeConfig32(4, at: access + 4)
    driver.card.writeConfig32(20, at: access + 8)
    driver.card.writeConfig32(1, at: access + 12)
    driver.card.writeConfig32(3, at: access + 16)
    #expect(driver.model.deviceStatus == 3)
    #expect(driver.card.readConfig8(at: access + 16) == 3)
    // Device configuration: the address.
    driver.card.writeConfig32(0x2000, at: access + 8)
    driver.card.writeConfig32(4, at: access + 12)
    #expect(driver.card.readConfig32(at: access + 16) == 0x1200_5452)
    // Widths and offsets that make no sense reach nothing.
    driver.card.writeConfig32(3, at: access + 12)
    driver.card.writeConfig32(0, at: access + 16)
    driver.card.writeConfig32(4, at: access + 12)
    driver.card.writeConfig32(0x7fff_fffc, at: access + 8)
    driver.card.writeConfig32(0, at: access + 16)
    #expect(driver.model.deviceStatus == 3)
  }

  @Test func `interrupts wait for one another when the driver wants it`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.controlQueue | VirtioModelFeature.coalescing)
    driver.enable(2)
    // Receive: 3 packets or 50 microseconds.
    #expect(driver.command(2, [6, 1, 3, 0, 0, 0, 50, 0, 0, 0]) == 0)
    let before = driver.model.bus.interrupts[1, default: 0]
    for i in 0..<4 { offerBuffer(driver, i, at: 0x8000 + i * 0x800) }
    for _ in 0..<2 {
      driver.wire.send(frame)
      driver.card.settle()
    }
    #expect(driver.model.bus.interrupts[1, default: 0] == before)
    driver.wire.send(frame)
    driver.card.settle()
    #expect(driver.model.bus.interrupts[1] == before + 1, "three packets")
    driver.wire.send(frame)
    driver.card.settle()
    let deadline = try #require(driver.model.deadline)
    #expect(deadline == driver.model.bus.now + 50_000)
    driver.card.advance(nanoseconds: 49_999)
    #expect(driver.model.bus.interrupts[1] == before + 1)
    driver.card.advance(nanoseconds: 1)
    #expect(driver.model.bus.interrupts[1] == before + 2, "fifty microseconds")
    #expect(driver.model.deadline == nil)
  }

  @Test func `an announcement is asked for until the driver has seen it`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.controlQueue | VirtioModelFeature.announce | VirtioModelFeature.status)
    driver.enable(2)
    let generation = driver.registers.read8(at: 21)
    driver.model.announce()
    #expect(driver.registers.read16(at: 0x2006) == 3)
    #expect(driver.registers.read8(at: 21) != generation)
    #expect(driver.command(2, [3, 0]) == 0)
    #expect(driver.registers.read16(at: 0x2006) == 1)
  }

  @Test func `a buffer outside the mapped memory stops the device, and is counted`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain)
    driver.describe(0, 0, HandDriver.size - 0x40, 2048, flags: 2)
    driver.offer(0, 0)
    driver.wire.send(frame)
    driver.card.settle()
    #expect(driver.model.deviceStatus & 0x40 != 0)
    #expect(driver.model.counters.memoryErrors == 1)
    #expect(driver.model.bus.memory.faults >= 1)
    #expect(driver.model.bus.complaints.count == 1)
    // Reset, and it serves again.
    driver.start(Self.plain)
    #expect(driver.model.deviceStatus == 15)
  }

  @Test func `one queue is reset, and the others go on`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.ringReset)
    send(driver)
    #expect(driver.wire.takeSent().count == 1)
    driver.registers.write16(1, at: 22)
    driver.registers.write16(1, at: 58)
    #expect(driver.registers.read16(at: 28) == 0)
    send(driver)
    #expect(driver.wire.takeSent().isEmpty)
    offerBuffer(driver)
    driver.wire.send(frame)
    driver.card.settle()
    #expect(driver.used(0) == 1)
  }

  @Test func `faults do what they say, and end`() throws {
    func with(_ fault: ModelFault, _ act: (HandDriver) -> Void) throws {
      let driver = try HandDriver()
      driver.start(Self.plain)
      driver.model.inject(fault)
      act(driver)
    }
    func receive(_ driver: HandDriver) {
      offerBuffer(driver)
      driver.wire.send(frame)
      driver.card.settle()
    }
    try with(.transmitHang) {
      send($0)
      #expect($0.wire.sent.isEmpty && $0.used(1) == 0)
    }
    try with(.neverReports) {
      send($0)
      #expect($0.wire.sent.count == 1 && $0.used(1) == 0)
    }
    try with(.neverDelivers) {
      receive($0)
      #expect($0.used(0) == 0 && $0.bytes(0x800c, frame.count) == frame)
    }
    try with(.receiveLength(77, count: 1)) {
      receive($0)
      #expect($0.get(0x808, UInt32.self) == 77)
    }
    try with(.missingEnd(count: 1)) {
      receive($0)
      #expect($0.get(0x800a, UInt16.self) == 0xffff)
    }
    try with(.receiveError(count: 1)) {
      receive($0)
      #expect($0.get(0x808, UInt32.self) == 12)
    }
    try with(.wrongCompletion(99, count: 1)) {
      receive($0)
      #expect($0.get(0x804, UInt32.self) == 99)
    }
    try with(.duplicateCompletion(count: 1)) {
      send($0)
      #expect($0.used(1) == 2)
    }
    try with(.indexJump(5, count: 1)) {
      send($0)
      #expect($0.used(1) == 6)
    }
    try with(.wrongAddress(count: 1)) {
      send($0)
      #expect($0.wire.sent.isEmpty && $0.used(1) == 1 && $0.model.bus.memory.faults == 1)
    }
    try with(.interruptStorm) {
      $0.card.settle()
      #expect($0.model.bus.interrupts.count == 3)
    }
    try with(.noInterrupts) {
      receive($0)
      #expect($0.used(0) == 1 && $0.model.bus.interrupts.isEmpty)
    }
    try with(.stuckReset) {
      $0.status(0)
      #expect($0.model.deviceStatus == 15)
    }
    try with(.gone) {
      #expect($0.registers.read8(at: 20) == 0xff)
      $0.model.inject(.none)
      #expect($0.registers.read8(at: 20) == 15)
    }
    try with(.randomRegisters(seed: 3)) { driver in
      #expect(Set((0..<8).map { _ in driver.registers.read32(at: 0x2000) }).count > 4)
    }
  }
}
