// A device behind a vfio-user socket: what a driver does with it, and what the server is asked.

import CRingway
import DMAMemory
import DeviceIO
import Glibc
import PCI
import Platform
import Synchronization
import SystemPackage
import Testing

@testable import VFIO

@Suite struct UserTests {
  let server: FakeServer

  init() throws { server = try FakeServer() }

  // MARK: opening

  @Test func aFunctionComesAsFromTheKernel() throws {
    let function = try server.open()
    #expect(function.name == "vfio-user:test" && function.interruptVectors == 64)
    #expect(
      function.identity == PCIIdentity(vendor: 0x8086, device: 0x10FB, subsystemVendor: 0x8086, classCode: 0x020000))
    #expect(function.iovaRanges == [0...0xFFFF_FFFF_FFFF] && function.iovaPageSize == 4096)
    #expect(server.log.prefix(2) == ["version", "reset"])
    #expect(server.script.withLock { $0.config[4] & 6 } == 2, "memory decoding on, bus mastering off")
    #expect(!function.isGone && function.takeEvents() == [])
    function.setBusMaster(true)
    #expect(server.script.withLock { $0.config[4] & 6 } == 6)
    function.close()
    function.close()
    #expect(server.script.withLock { $0.config[4] & 4 } == 0)
    #expect(server.log.suffix(1) == ["reset"])
    #expect(function.isGone && function.takeEvents() == [])
  }

  @Test func aListeningSocketIsFoundByItsPath() throws {
    let path = "/tmp/vfio-user-\(getpid()).sock"
    defer { _ = unsafe unlink(path) }
    #expect(throws: VFIOError.noServer(path: path, errno: .noSuchFileOrDirectory)) { try VFIOFunction.open(socket: path) }
    #expect(throws: VFIOError.noServer(path: "", errno: .invalidArgument)) { try VFIOFunction.open(socket: "") }
    let long = "/tmp/" + String(repeating: "x", count: 108)
    #expect(throws: VFIOError.noServer(path: long, errno: .fileNameTooLong)) { try VFIOFunction.open(socket: long) }
    _ = close(unsafe creat(path, 0o600))
    #expect(throws: VFIOError.noServer(path: path, errno: .connectionRefused)) { try VFIOFunction.open(socket: path) }
    #expect("\(VFIOError.noServer(path: path, errno: .connectionRefused))".contains("ringway-model 82599 --socket \(path)"))
  }

  // MARK: registers

  @Test func sparseAreasAreMemoryAndTheRestIsMessages() throws {
    let function = try server.open()
    let space = try function.registers(bar: 0)
    server.set { $0.log = [] }
    #expect(space.count == 0x20000)
    space.doorbell(at: 0x1018)?.ring(7)
    space.doorbell(at: 0x7FFC)?.ring16(9)
    space.write32(0xCAFE_F00D, at: 0x6018)
    #expect(server.peek32(at: 0x1018) == 7 && server.peek32(at: 0x7FFC) == 9 && server.peek32(at: 0x6018) == 0xCAFE_F00D)
    #expect(space.read32(at: 0x6018) == 0xCAFE_F00D && server.log.isEmpty)
    space.write32(0x0102_0304, at: 0x8)
    #expect(space.read32(at: 0x8) == 0x0102_0304 && space.read8(at: 0x8) == 4)
    #expect(server.log == ["write 0 0x8 16909060"], "a write waits, because there are doorbells beside it")
    #expect(try function.registers(bar: 0) === space)
    #expect(space.read32(at: 0x20000) == .max && space.doorbell(at: 0x20000) == nil)
  }

  @Test func doorbellsThatAreNotMappedAreMessages() throws {
    server.set { $0.areas = [] }
    let function = try server.open()
    let space = try function.registers(bar: 0)
    let tail = try #require(space.doorbell(at: 0x1018))
    let notify = try #require(space.doorbell(at: 0x3000))
    server.set { $0.log = [] }
    space.write32(1, at: 0x1028)
    tail.ring(5)
    notify.ring16(2)
    #expect(space.read32(at: 0x1018) == 5, "a read waits for the writes before it")
    #expect(server.log == ["write 0 0x1028 1 posted", "write 0 0x1018 5 posted", "write 0 0x3000 2 posted"])
    // Bus mastering is a write that waits.
    function.setBusMaster(true)
    #expect(server.log.last == "write 7 0x4 1030")
  }

  @Test func wholeBARsAreMappedWhole() throws {
    let function = try server.open()
    let space = try function.registers(bar: 4)
    server.set { $0.log = [] }
    space.write32(3, at: 0x3FFC)
    #expect(server.peek32(at: 0x23FFC) == 3 && server.log.isEmpty)
    let ports = try function.registers(bar: 2)
    ports.write16(0xBEEF, at: 0x10)
    #expect(ports.read16(at: 0x10) == 0xBEEF && ports.read32(at: 0x10) == 0xBEEF)
    for bar in [-1, 1, 3, 6, 7] {
      #expect(throws: PCIFunctionError.noSuchBAR(function: "vfio-user:test", bar: bar)) { try function.registers(bar: bar) }
    }
  }

  @Test func aRegionWithoutItsFileIsReachedByMessages() throws {
    server.set { script in
      script.tamper = { request, answer in
        var answer = answer
        if request.command == 5 { answer.descriptors = [] }
        return [answer]
      }
    }
    let function = try server.open()
    let space = try function.registers(bar: 0)
    space.doorbell(at: 0x1018)?.ring(5)
    #expect(space.read32(at: 0x1018) == 5 && server.peek32(at: 0x1018) == 0)
  }

  // MARK: interrupts

  @Test func vectorsGoInAsManyMessagesAsTheServerTakes() throws {
    let function = try server.open()
    let events = try (0..<4).map { _ in try Shared() }
    server.set { $0.log = [] }
    try function.enableInterrupts([events[0].descriptor, events[1].descriptor, events[2].descriptor, -1, -1, events[3].descriptor])
    #expect(
      server.log == [
        "interrupts 2 flags 36 0+2 with 2", "interrupts 2 flags 36 2+1 with 1", "interrupts 2 flags 36 3+2 with 0",
        "interrupts 2 flags 36 5+1 with 1",
      ])
    try function.raiseInterrupt(2)
    try function.raiseInterrupt(5)
    #expect(events.map { $0.drain() } == [0, 0, 1, 1])
    server.set { $0.log = [] }
    function.disableInterrupts()
    #expect(server.log == ["interrupts 2 flags 33 0+0 with 0"])
    server.set { $0.refuse[8] = UInt32(ENOMEM) }
    #expect(throws: PCIFunctionError.interrupts(function: "vfio-user:test", errno: ENOMEM)) {
      try function.enableInterrupts([events[0].descriptor])
    }
    #expect(!function.isGone, "a refusal is no end")
  }

  // MARK: DMA

  @Test func memoryIsHandedOverByItsFile() throws {
    let function = try server.open()
    let page = try Page()
    let iova = IOVA(rawValue: 0x10_0000)
    server.set { $0.log = [] }
    try function.map(page.source, at: iova)
    #expect(server.log == ["map 1048576 4096 offset 0 flags 3 with 1"])
    let theirs = try #require(server.script.withLock { $0.memory[0x10_0000]?.file })
    var word: UInt32 = 0xFEED
    #expect(unsafe pwrite(theirs, &word, 4, 16) == 4)
    #expect(unsafe page.source.base.load(fromByteOffset: 16, as: UInt32.self) == 0xFEED)
    #expect(throws: DMAError.map(errno: EEXIST, count: 4096, iova: iova)) { try function.map(page.source, at: iova) }
    #expect(throws: DMAError.unmap(errno: ENOENT, count: 8192, iova: iova)) { try function.unmap(iova, count: 8192) }
    try function.unmap(iova, count: 4096)
    #expect(server.log.last == "unmap 1048576")
    let anonymous = unsafe DMASource(unsafe: page.source.base, count: 4096, descriptor: -1, fileOffset: 0)
    #expect(throws: DMAError.notShareable(count: 4096)) { try function.map(anonymous, at: iova) }
    let far = IOVA(rawValue: 1 << 48)
    #expect(throws: DMAError.outOfRange(iova: far, count: 4096)) { try function.map(page.source, at: far) }
    server.set { $0.refuse[2] = UInt32(ENOSPC) }
    #expect(throws: DMAError.map(errno: ENOSPC, count: 4096, iova: iova)) { try function.map(page.source, at: iova) }
    server.set { $0.refuse = [:] }
    try function.map(page.source, at: iova)
    function.close()
    #expect(server.log.contains("unmap 1048576") && server.script.withLock { $0.memory.isEmpty })
    #expect(throws: DMAError.gone) { try function.map(page.source, at: iova) }
  }

  @Test func theServersLimitOfMappingsHolds() throws {
    server.set { $0.capabilities = #"{"capabilities":{"max_dma_maps":2,"pgsizes":65536}}"# }
    let function = try server.open()
    #expect(function.iovaPageSize == 65536)
    let page = try Page()
    for place in 1...2 { try function.map(page.source, at: IOVA(rawValue: UInt64(place) << 20)) }
    #expect(throws: DMAError.map(errno: ENOSPC, count: 4096, iova: IOVA(rawValue: 3 << 20))) {
      try function.map(page.source, at: IOVA(rawValue: 3 << 20))
    }
  }
}

@Suite struct UserVersionTests {
  func parse(_ text: String?, _ version: [UInt8] = [0, 0, 1, 0]) throws(VFIOMalformed) -> UserCapabilities {
    try UserCapabilities(version + (text.map { Array($0.utf8) + [0] } ?? []))
  }

  @Test func whatIsLeftOutHasADefault() throws {
    #expect(try parse(nil) == UserCapabilities() && parse("{}") == UserCapabilities())
    let all = try parse(#" {"capabilities": {"max_msg_fds":8,"max_data_xfer_size":4096, "max_dma_maps" :3,"pgsizes":2097152,"migration":{"pgsize":4096,"x":[1,"}",null,true]}}} "#)
    #expect(all.descriptors == 8 && all.transfer == 4096 && all.mappings == 3 && all.pageSize == 2 << 20)
    #expect(try parse(#"{"capabilities":{"pgsizes":1}}"#).pageSize == 4096)
    #expect(try parse(#"{"max_msg_fds":9}"#).descriptors == 1, "outside of the capabilities it means nothing")
  }

  @Test(arguments: [
    "{", "}", #"{"capabilities":}"#, #"{"capabilities":{}"#, "{} x", #"{"a\"#, #"{"capabilities":{"max_msg_fds":-1}}"#,
    #"{"capabilities":{"pgsizes":0}}"#, #"{"capabilities":{"pgsizes":4294967296}}"#, #"{"capabilities":{"max_dma_maps":1e400}}"#,
    #"{"capabilities":{"max_data_xfer_size":4}}"#, "nul", "--1", String(repeating: "[", count: 10000),
  ])
  func nonsenseIsRefused(text: String) {
    #expect(throws: VFIOMalformed.self) { try parse(text) }
  }

  @Test func otherVersionsAreRefused() {
    for version: [UInt8] in [[1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 1], []] {
      #expect(throws: VFIOMalformed.self) { try parse("{}", version) }
    }
  }
}
