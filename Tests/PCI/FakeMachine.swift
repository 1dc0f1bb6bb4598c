// A machine in a directory: sysfs, proc and the rest as files, and a kernel that binds drivers.

import Glibc

@testable import PCI

/// Trees to scan and to bind in. Not for two threads.
final class FakeMachine {
  let root: String
  var roots: SystemRoots { SystemRoots(under: root) }

  init() {
    var template = Array("/tmp/ringway-pci-XXXXXX".utf8CString)
    root = unsafe template.withUnsafeMutableBufferPointer { unsafe String(cString: mkdtemp($0.baseAddress!)) }
    directory("sys/bus/pci/devices")
    directory("sys/bus/pci/drivers")
    file("sys/bus/pci/drivers_probe", "")
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nring:x:\(getuid()):1000::/:/bin/sh\n")
    file("etc/group", "root:x:0:\nring:x:\(getgid()):\n")
  }

  deinit { Self.removeAll(root) }

  private static func removeAll(_ path: String) {
    if SystemFiles.link(path) == nil {
      for name in SystemFiles.list(path) { removeAll("\(path)/\(name)") }
    }
    if unsafe unlink(path) != 0 { _ = unsafe rmdir(path) }
  }

  func directory(_ path: String) {
    do { try MachineEffects().makeDirectory("\(root)/\(path)") } catch { fatalError("\(error)") }
  }

  func file(_ path: String, _ text: String) { file(path, bytes: Array(text.utf8)) }

  func file(_ path: String, bytes: [UInt8]) {
    directory(path.split(separator: "/").dropLast().joined(separator: "/"))
    let stream = unsafe fopen("\(root)/\(path)", "w")!
    _ = unsafe bytes.withUnsafeBytes { unsafe fwrite($0.baseAddress, 1, $0.count, stream) }
    unsafe fclose(stream)
  }

  func link(_ path: String, _ target: String) {
    directory(path.split(separator: "/").dropLast().joined(separator: "/"))
    _ = unsafe unlink("\(root)/\(path)")
    precondition(unsafe symlink(target, "\(root)/\(path)") == 0)
  }

  func remove(_ path: String) { Self.removeAll("\(root)/\(path)") }
  func text(_ path: String) -> String? { SystemFiles.text("\(root)/\(path)") }

  /// A driver module; `serves` are `vendor:device` names, `interface` what it makes on a card.
  func addDriver(_ name: String, serves: [String] = [], interface: String? = nil) {
    file("sys/bus/pci/drivers/\(name)/unbind", "")
    drivers[name] = (serves, interface)
  }
  var drivers: [String: (serves: [String], interface: String?)] = [:]

  @discardableResult func addDevice(
    _ address: String, vendor: UInt16 = 0x8086, device: UInt16 = 0x10d3, classCode: UInt32 = 0x020000,
    group: Int? = 7, driver: String? = nil, override: String? = nil
  ) -> PCIAddress {
    let path = "sys/bus/pci/devices/\(address)"
    file("\(path)/vendor", "0x\(hex(vendor, digits: 4))\n")
    file("\(path)/device", "0x\(hex(device, digits: 4))\n")
    file("\(path)/class", "0x\(hex(classCode, digits: 6))\n")
    file("\(path)/subsystem_vendor", "0x8086\n")
    file("\(path)/subsystem_device", "0x0001\n")
    file("\(path)/revision", "0x02\n")
    file("\(path)/numa_node", "-1\n")
    file("\(path)/driver_override", (override ?? "(null)") + "\n")
    if let group {
      link("\(path)/iommu_group", "../../../kernel/iommu_groups/\(group)")
      link("sys/kernel/iommu_groups/\(group)/devices/\(address)", "../../../../bus/pci/devices/\(address)")
    }
    if let driver { attach(address, driver) }
    return try! PCIAddress(address)
  }

  func attach(_ address: String, _ driver: String) {
    link("sys/bus/pci/devices/\(address)/driver", "../../../bus/pci/drivers/\(driver)")
    if let interface = drivers[driver]?.interface {
      file("sys/bus/pci/devices/\(address)/net/\(interface)\(address.suffix(1))/address", "02:00:00:00:00:01\n")
    }
    if driver == "vfio-pci", let group = SystemFiles.linkName("\(root)/sys/bus/pci/devices/\(address)/iommu_group") {
      file("dev/vfio/\(group)", "")
    }
  }

  func detach(_ address: String) {
    if SystemFiles.linkName("\(root)/sys/bus/pci/devices/\(address)/driver") == "vfio-pci",
      let group = SystemFiles.linkName("\(root)/sys/bus/pci/devices/\(address)/iommu_group")
    {
      remove("dev/vfio/\(group)")
    }
    remove("sys/bus/pci/devices/\(address)/driver")
    remove("sys/bus/pci/devices/\(address)/net")
  }

  /// Every file and link with what is in it, the lock apart.
  func snapshot() -> [String: String] {
    var result: [String: String] = [:]
    func walk(_ path: String) {
      if let target = SystemFiles.link(path) {
        result[path] = "-> " + target
      } else if let bytes = SystemFiles.bytes(path) {
        result[path] = String(decoding: bytes, as: UTF8.self)
      } else {
        for name in SystemFiles.list(path) where name != "lock" { walk("\(path)/\(name)") }
      }
    }
    walk(root)
    return result
  }
}

/// The kernel's side of bind and unbind, with a process that may be stopped before any of its
/// changes. Once stopped it changes nothing any more.
final class SimulatedKernel: SystemEffects {
  let machine: FakeMachine
  private let real = MachineEffects()
  /// Changes left before the stop.
  var budget: Int?
  private(set) var changes = 0
  private(set) var isDead = false
  /// Drivers that fail to start a card.
  var refusing: Set<String> = []
  /// Called before each change, with its number.
  var observe: (Int) -> Void = { _ in }

  init(_ machine: FakeMachine, stopAfter budget: Int? = nil) {
    self.machine = machine
    self.budget = budget
  }

  private func change(_ path: String, _ body: () throws(EffectError) -> Void) throws(EffectError) {
    observe(changes)
    if isDead || budget == changes {
      isDead = true
      throw EffectError(operation: "stopped", path: path, errno: EINTR)
    }
    changes += 1
    try body()
  }

  func writeAttribute(_ text: String, at path: String) throws(EffectError) {
    try change(path) { () throws(EffectError) in
      guard SystemFiles.exists(path) else { throw EffectError(operation: "open", path: path, errno: ENOENT) }
      let parts = path.split(separator: "/").map(String.init)
      let value = SystemFiles.trim(text)
      if path.hasSuffix("/driver_override") {
        try real.createFile(path, text: value.isEmpty ? "(null)\n" : value + "\n")
      } else if path.hasSuffix("/unbind") {
        guard driver(value) == parts[parts.count - 2] else {
          throw EffectError(operation: "write", path: path, errno: ENODEV)
        }
        machine.detach(value)
      } else if path.hasSuffix("/drivers_probe") {
        if driver(value) == nil, let chosen = choose(value) { machine.attach(value, chosen) }
      } else {
        throw EffectError(operation: "write", path: path, errno: EACCES)
      }
    }
  }

  func driver(_ address: String) -> String? {
    SystemFiles.linkName("\(machine.root)/sys/bus/pci/devices/\(address)/driver")
  }

  /// driver_override first; else whoever lists the card. vfio-pci lists none.
  private func choose(_ address: String) -> String? {
    let path = "sys/bus/pci/devices/\(address)"
    let override = machine.text("\(path)/driver_override") ?? "(null)"
    let loaded = SystemFiles.list("\(machine.root)/sys/bus/pci/drivers").filter { !refusing.contains($0) }
    if override != "(null)" { return loaded.first { $0 == override } }
    let card = [machine.text("\(path)/vendor"), machine.text("\(path)/device")].map { String($0!.dropFirst(2)) }
    return loaded.first { machine.drivers[$0]?.serves.contains(card.joined(separator: ":")) ?? false }
  }

  func makeDirectory(_ path: String) throws(EffectError) {
    try change(path) { () throws(EffectError) in try real.makeDirectory(path) }
  }
  /// A stop in the middle of a write leaves half of it.
  func createFile(_ path: String, text: String) throws(EffectError) {
    if budget == changes && !isDead { try real.createFile(path, text: String(text.prefix(text.count / 2))) }
    try change(path) { () throws(EffectError) in try real.createFile(path, text: text) }
  }
  func rename(_ old: String, to new: String) throws(EffectError) {
    try change(new) { () throws(EffectError) in try real.rename(old, to: new) }
  }
  func synchronizeDirectory(_ path: String) throws(EffectError) {
    try change(path) { () throws(EffectError) in try real.synchronizeDirectory(path) }
  }
  func remove(_ path: String) throws(EffectError) {
    try change(path) { () throws(EffectError) in try real.remove(path) }
  }
  func link(_ path: String, to target: String) throws(EffectError) {
    try change(path) { () throws(EffectError) in try real.link(path, to: target) }
  }
  func setOwner(_ path: String, user: UInt32?, group: UInt32?, mode: UInt32) throws(EffectError) {
    try change(path) { () throws(EffectError) in try real.setOwner(path, user: user, group: group, mode: mode) }
  }

  /// Interfaces given their settings back: "enp3s0 <- enp3s0", with a star where names alone.
  private(set) var restored: [String] = []
  func restoreInterface(_ settings: InterfaceSettings, current: String, nameOnly: Bool) throws(EffectError) {
    try change(settings.name) { () throws(EffectError) in
      restored.append("\(settings.name) <- \(current)\(nameOnly ? " *" : "")")
    }
  }
}
