// A function in use: registers, interrupts, events, DMA, reset, closing.

import CRingway
import DMAMemory
import DeviceIO
import PCI
import Platform
import SystemPackage
import Testing

@testable import VFIO

@Suite struct FunctionTests {
  let kernel: FakeKernel
  let function: VFIOFunction

  init() throws {
    kernel = try FakeKernel()
    function = try VFIOFunction.open(PCIAddress(FakeKernel.address), system: kernel, roots: kernel.roots)
    kernel.set { $0.log = [] }
  }

  // MARK: registers

  @Test func aMappableBARIsMappedOnceAndDirectly() throws {
    let space = try function.registers(bar: 0)
    #expect(space.count == 0x20000)
    space.write32(0xCAFE_F00D, at: 0x1FFFC)
    #expect(kernel.peek32(at: 0x1FFFC) == 0xCAFE_F00D)
    space.doorbell(at: 0x3818)?.ring(9)
    #expect(kernel.peek32(at: 0x3818) == 9)
    #expect(try function.registers(bar: 0) === space)
    #expect(space.read32(at: 0x20000) == .max)
  }

  @Test func anUnmappableBARIsReachedByMessages() throws {
    let space = try function.registers(bar: 2)
    space.write32(0x0102_0304, at: 4)
    space.write16(0xBEEF, at: 8)
    space.write8(0x7F, at: 10)
    #expect(kernel.peek32(at: (2 << 20) + 4) == 0x0102_0304 && kernel.peek32(at: (2 << 20) + 8) == 0x007F_BEEF)
    #expect(space.read32(at: 4) == 0x0102_0304 && space.read16(at: 8) == 0xBEEF && space.read8(at: 10) == 0x7F)
    space.doorbell(at: 4)?.ring(11)
    space.doorbell(at: 8)?.ring16(12)
    #expect(space.read32(at: 4) == 11 && space.read16(at: 8) == 12)
    #expect(space.doorbell(at: 32) == nil && space.doorbell(at: -4) == nil && space.doorbell(at: 2) == nil)
    #expect(space.read32(at: 32) == .max && space.read32(at: 30) == .max && space.read32(at: -4) == .max)
  }

  @Test func aBARWithAHoleIsReachedBothWays() throws {
    let space = try function.registers(bar: 3)
    #expect(space.count == 0x4000)
    for offset in [0, 0xFFC, 0x1000, 0x1FFC, 0x2000, 0x3FFC] {
      space.write32(UInt32(offset) + 1, at: offset)
      #expect(kernel.peek32(at: (3 << 20) + offset) == UInt32(offset) + 1)
      #expect(space.read32(at: offset) == UInt32(offset) + 1)
      let tail = try #require(space.doorbell(at: offset))
      tail.ring(UInt32(offset) + 2)
      #expect(kernel.peek32(at: (3 << 20) + offset) == UInt32(offset) + 2)
    }
    #expect(space.read32(at: 0x4000) == .max)
  }

  @Test(arguments: [-1, 1, 5, 6, 7])
  func otherBARsAreRefused(bar: Int) {
    #expect(throws: PCIFunctionError.noSuchBAR(function: FakeKernel.address, bar: bar)) { try function.registers(bar: bar) }
  }

  @Test func configurationSpaceIsRead() {
    #expect(function.readConfig8(at: 3) == 0x10 && function.readConfig16(at: 2) == 0x10D3)
    #expect(function.readConfig32(at: 0) == 0x10D3_8086 && function.readConfig32(at: 4096) == .max)
    function.writeConfig16(0x1234, at: 0x40)
    function.writeConfig32(0xABCD_EF01, at: 0x44)
    #expect(function.readConfig32(at: 0x40) == 0x1234 && function.readConfig32(at: 0x44) == 0xABCD_EF01)
  }

  // MARK: interrupts and events

  @Test func vectorsReachTheirEventfds() throws {
    let events = [try Shared(), try Shared()]
    try function.enableInterrupts([events[0].descriptor, -1, events[1].descriptor])
    #expect(kernel.script.withLock { $0.eventfds[2] } == [events[0].descriptor, -1, events[1].descriptor])
    try function.raiseInterrupt(2)
    #expect(events[0].drain() == 0 && events[1].drain() == 1)
    // Other descriptors: off, then on.
    try function.enableInterrupts([events[1].descriptor])
    function.disableInterrupts()
    function.disableInterrupts()
    #expect(kernel.log == ["interrupts 2 x3", "trigger 2 2", "interrupts 2 x0", "interrupts 2 x1", "interrupts 2 x0"])
  }

  @Test func tooManyVectorsAreRefused() throws {
    #expect(throws: PCIFunctionError.tooFewVectors(function: FakeKernel.address, wanted: 6, available: 5)) {
      try function.enableInterrupts([Int32](repeating: -1, count: 6))
    }
    #expect(kernel.log.isEmpty)
    // The machine itself may be short of vectors: the kernel answers with how many there are.
    kernel.set { $0.results["interrupts 2"] = 2 }
    #expect(throws: PCIFunctionError.tooFewVectors(function: FakeKernel.address, wanted: 3, available: 2)) {
      try function.enableInterrupts([-1, -1, -1])
    }
    kernel.set { $0.results = [:]; $0.errors["interrupts"] = .noDevice }
    #expect(throws: PCIFunctionError.gone(function: FakeKernel.address)) { try function.enableInterrupts([-1]) }
    kernel.set { $0.errors["interrupts"] = .noMemory }
    #expect(throws: PCIFunctionError.interrupts(function: FakeKernel.address, errno: ENOMEM)) {
      try function.enableInterrupts([-1])
    }
  }

  @Test func eventsAreTakenOnce() throws {
    let epoll = try Epoll()
    try epoll.add(function.eventDescriptor, token: 1)
    #expect(try epoll.wait(milliseconds: 0).isEmpty)
    #expect(function.takeEvents() == [])
    let (request, error) = kernel.script.withLock { ($0.eventfds[4]![0], $0.eventfds[3]![0]) }
    EventFD.signal(request)
    #expect(try epoll.wait(milliseconds: 0).count == 1)
    #expect(function.takeEvents() == .removalRequested)
    EventFD.signal(error)
    EventFD.signal(request)
    #expect(function.takeEvents() == [.removalRequested, .deviceError])
    #expect(try epoll.wait(milliseconds: 0).isEmpty)
  }

  // MARK: faults

  @Test func aPulledCardReadsAllOnesEverywhere() throws {
    let mapped = try function.registers(bar: 0)
    let ports = try function.registers(bar: 2)
    let tail = mapped.doorbell(at: 0x3818)
    #expect(!function.isGone)
    kernel.unplug()
    tail?.ring(1)
    #expect(function.takeEvents() == .registerFault)
    #expect(mapped.read32(at: 8) == .max && ports.read32(at: 0) == .max && function.readConfig32(at: 0) == .max)
    #expect(function.isGone && function.registersHaveFaulted)
    #expect(throws: PCIFunctionError.gone(function: FakeKernel.address)) { try function.reset() }
    function.close()
    #expect(mapped.read32(at: 8) == .max)
  }

  @Test func aResetMapsFaultedRegistersAgain() throws {
    let space = try function.registers(bar: 0)
    let tail = try #require(space.doorbell(at: 0x3818))
    _ = ftruncate(kernel.device.raw, 4096)
    #expect(space.read32(at: 0x8000) == .max)
    #expect(function.isGone)
    kernel.plug()
    for (offset, value) in [(0, UInt16(0x8086)), (2, 0x10D3), (4, 0x0402)] { kernel.poke16(value, offset) }
    try function.reset()
    #expect(!function.isGone && !function.registersHaveFaulted)
    tail.ring(5)
    #expect(kernel.peek32(at: 0x3818) == 5)
  }

  // MARK: DMA

  @Test func mappingsGoToTheKernelAndAreKeptTrackOf() throws {
    let memory = try Page()
    try function.map(memory.source, at: IOVA(rawValue: 0x10_0000))
    #expect(throws: DMAError.outOfRange(iova: IOVA(rawValue: 0xFEDF_F001), count: 4096)) {
      try function.map(memory.source, at: IOVA(rawValue: 0xFEDF_F001))
    }
    #expect(throws: DMAError.outOfRange(iova: IOVA(rawValue: .max - 5), count: 4096)) {
      try function.map(memory.source, at: IOVA(rawValue: .max - 5))
    }
    #expect(throws: DMAError.unmap(errno: ENOENT, count: 8192, iova: IOVA(rawValue: 0x10_0000))) {
      try function.unmap(IOVA(rawValue: 0x10_0000), count: 8192)
    }
    try function.unmap(IOVA(rawValue: 0x10_0000), count: 4096)
    #expect(throws: DMAError.unmap(errno: ENOENT, count: 4096, iova: IOVA(rawValue: 0x10_0000))) {
      try function.unmap(IOVA(rawValue: 0x10_0000), count: 4096)
    }
    #expect(kernel.log == ["map 0x100000 4096 flags 3", "unmap 0x100000"])
  }

  @Test func refusedMappingsAreTyped() throws {
    let memory = try Page()
    let iova = IOVA(rawValue: 0x1000)
    kernel.set { $0.errors["map"] = .noMemory; $0.lockLimit = 2048 }
    #expect(throws: DMAError.memoryLockLimit(wanted: 4096, limit: 2048)) { try function.map(memory.source, at: iova) }
    // Short of memory, not of the right to lock it.
    for limit in [1 << 20, nil] {
      kernel.set { $0.lockLimit = limit }
      #expect(throws: DMAError.map(errno: ENOMEM, count: 4096, iova: iova)) { try function.map(memory.source, at: iova) }
    }
    kernel.set { $0.errors["map"] = .fileExists }
    #expect(throws: DMAError.map(errno: EEXIST, count: 4096, iova: iova)) { try function.map(memory.source, at: iova) }
    kernel.set { $0.errors = [:] }
    try function.map(memory.source, at: iova)
    // The kernel says that there was nothing: no success is claimed.
    kernel.set { $0.mappings = [:] }
    #expect(throws: DMAError.unmap(errno: EINVAL, count: 4096, iova: iova)) { try function.unmap(iova, count: 4096) }
  }

  // MARK: reset and closing

  @Test func busMasteringIsOneBit() {
    let before = kernel.peek16(4)
    function.setBusMaster(true)
    #expect(kernel.peek16(4) == before | 4)
    function.setBusMaster(false)
    #expect(kernel.peek16(4) == before)
  }

  @Test func resetSwitchesEverythingOffFirst() throws {
    let event = try Shared()
    try function.enableInterrupts([event.descriptor])
    function.setBusMaster(true)
    kernel.set { $0.log = [] }
    try function.reset()
    #expect(kernel.log == ["interrupts 2 x0", "reset command quiet"])
    #expect(kernel.peek16(4) & 4 == 0)
    kernel.set { $0.errors["reset"] = .ioError }
    #expect(throws: PCIFunctionError.reset(function: FakeKernel.address, errno: EIO)) { try function.reset() }
  }

  @Test func closingGoesOneWay() throws {
    let event = try Shared()
    let space = try function.registers(bar: 0)
    space.write32(1, at: 0)
    let memory = try Page()
    try function.enableInterrupts([event.descriptor, -1])
    try function.map(memory.source, at: IOVA(rawValue: 0x1000))
    function.setBusMaster(true)
    kernel.set { $0.log = [] }
    function.close()
    #expect(
      kernel.log == [
        "interrupts 2 x0", "interrupts 4 x0", "interrupts 3 x0", "unmap 0x1000", "reset command quiet",
      ])
    function.close()
    #expect(kernel.log.count == 5)
    // What is left answers as a card that is gone.
    #expect(space.read32(at: 0) == .max && kernel.peek32(at: 0) == 1)
    #expect(function.isGone && function.takeEvents() == [])
    #expect(throws: PCIFunctionError.gone(function: FakeKernel.address)) { try function.registers(bar: 0) }
    #expect(throws: PCIFunctionError.gone(function: FakeKernel.address)) { try function.reset() }
    #expect(throws: PCIFunctionError.gone(function: FakeKernel.address)) { try function.enableInterrupts([-1]) }
    #expect(throws: DMAError.gone) { try function.map(memory.source, at: IOVA(rawValue: 0x1000)) }
    function.setBusMaster(true)
    #expect(kernel.peek16(4) & 4 == 0)
  }

  @Test func aDroppedFunctionIsClosedAndItsRegistersStayReadable() throws {
    let kernel = try FakeKernel()
    var function: VFIOFunction? = try VFIOFunction.open(PCIAddress(FakeKernel.address), system: kernel, roots: kernel.roots)
    let space = try #require(function).registers(bar: 0)
    let ports = try #require(function).registers(bar: 2)
    space.write32(7, at: 0)
    kernel.set { $0.log = [] }
    function = nil
    #expect(kernel.log == ["interrupts 4 x0", "interrupts 3 x0", "reset command quiet"])
    #expect(space.read32(at: 0) == .max && ports.read32(at: 0) == .max)
  }

  @Test func closingGoesOnWhenTheCardIsGone() throws {
    let memory = try Page()
    try function.map(memory.source, at: IOVA(rawValue: 0x1000))
    kernel.set { $0.errors = ["reset": .noDevice, "interrupts": .noDevice, "unmap": .noDevice] }
    kernel.unplug()
    function.close()
    #expect(function.isGone)
    #expect(throws: DMAError.gone) { try function.unmap(IOVA(rawValue: 0x1000), count: 4096) }
  }
}

/// An eventfd that can lie in an array.
final class Shared {
  private let event: EventFD
  init() throws { event = try EventFD() }
  var descriptor: Int32 { event.descriptor }
  func drain() -> UInt64 { event.drain() }
}

/// One page of memory to map.
final class Page {
  let file: OwnedDescriptor
  let source: DMASource
  init() throws {
    file = try memoryFile(4096)
    let base = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, 0)!
    source = unsafe DMASource(unsafe: base, count: 4096, descriptor: file.raw, fileOffset: 0)
  }
  deinit { _ = unsafe munmap(source.base, 4096) }
}
