// Is this machine ready? One finding for each thing that VFIO and its memory need, each with the
// command that mends it.

import Glibc

/// How grave a finding is.
public enum FindingStatus: String, Sendable, Hashable {
  case ok, warn
  /// Something required is missing.
  case fail
}

/// What the doctor found about one thing.
public struct Finding: Hashable, Sendable {
  /// "iommu", "module vfio-pci", "card 0000:03:00.0".
  public let subject: String
  public let status: FindingStatus
  public let summary: String
  /// The command that mends it, to be run as root unless it says otherwise.
  public let remedy: String?

  init(_ subject: String, _ status: FindingStatus, _ summary: String, remedy: String? = nil) {
    self.subject = subject
    self.status = status
    self.summary = summary
    self.remedy = remedy
  }
}

/// Examines the machine below `roots`. Changes nothing and needs no privilege; what the caller may
/// not see is reported as such.
public struct Doctor {
  let roots: SystemRoots
  let supported: [SupportedCard]
  /// Whether the caller may open a node for reading and writing.
  let mayOpen: (String) -> Bool

  public init(
    roots: SystemRoots = SystemRoots(), supported: [SupportedCard], mayOpen: @escaping (String) -> Bool = Self.mayOpen
  ) {
    self.roots = roots
    self.supported = supported
    self.mayOpen = mayOpen
  }

  /// access(2) for reading and writing.
  public static func mayOpen(_ path: String) -> Bool {
    // SAFETY: the path is a string that lives for the call.
    unsafe access(path, R_OK | W_OK) == 0
  }

  /// Everything, from the firmware upwards.
  public func examine() -> [Finding] {
    iommu() + noIOMMU() + modules() + cards() + nodes() + memlock() + hugepages() + journals()
  }

  // MARK: IOMMU

  private func iommu() -> [Finding] {
    let units = SystemFiles.list(roots.sys + "/class/iommu")
    let groups = SystemFiles.list(roots.sys + "/kernel/iommu_groups")
    if units.isEmpty {
      let status: FindingStatus = Self.allowsNoIOMMU(roots) ? .warn : .fail
      return [missing("iommu", status, "the kernel has found no IOMMU, or it is off")]
    }
    var findings = [Finding("iommu", .ok, units.joined(separator: ", "))]
    findings.append(
      groups.isEmpty
        ? missing("iommu groups", .fail, "there is an IOMMU but no groups: it is not in use")
        : Finding("iommu groups", .ok, "\(groups.count)"))
    return findings
  }

  /// The kernel's parameter where it lacks, else the machine's own setup.
  private func missing(_ subject: String, _ status: FindingStatus, _ summary: String) -> Finding {
    let processor = SystemFiles.text(roots.proc + "/cpuinfo") ?? ""
    let line = SystemFiles.text(roots.proc + "/cmdline") ?? ""
    if processor.contains("GenuineIntel") && !line.contains("intel_iommu=on") {
      let remedy = #"sed -i 's/^GRUB_CMDLINE_LINUX="/&intel_iommu=on /' /etc/default/grub && update-grub && reboot"#
      return Finding(subject, status, summary, remedy: remedy)
    }
    if processor.contains(" hypervisor") {
      let text = summary + "; the virtual machine's host must give it one"
      return Finding(subject, status, text, remedy: "qemu-system-x86_64 -device intel-iommu,intremap=on …  # on the host")
    }
    let text = summary + "; switch on VT-d (Intel) or AMD-Vi (AMD) in the firmware's setup"
    return Finding(subject, status, text, remedy: "systemctl reboot --firmware-setup")
  }

  static func allowsNoIOMMU(_ roots: SystemRoots) -> Bool {
    SystemFiles.text(roots.sys + "/module/vfio/parameters/enable_unsafe_noiommu_mode") == "Y"
  }

  private func noIOMMU() -> [Finding] {
    var findings: [Finding] = []
    if Self.allowsNoIOMMU(roots) {
      findings.append(
        Finding(
          "vfio noiommu", .warn, "cards may be used without an IOMMU: a wrong address can overwrite any memory",
          remedy: "echo N > \(roots.sys)/module/vfio/parameters/enable_unsafe_noiommu_mode"))
    }
    let interrupts = roots.sys + "/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    if SystemFiles.text(interrupts) == "Y" {
      findings.append(
        Finding(
          "vfio interrupts", .warn, "cards may be used without interrupt remapping: they can forge interrupts",
          remedy: "echo N > \(interrupts)"))
    }
    return findings
  }

  // MARK: modules

  private func modules() -> [Finding] {
    let release = SystemFiles.text(roots.proc + "/sys/kernel/osrelease") ?? ""
    let folder = "\(roots.modules)/\(release)"
    func names(_ file: String) -> Set<Substring> {
      let text = SystemFiles.bytes("\(folder)/\(file)", limit: 4 << 20).map { String(decoding: $0, as: UTF8.self) } ?? ""
      return Set(
        text.split(separator: "\n").compactMap { line in
          line.split(separator: ":")[0].split(separator: "/").last?.split(separator: ".").first
        })
    }
    let loadable = names("modules.dep")
    let builtIn = names("modules.builtin")
    return ["vfio", "vfio_iommu_type1", "vfio-pci"].map { name in
      let subject = "module \(name)"
      let spellings = [name, String(name.map { $0 == "-" ? "_" : $0 })]
      let isLoaded =
        spellings.contains { SystemFiles.exists("\(roots.sys)/module/\($0)") }
        || (name == vfioDriver && SystemFiles.exists(roots.driver(name)))
      if isLoaded { return Finding(subject, .ok, "loaded") }
      if spellings.contains(where: { builtIn.contains(Substring($0)) }) { return Finding(subject, .ok, "built in") }
      if spellings.contains(where: { loadable.contains(Substring($0)) }) {
        return Finding(
          subject, .fail, "not loaded", remedy: "modprobe \(name) && echo \(name) > /etc/modules-load.d/\(name).conf")
      }
      return Finding(
        subject, .fail, "this kernel (\(release)) does not have it", remedy: "apt-get install linux-image-amd64 && reboot")
    }
  }

  // MARK: cards

  private func cards() -> [Finding] {
    guard let functions = try? SysfsPCI(roots: roots).networkFunctions(supported: supported) else {
      return [Finding("cards", .fail, "the kernel shows no PCI bus", remedy: "mount -t sysfs sysfs \(roots.sys)")]
    }
    let served = functions.filter { $0.ringwayDriver != nil }
    if served.isEmpty {
      return [Finding("cards", .warn, "no card here that Ringway has a driver for", remedy: "ringway devices")]
    }
    return served.map(card)
  }

  private func card(_ function: NetworkFunction) -> Finding {
    let device = function.device
    let subject = "card \(device.address)"
    let harmless: Set = [vfioDriver, "pci-stub", "pcieport"]
    let others = function.groupMembers.filter { member in
      !member.isBridge && !(member.driver.map(harmless.contains) ?? true)
    }
    if !others.isEmpty {
      let names = others.map { "\($0.address) (\($0.driver ?? "none"))" }.joined(separator: ", ")
      let cards = ([device] + others).filter(\.isNetwork).map(\.address.description).joined(separator: " ")
      return Finding(
        subject, .warn, "its IOMMU group \(device.iommuGroup ?? -1) also holds \(names)",
        remedy: others.allSatisfy(\.isNetwork) ? "ringway bind \(cards)" : "put the card in another slot")
    }
    if let override = device.driverOverride, device.driver != override {
      return Finding(
        subject, .warn, "driver_override is \(override), but its driver is \(device.driver ?? "none")",
        remedy: "echo > \(roots.device(device.address))/driver_override")
    }
    if device.iommuGroup == nil && !Self.allowsNoIOMMU(roots) {
      return missing(subject, .warn, "it is in no IOMMU group, so it cannot be taken")
    }
    if device.driver == vfioDriver { return Finding(subject, .ok, "bound to vfio-pci") }
    return Finding(
      subject, .ok, "with the kernel (\(device.driver ?? "no driver")); take it with `ringway bind \(device.address)`")
  }

  // MARK: nodes in /dev/vfio

  private func nodes() -> [Finding] {
    let folder = roots.dev + "/vfio"
    let container = folder + "/vfio"
    var findings: [Finding] = []
    if !SystemFiles.exists(container) {
      findings.append(Finding("\(container)", .fail, "is not there", remedy: "modprobe vfio"))
    } else if !mayOpen(container) {
      findings.append(Finding(container, .fail, "you may not open it (\(owner(container)))", remedy: "chmod 0666 \(container)"))
    } else {
      findings.append(Finding(container, .ok, owner(container)))
    }
    let nodes = SystemFiles.list(folder).filter { $0 != "vfio" && $0 != "devices" }
    for name in nodes {
      let path = "\(folder)/\(name)"
      if name.hasPrefix("noiommu-") {
        findings.append(Finding(path, .warn, "a group without an IOMMU; opening it takes CAP_SYS_RAWIO"))
      } else if mayOpen(path) {
        findings.append(Finding(path, .ok, owner(path)))
      } else {
        findings.append(Finding(path, .fail, "you may not open it (\(owner(path)))", remedy: groupRemedy(name)))
      }
    }
    return findings
  }

  private func groupRemedy(_ group: String) -> String {
    let members = Int(group).map { SysfsPCI(roots: roots).members(ofGroup: $0) } ?? []
    let cards = members.filter(\.isNetwork).map(\.address.description)
    return cards.isEmpty
      ? "chown \(callerName()) \(roots.dev)/vfio/\(group)" : "ringway bind --user \(callerName()) \(cards.joined(separator: " "))"
  }

  private func owner(_ path: String) -> String {
    guard let owner = SystemFiles.ownership(path) else { return "not readable" }
    return "owner \(owner.user):\(owner.group), mode 0\(String(owner.mode, radix: 8))"
  }

  private func journals() -> [Finding] {
    let store = JournalStore(roots: roots, effects: MachineEffects())
    return store.addresses().compactMap { address in
      let subject = "journal \(address)"
      do throws(BindError) {
        guard let journal = try store.load(address), journal.phase != .bound else { return nil }
        return Finding(
          subject, .warn, "an operation stopped in phase \(journal.phase.rawValue)", remedy: "ringway unbind --recover")
      } catch { return Finding(subject, .warn, error.description) }
    }
  }
}
