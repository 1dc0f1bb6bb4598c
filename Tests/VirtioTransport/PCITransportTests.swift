import DMAMemory
import DeviceIO
import ModelKit
import Models
import PCI
import Testing

@testable import VirtioTransport

/// Configuration space alone: for lists of capabilities that lie.
final class BareFunction: PCIFunction {
  var name: String { "bare" }
  var identity: PCIIdentity { PCIIdentity(vendor: 0x1af4, device: 0x1041) }
  var space = [UInt8](repeating: 0, count: 256)
  var bar: (any RegisterSpace)?

  init() { space[6] = 0x10 }

  func put(_ at: Int, next: Int, length: UInt8 = 16, kind: UInt8, bar: UInt8 = 4, offset: UInt32 = 0, count: UInt32 = 64) {
    space[at..<at + 5] = [9, UInt8(next), length, kind, bar]
    for i in 0..<4 where at + 12 + i < 256 {
      space[at + 8 + i] = UInt8(truncatingIfNeeded: offset >> UInt32(8 * i))
      space[at + 12 + i] = UInt8(truncatingIfNeeded: count >> UInt32(8 * i))
    }
  }

  func readConfig8(at offset: Int) -> UInt8 { space.indices.contains(offset) ? space[offset] : .max }
  func readConfig16(at offset: Int) -> UInt16 { UInt16(readConfig8(at: offset)) | UInt16(readConfig8(at: offset + 1)) << 8 }
  func readConfig32(at offset: Int) -> UInt32 { UInt32(readConfig16(at: offset)) | UInt32(readConfig16(at: offset + 2)) << 16 }
  func writeConfig16(_ value: UInt16, at offset: Int) {}
  func writeConfig32(_ value: UInt32, at offset: Int) {}
  func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace {
    guard let space = self.bar, bar == 4 else { throw .noSuchBAR(function: name, bar: bar) }
    return space
  }
  var interruptVectors: Int { 0 }
  func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) {}
  func disableInterrupts() {}
  var eventDescriptor: Int32 { -1 }
  func takeEvents() -> PCIFunctionEvents { [] }
  func setBusMaster(_ on: Bool) {}
  func reset() throws(PCIFunctionError) {}
  var isGone: Bool { false }
  func close() {}
}

@Suite struct CapabilityTests {
  @Test func `structures are found behind other capabilities`() throws {
    let structures = try InProcessCard(VirtioNetModel()).virtioStructures()
    #expect(structures.map(\.kind) == [.common, .interruptStatus, .device, .notify, .pciAccess])
    #expect(structures.prefix(4).allSatisfy { $0.bar == 4 })
    #expect(structures.first { $0.kind == .notify }?.notifyMultiplier == 4)
  }

  @Test func `a list that runs in a circle ends`() {
    let function = BareFunction()
    function.space[0x34] = 0x40
    function.put(0x40, next: 0x50, kind: 1)
    function.put(0x50, next: 0x40, kind: 4)
    #expect(function.virtioStructures().count <= 48)
  }

  @Test func `what lies is passed over`() {
    let function = BareFunction()
    function.space[0x34] = 0x43
    function.put(0x40, next: 0x50, kind: 1, bar: 6)
    function.put(0x50, next: 0x60, length: 8, kind: 1)
    function.put(0x60, next: 0x70, kind: 77)
    function.put(0x70, next: 0x90, length: 20, kind: 2)
    function.space[0x80] = 3
    function.put(0xf4, next: 0, kind: 1)
    #expect(function.virtioStructures().isEmpty)
    function.put(0x70, next: 0xf4, kind: 3)
    // At 0xf4 the structure would reach past the end of configuration space.
    #expect(function.virtioStructures().map(\.kind) == [.interruptStatus])
    function.space[6] = 0
    #expect(function.virtioStructures().isEmpty)
  }

  @Test func `structures outside their registers are no structures`() {
    let function = BareFunction()
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { unsafe memory.deallocate() }
    function.bar = unsafe MMIOSpace(unsafe: memory, count: 4096, owner: nil)
    function.space[0x34] = 0x40
    for (offset, count): (UInt32, UInt32) in [(4090, 64), (0xffff_fff0, 64), (0, 0xffff_ffff), (0, 20)] {
      function.put(0x40, next: 0, kind: 1, offset: offset, count: count)
      #expect(throws: VirtioError.noStructure(device: "bare", structure: "common configuration")) {
        try VirtioPCITransport(function)
      }
    }
  }
}

@Suite struct HandshakeTests {
  let clock = ManualClock()

  @Test func `both sides agree on what both know`() throws {
    let model = try VirtioNetModel()
    let card = InProcessCard(model)
    let transport = try VirtioPCITransport(card)
    let agreed = try transport.negotiate(wanted: [.eventIndex, .inOrder], clock: clock)
    #expect(agreed == [.eventIndex, .version1, .accessPlatform])
    #expect(model.acceptedFeatures == agreed.rawValue)
    #expect(model.deviceStatus == 0b1011)
    #expect(model.bus.complaints.isEmpty)
  }

  @Test func `a device that ignores the IOMMU is refused by name`() throws {
    var options = VirtioNetModelOptions()
    options.features &= ~VirtioModelFeature.accessPlatform
    let transport = try VirtioPCITransport(InProcessCard(try VirtioNetModel(options)))
    let error = try #require(throws: VirtioError.self) { try transport.negotiate(wanted: [], clock: clock) }
    #expect(error.description.contains("VIRTIO_F_ACCESS_PLATFORM"))
    #expect(error.description.contains("iommu_platform=on,disable-legacy=on"))
  }

  @Test func `a legacy device is refused`() throws {
    var options = VirtioNetModelOptions()
    options.isModern = false
    let error = try #require(throws: VirtioError.self) { try VirtioPCITransport(InProcessCard(try VirtioNetModel(options))) }
    #expect(error.description.contains("disable-legacy=on"))
  }

  @Test func `features that are taken back, resets that do not end, and a device that is pulled out`() throws {
    let model = try VirtioNetModel()
    let card = InProcessCard(model)
    let transport = try VirtioPCITransport(card)
    model.refusesFeatures = true
    #expect(throws: VirtioError.self) { try transport.negotiate(wanted: [], clock: clock) }
    #expect(model.deviceStatus & 0x80 != 0)
    model.refusesFeatures = false
    model.ignoresReset = true
    let before = clock.now()
    #expect(throws: VirtioError.timeout(device: card.name, waitingFor: "the device status to read 0 after a reset")) {
      try transport.reset(clock: clock)
    }
    #expect(clock.now() - before < 2_000_000_000)
    card.isRemoved = true
    #expect(throws: VirtioError.gone(device: card.name)) { try transport.reset(clock: clock) }
    #expect(transport.queueCount() == 0)
    #expect(transport.queueCapacity(0) == 0)
  }

  @Test func `queues: sizes, addresses, vectors and notify addresses`() throws {
    var options = VirtioNetModelOptions()
    options.usableVectors = 2
    let model = try VirtioNetModel(options)
    let card = InProcessCard(model)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 65536, alignment: 4096)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: 65536)
    defer { unsafe memory.deallocate() }
    try card.map(unsafe DMASource(unsafe: memory, count: 65536, descriptor: -1, fileOffset: 0), at: IOVA(rawValue: 0x20_0000))
    let transport = try VirtioPCITransport(card)
    _ = try transport.negotiate(wanted: [], clock: clock)
    #expect(transport.queueCount() == 3)
    #expect(transport.queueCapacity(0) == 256)
    #expect(transport.queueCapacity(3) == 0)
    #expect(transport.queueCapacity(-1) == 0)
    let layout = try #require(SplitLayout(size: 128))
    let addresses = layout.addresses(at: IOVA(rawValue: 0x20_0000))
    for size in [0, 3, 512] {
      #expect(throws: VirtioError.self) { try transport.configure(queue: 0, size: size, at: addresses, vector: nil) }
    }
    #expect(throws: VirtioError.vector(device: card.name, vector: 2, what: "queue 0")) {
      try transport.configure(queue: 0, size: 128, at: addresses, vector: 2)
    }
    let notifier = try transport.configure(queue: 1, size: 128, at: addresses, vector: 1)
    transport.allowDMA(true)
    transport.setDriverOK()
    notifier.notify()
    card.step()
    #expect(model.notifications == [1: 1])
    #expect(model.bus.complaints.isEmpty)
  }

  @Test func `configuration is read again while it changes`() throws {
    let model = try VirtioNetModel()
    let card = InProcessCard(model)
    let transport = try VirtioPCITransport(card)
    var reads = 0
    let status = transport.readConfiguration { space in
      reads += 1
      if reads == 1 { model.setLink(up: false) }
      return space.read16(at: 6)
    }
    #expect(reads == 2)
    #expect(status == 0)
    let never: UInt16? = transport.readConfiguration { space in
      model.setLink(up: true)
      return space.read16(at: 6)
    }
    #expect(never == nil)
  }
}
