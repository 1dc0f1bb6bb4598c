// The kernel's side of VFIO, as a card with a BAR of registers sees it: ioctls are played, memory
// files stand for the device.

import CRingway
import Glibc
import PCI
import Platform
import Synchronization
import SystemPackage
import Testing

@testable import VFIO

/// Plays VFIO for one card with
/// - BAR 0: 128 KiB, mappable; BAR 2: 32 ports, not mappable; BAR 3: 16 KiB with a hole at 4 KiB;
/// - five MSI-X vectors, error and request interrupts, power management at 0xC8.
final class FakeKernel: VFIOSystem {
  static let address = "0000:00:04.0"
  static let configOffset = 7 << 20

  /// What the kernel was asked, in words; and what it is to answer instead of success.
  struct Script {
    var log: [String] = []
    var openErrors: [String: Errno] = [:]
    /// By name of the request.
    var errors: [String: Errno] = [:]
    var results: [String: Int32] = [:]
    var lockLimit: Int?
    var device: Int32 = -1
    var eventfds: [Int: [Int32]] = [:]
    var mappings: [UInt64: UInt64] = [:]
    var deviceFlags: UInt32 = 3
    var viable = true
  }
  let script = Mutex(Script())
  let roots: SystemRoots
  let root: String
  /// The device's file: kept by the test as well, so that it can write registers and cut it short.
  let device: OwnedDescriptor

  init() throws {
    var template = Array("/tmp/vfio-tests-XXXXXX".utf8CString)
    let made = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) != nil }
    try #require(made, "mkdtemp")
    root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    roots = SystemRoots(under: root)
    device = try memoryFile(8 << 20)
    try makeTree()
    poke16(0x8086, 0)
    poke16(0x10D3, 2)
    poke16(0x0407, 4)  // bus mastering left on by somebody
    poke16(0x0010, 6)  // capability list
    poke16(0x0000, 8)
    poke16(0x0200, 10)
    poke16(0x8086, 0x2C)
    poke16(0xA01F, 0x2E)
    poke16(0x00C8, 0x34)
    poke16(0xD001, 0xC8)  // power management, next 0xD0
    poke16(0x0003, 0xCC)  // D3hot
    poke16(0xE005, 0xD0)  // MSI, next 0xE0
    poke16(0x0010, 0xE0)  // PCI Express, last
    poke16(0x2810, 0xE8)  // device control: no errors reported
  }

  deinit { remove(root) }

  // MARK: sysfs

  private func makeTree() throws {
    for directory in [
      "sys", "sys/bus", "sys/bus/pci", "sys/bus/pci/devices", "sys/kernel",
      "sys/kernel/iommu_groups", "sys/kernel/iommu_groups/7", "sys/kernel/iommu_groups/7/devices", "dev", "dev/vfio",
    ] { try makeDirectory(directory) }
    try addMember(FakeKernel.address, driver: "vfio-pci")
  }

  func makeDirectory(_ path: String) throws {
    let made = unsafe mkdir("\(root)/\(path)", 0o755)
    try #require(made == 0, "mkdir \(path)")
  }
  func link(_ path: String, to target: String) { _ = unsafe symlink(target, "\(root)/\(path)") }
  func unlink(_ path: String) { _ = unsafe CRingway.unlink("\(root)/\(path)") }

  /// Binds the card to a driver; nil to none.
  func bind(to driver: String?) {
    let path = "sys/bus/pci/devices/\(FakeKernel.address)/driver"
    unlink(path)
    if let driver { link(path, to: "../../../../bus/pci/drivers/\(driver)") }
  }

  /// Puts a function into the group.
  func addMember(_ address: String, driver: String?) throws {
    let path = "sys/bus/pci/devices/\(address)"
    try makeDirectory(path)
    for (name, text) in [("vendor", "0x8086"), ("device", "0x10d3"), ("class", "0x020000")] {
      try Files.write(text + "\n", to: "\(root)/\(path)/\(name)", create: true)
    }
    link(path + "/iommu_group", to: "../../../../kernel/iommu_groups/7")
    link("sys/kernel/iommu_groups/7/devices/\(address)", to: "../../../../bus/pci/devices/\(address)")
    if let driver { link(path + "/driver", to: "../../../../bus/pci/drivers/\(driver)") }
  }

  private func remove(_ path: String) {
    if (try? Files.linkTarget(path)) == nil {
      for name in (try? Files.list(path)) ?? [] { remove("\(path)/\(name)") }
    }
    if unsafe CRingway.unlink(path) != 0 { _ = unsafe rmdir(path) }
  }

  // MARK: the device's file

  func poke16(_ value: UInt16, _ offset: Int) {
    var value = value
    _ = unsafe pwrite(device.raw, &value, 2, off_t(FakeKernel.configOffset + offset))
  }
  func peek16(_ offset: Int) -> UInt16 {
    var value: UInt16 = 0
    _ = unsafe pread(device.raw, &value, 2, off_t(FakeKernel.configOffset + offset))
    return value
  }
  func peek32(at offset: Int) -> UInt32 {
    var value: UInt32 = 0
    _ = unsafe pread(device.raw, &value, 4, off_t(offset))
    return value
  }
  /// The card is pulled out: reads fail, and mapped registers fault.
  func unplug() { _ = ftruncate(device.raw, 0) }
  func plug() { _ = ftruncate(device.raw, 8 << 20) }

  var log: [String] { script.withLock { $0.log } }
  func set(_ change: (inout Script) -> Void) { script.withLock { change(&$0) } }

  // MARK: VFIOSystem

  var memoryLockLimit: Int? { script.withLock { $0.lockLimit } }

  func open(_ path: String) throws(Errno) -> OwnedDescriptor {
    let name = String(path.dropFirst(roots.dev.count + "/vfio/".count))
    if let error = script.withLock({ $0.openErrors[name] }) { throw error }
    script.withLock { $0.log.append("open \(name)") }
    let raw = unsafe rw_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard raw >= 0 else { throw Errno(rawValue: rw_errno()) }
    // A group can be opened once; a lock of the open file goes with its last descriptor.
    // A test that has just forked holds a copy until it executes: a moment's patience.
    var tries = 20
    while name == "7", flock(raw, LOCK_EX | LOCK_NB) != 0 {
      tries -= 1
      guard tries > 0 else {
        _ = close(raw)
        throw .resourceBusy
      }
      MonotonicClock().sleep(nanoseconds: 2_000_000)
    }
    return OwnedDescriptor(taking: raw)
  }

  /// Notes the request, and gives the error that the script has for it.
  private func note(_ name: String, _ details: String = "") throws(Errno) {
    let error = script.withLock { script -> Errno? in
      // The command register when the request came: closing must switch bus mastering off first.
      script.log.append(details.isEmpty ? name : "\(name) \(details)")
      return script.errors[name]
    }
    if let error { throw error }
  }

  func control(_ descriptor: Int32, _ request: UInt, value: UInt) throws(Errno) -> Int32 {
    switch request {
    case RW_VFIO_GET_API_VERSION:
      try note("version")
      return script.withLock { $0.results["version"] ?? 0 }
    case RW_VFIO_CHECK_EXTENSION:
      return script.withLock { $0.results["extension \(value)"] ?? (value == 3 ? 1 : 0) }
    case RW_VFIO_SET_IOMMU: try note("set iommu", "\(value)")
    case RW_VFIO_DEVICE_RESET: try note("reset", "command \(peek16(4) & 4 == 0 ? "quiet" : "mastering")")
    default: throw .invalidArgument
    }
    return 0
  }

  func control(_ descriptor: Int32, _ request: UInt, _ bytes: inout [UInt8]) throws(Errno) -> Int32 {
    switch request {
    case RW_VFIO_GROUP_GET_STATUS:
      try note("status")
      bytes.set(script.withLock { $0.viable ? UInt32(1) : 0 }, at: 4)
    case RW_VFIO_GROUP_SET_CONTAINER: try note("set container")
    case RW_VFIO_GROUP_GET_DEVICE_FD:
      try note("device", String(decoding: bytes.dropLast(), as: UTF8.self))
      let raw = rw_fcntl(device.raw, F_DUPFD_CLOEXEC, 0)
      script.withLock { $0.device = raw }
      return raw
    case RW_VFIO_IOMMU_GET_INFO: return iommuInfo(&bytes)
    case RW_VFIO_DEVICE_GET_INFO:
      try note("device info")
      bytes.set(script.withLock { $0.deviceFlags }, at: 4)
      bytes.set(UInt32(9), at: 8)
      bytes.set(UInt32(5), at: 12)
    case RW_VFIO_DEVICE_GET_REGION_INFO: regionInfo(&bytes)
    case RW_VFIO_DEVICE_GET_IRQ_INFO:
      let kind = bytes.field(UInt32.self, at: 8)!
      bytes.set(UInt32(kind == 0 ? 7 : 9), at: 4)
      bytes.set(UInt32(kind == 2 ? 5 : 1), at: 12)
    case RW_VFIO_DEVICE_SET_IRQS: return try setInterrupts(bytes)
    case RW_VFIO_IOMMU_MAP_DMA:
      let (iova, size) = (bytes.field(UInt64.self, at: 16)!, bytes.field(UInt64.self, at: 24)!)
      try note("map", "0x\(String(iova, radix: 16)) \(size) flags \(bytes.field(UInt32.self, at: 4)!)")
      script.withLock { $0.mappings[iova] = size }
    case RW_VFIO_IOMMU_UNMAP_DMA:
      let iova = bytes.field(UInt64.self, at: 8)!
      try note("unmap", "0x\(String(iova, radix: 16))")
      bytes.set(script.withLock { $0.mappings.removeValue(forKey: iova) ?? 0 }, at: 16)
    default: throw .invalidArgument
    }
    return 0
  }

  private func iommuInfo(_ bytes: inout [UInt8]) -> Int32 {
    var answer = Answer.iommu(flags: 3, sizes: 0x4020_1000, chain: 24)
    answer.append(id: 1, next: 72, [2, 0, 0, 0, 0xFEDF_FFFF, 0, 0xFEF0_0000, 0, 0xFFFF_FFFF, 0x7F])
    answer.append(id: 3, next: 0, [65535])
    return give(answer, &bytes)
  }

  /// As the kernel does: the whole answer where there is room, else the fixed part and the size.
  private func give(_ answer: Answer, _ bytes: inout [UInt8]) -> Int32 {
    if bytes.count >= answer.bytes.count {
      bytes.replaceSubrange(0..<answer.bytes.count, with: answer.bytes)
    } else {
      bytes.set(UInt32(answer.bytes.count), at: 0)
    }
    return 0
  }

  private func regionInfo(_ bytes: inout [UInt8]) {
    let index = bytes.field(UInt32.self, at: 8)!
    var answer: Answer
    switch index {
    case 0: answer = Answer.region(flags: 7, size: 0x20000, offset: 0)
    case 2: answer = Answer.region(flags: 3, size: 32, offset: 2 << 20)
    case 3:
      answer = Answer.region(flags: 15, chain: 32, size: 0x4000, offset: 3 << 20)
      answer.append(id: 1, next: 0, [2, 0, 0, 0, 0x1000, 0, 0x2000, 0, 0x2000, 0])
    case 7: answer = Answer.region(flags: 3, size: 4096, offset: UInt64(FakeKernel.configOffset))
    default: answer = Answer.region(flags: 0, size: 0, offset: UInt64(index) << 20)
    }
    answer.bytes.set(index, at: 8)
    _ = give(answer, &bytes)
  }

  private func setInterrupts(_ bytes: [UInt8]) throws(Errno) -> Int32 {
    let kind = Int(bytes.field(UInt32.self, at: 8)!)
    let flags = bytes.field(UInt32.self, at: 4)!
    let count = Int(bytes.field(UInt32.self, at: 16)!)
    if flags == 0x21, count == 1 {
      let vector = Int(bytes.field(UInt32.self, at: 12)!)
      try note("trigger", "\(kind) \(vector)")
      let descriptors = script.withLock { $0.eventfds[kind] ?? [] }
      guard vector < descriptors.count else { throw .invalidArgument }
      EventFD.signal(descriptors[vector])
      return 0
    }
    try note("interrupts", "\(kind) x\(count)")
    guard flags == (count == 0 ? 0x21 : 0x24), bytes.count == 20 + 4 * count else { throw .invalidArgument }
    let result = script.withLock { $0.results["interrupts \(kind)"] ?? 0 }
    if result == 0 {
      let descriptors = (0..<count).map { bytes.field(Int32.self, at: 20 + 4 * $0)! }
      script.withLock { $0.eventfds[kind] = descriptors }
    }
    return result
  }
}
