import DMAMemory
import DeviceIO
import ModelKit
import Models
import PCI
import Testing

/// A driver by hand, in the standard's own numbers: none of the project's driver code takes part.
@safe final class HandDriver {
  let model: VirtioNetModel
  let card: InProcessCard
  let wire = TestWire()
  let registers: any RegisterSpace
  let memory: UnsafeMutableRawPointer
  static let base: UInt64 = 0x4000_0000
  static let size = 1 << 16
  /// Queue q: descriptors at q * 0x2000, available ring 0x400 further, used ring 0x800 further; size 16.
  /// Buffers from 0x8000 on.

  init(_ options: VirtioNetModelOptions = VirtioNetModelOptions(), mode: InProcessCard.Mode = .trapped) throws {
    model = try VirtioNetModel(options)
    model.wire = wire
    card = InProcessCard(model, mode: mode)
    registers = try card.registers(bar: 4)
    unsafe memory = .allocate(byteCount: Self.size, alignment: 4096)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
    try card.map(
      unsafe DMASource(unsafe: memory, count: Self.size, descriptor: -1, fileOffset: 0), at: IOVA(rawValue: Self.base))
  }
  deinit { unsafe memory.deallocate() }

  func status(_ value: UInt8) { registers.write8(value, at: 20) }

  /// Acknowledge, driver, features, FEATURES_OK. Returns the status as it then reads.
  @discardableResult func negotiate(_ features: UInt64) -> UInt8 {
    status(0)
    status(1)
    status(3)
    for half in 0..<2 as Range<UInt32> {
      registers.write32(half, at: 8)
      registers.write32(UInt32(truncatingIfNeeded: features >> (32 * UInt64(half))), at: 12)
    }
    status(11)
    return registers.read8(at: 20)
  }

  func enable(_ queue: UInt16, vector: UInt16 = 0xffff) {
    registers.write16(queue, at: 22)
    registers.write16(16, at: 24)
    let at = Self.base + UInt64(queue) * 0x2000
    for (offset, address) in [(32, at), (40, at + 0x400), (48, at + 0x800)] {
      registers.write32(UInt32(truncatingIfNeeded: address), at: offset)
      registers.write32(UInt32(address >> 32), at: offset + 4)
    }
    registers.write16(vector, at: 26)
    registers.write16(1, at: 28)
  }

  func start(_ features: UInt64) {
    negotiate(features)
    enable(0, vector: 1)
    enable(1)
    card.setBusMaster(true)
    status(15)
  }

  func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) { unsafe memory.storeBytes(of: value, toByteOffset: offset, as: T.self) }
  func get<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T { unsafe memory.loadUnaligned(fromByteOffset: offset, as: T.self) }

  func describe(_ queue: Int, _ id: Int, _ buffer: Int, _ count: UInt32, flags: UInt16, next: UInt16 = 0) {
    let at = queue * 0x2000 + id * 16
    put(Self.base + UInt64(buffer), at)
    put(count, at + 8)
    put(flags, at + 12)
    put(next, at + 14)
  }

  func offer(_ queue: Int, _ id: UInt16) {
    let at = queue * 0x2000 + 0x400
    let index = get(at + 2, UInt16.self)
    put(id, at + 4 + Int(index % 16) * 2)
    put(index &+ 1, at + 2)
  }

  func notify(_ queue: UInt16) { registers.doorbell(at: 0x3000 + 4 * Int(queue))?.ring16(queue) }

  /// Sends a command and gives the answer; nil when there is none.
  func command(_ queue: UInt16, _ bytes: [UInt8]) -> UInt8? {
    for (i, byte) in bytes.enumerated() { put(byte, 0xf000 + i) }
    put(0xee as UInt8, 0xeff0)
    describe(Int(queue), 0, 0xf000, UInt32(bytes.count), flags: 1, next: 1)
    describe(Int(queue), 1, 0xeff0, 1, flags: 2)
    offer(Int(queue), 0)
    notify(queue)
    card.settle()
    let answer = get(0xeff0, UInt8.self)
    return answer == 0xee ? nil : answer
  }

  /// Puts bytes into a buffer.
  func fill(_ bytes: [UInt8], at buffer: Int) { for (i, byte) in bytes.enumerated() { put(byte, buffer + i) } }
  func bytes(_ buffer: Int, _ count: Int) -> [UInt8] { (0..<count).map { get(buffer + $0, UInt8.self) } }

  func used(_ queue: Int) -> UInt16 { get(queue * 0x2000 + 0x802, UInt16.self) }
}

@Suite struct VirtioNetModelTests {
  static let plain = VirtioModelFeature.version1 | VirtioModelFeature.accessPlatform | VirtioModelFeature.mac
  let frame: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0] + Array(1...50)

  @Test func `a frame goes out over two descriptors`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain)
    for (i, byte) in frame.enumerated() { driver.put(byte, 0x8100 + i) }
    driver.describe(1, 5, 0x8000, 12, flags: 1, next: 2)
    driver.describe(1, 2, 0x8100, UInt32(frame.count), flags: 0)
    driver.offer(1, 5)
    driver.card.step()
    #expect(driver.wire.sent.isEmpty, "nothing moves before the notification")
    driver.notify(1)
    driver.card.step()
    #expect(driver.wire.takeSent().map(\.bytes) == [frame])
    #expect(driver.used(1) == 1)
    #expect(driver.get(0x2804, UInt32.self) == 5)
    #expect(driver.model.bus.complaints.isEmpty)
  }

  @Test func `a frame comes in behind its header, and the vector is raised`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain)
    driver.describe(0, 3, 0x8000, 2048, flags: 2)
    driver.offer(0, 3)
    driver.wire.send(frame)
    driver.card.step()
    #expect(driver.used(0) == 1)
    #expect(driver.get(0x804, UInt32.self) == 3)
    #expect(driver.get(0x808, UInt32.self) == UInt32(frame.count + 12))
    #expect(driver.get(0x8000 + 10, UInt16.self) == 1)
    #expect((0..<frame.count).map { driver.get(0x800c + $0, UInt8.self) } == frame)
    #expect(driver.model.bus.interrupts == [1: 1])
    #expect(driver.model.bus.complaints.isEmpty)
  }

  @Test func `mergeable buffers carry a long frame, others wait for room`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.mergeableBuffers)
    let long = frame + [UInt8](repeating: 7, count: 3000)
    driver.wire.send(long)
    driver.describe(0, 0, 0x8000, 2048, flags: 2)
    driver.describe(0, 1, 0x9000, 2048, flags: 2)
    driver.offer(0, 0)
    driver.card.step()
    #expect(driver.used(0) == 0)
    driver.offer(0, 1)
    driver.card.step()
    #expect(driver.used(0) == 2)
    #expect(driver.get(0x8000 + 10, UInt16.self) == 2)
    #expect(driver.get(0x808, UInt32.self) == 2048)
    #expect(driver.get(0x810, UInt32.self) == UInt32(long.count + 12 - 2048))
    #expect(driver.model.bus.complaints.isEmpty)
  }

  @Test func `event indexes are counted as the standard says`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.eventIndex)
    for id in 0..<8 { driver.describe(0, id, 0x8000 + id * 0x400, 0x400, flags: 2) }
    for id in 0..<8 as Range<UInt16> { driver.offer(0, id) }
    // used_event 2: an interrupt when the third buffer is used.
    driver.put(2 as UInt16, 0x400 + 4 + 32)
    for wanted in [0, 0, 1, 1] {
      driver.wire.send(frame)
      driver.card.step()
      #expect(driver.model.bus.interrupts[1, default: 0] == wanted)
    }
  }

  @Test func `features that were not offered are refused`() throws {
    let driver = try HandDriver()
    #expect(driver.negotiate(Self.plain) == 11)
    #expect(driver.negotiate(VirtioModelFeature.mac) == 3, "without VERSION_1")
    #expect(driver.negotiate(Self.plain | 1 << 50) == 3)
    #expect(!driver.model.bus.complaints.isEmpty)
  }

  @Test func `what breaks the standard is complained of, and stops the device`() throws {
    func wrong(_ act: (HandDriver) -> Void) throws -> (complaints: [String], status: UInt8) {
      let driver = try HandDriver()
      driver.start(Self.plain)
      act(driver)
      driver.offer(1, 0)
      driver.notify(1)
      driver.card.step()
      return (driver.model.bus.complaints, driver.model.deviceStatus)
    }
    let cases: [(HandDriver) -> Void] = [
      { $0.describe(1, 0, 0x8000, 0, flags: 0) },
      { $0.describe(1, 0, 0x8000, 64, flags: 1, next: 16) },
      { $0.describe(1, 0, 0x8000, 64, flags: 1, next: 0) },
      { $0.describe(1, 0, HandDriver.size - 8, 64, flags: 0) },
      { $0.describe(1, 0, 0x8000, 64, flags: 4) },
    ]
    for act in cases {
      let (complaints, status) = try wrong(act)
      #expect(complaints.count == 1)
      #expect(status & 0x40 != 0)
    }
  }

  @Test func `order is held to: no queue before FEATURES_OK, no DRIVER_OK without it, no early notification`() throws {
    let driver = try HandDriver()
    driver.status(1)
    driver.enable(0)
    #expect(driver.model.bus.complaints.contains { $0.contains("before FEATURES_OK") })
    let other = try HandDriver()
    other.status(7)
    #expect(other.model.bus.complaints.contains { $0.contains("DRIVER_OK without FEATURES_OK") })
    let third = try HandDriver()
    third.negotiate(Self.plain)
    third.enable(1)
    third.notify(1)
    third.card.step()
    #expect(third.model.bus.complaints == ["queue 1 notified before DRIVER_OK"])
  }

  @Test func `bus mastering off means no DMA`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain)
    driver.describe(0, 0, 0x8000, 2048, flags: 2)
    driver.offer(0, 0)
    driver.card.setBusMaster(false)
    driver.wire.send(frame)
    driver.card.step()
    #expect(driver.used(0) == 0)
    driver.card.setBusMaster(true)
    driver.card.step()
    #expect(driver.used(0) == 1)
  }

  @Test func `a device that is pulled out answers all ones`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain)
    driver.card.isRemoved = true
    #expect(driver.registers.read8(at: 20) == 0xff)
    #expect(driver.registers.read32(at: 4) == .max)
    #expect(driver.card.readConfig16(at: 0) == 0xffff)
    driver.status(0)
    driver.card.isRemoved = false
    #expect(driver.model.deviceStatus == 15)
  }
}
