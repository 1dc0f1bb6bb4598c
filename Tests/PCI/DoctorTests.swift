import Testing

@testable import PCI

@Suite struct DoctorTests {
  private let machine = FakeMachine()

  /// A machine on which everything is as it should be.
  init() {
    machine.link("sys/class/iommu/dmar0", "../../devices/virtual/iommu/dmar0")
    machine.addDriver("vfio-pci")
    machine.addDriver("e1000e", serves: ["8086:10d3"], interface: "enp3s")
    machine.addDevice("0000:03:00.0", driver: "vfio-pci")
    machine.file("dev/vfio/vfio", "")
    for module in ["vfio", "vfio_iommu_type1", "vfio_pci"] { machine.directory("sys/module/\(module)/parameters") }
    machine.file("etc/passwd", "root:x:0:0::/root:/bin/sh\njane:x:4711:100::/home/jane:/bin/sh\n")
    machine.file("proc/sys/kernel/osrelease", "6.1.0-test\n")
    machine.file("proc/cpuinfo", "vendor_id : GenuineIntel\nflags : fpu\n")
    machine.file("proc/cmdline", "quiet intel_iommu=on\n")
    machine.file("proc/self/status", "Name:\tringway\nUid:\t4711\t4711\t4711\t4711\nCapEff:\t0000000000000000\n")
    limit("unlimited")
    pool(0, total: 128, free: 100)
  }

  private func limit(_ value: String) {
    machine.file("proc/self/limits", "Limit    Soft    Hard   Units\nMax locked memory         \(value)   \(value)    bytes\n")
  }

  private func pool(_ node: Int, _ kilobytes: Int = 2048, total: Int, free: Int) {
    let path = "sys/devices/system/node/node\(node)/hugepages/hugepages-\(kilobytes)kB"
    machine.file("\(path)/nr_hugepages", "\(total)\n")
    machine.file("\(path)/free_hugepages", "\(free)\n")
  }

  private func findings(mayOpen: @escaping (String) -> Bool = { _ in true }) -> [Finding] {
    let cards = [SupportedCard(vendor: 0x8086, device: 0x10d3, driver: "e1000e")]
    return Doctor(roots: machine.roots, supported: cards, mayOpen: mayOpen).examine()
  }

  private func finding(_ subject: String, mayOpen: @escaping (String) -> Bool = { _ in true }) throws -> Finding {
    try #require(findings(mayOpen: mayOpen).first { $0.subject == subject })
  }

  @Test func aReadyMachineIsAllRight() {
    let found = findings()
    #expect(found.allSatisfy { $0.status == .ok && $0.remedy == nil }, "\(found)")
    #expect(found.map(\.subject).contains("card 0000:03:00.0") && found.count >= 9)
  }

  @Test func everythingBadHasAStatusAndARemedy() {
    let empty = FakeMachine()
    let found = Doctor(roots: empty.roots, supported: [], mayOpen: { _ in false }).examine()
    #expect(found.allSatisfy { $0.status != .ok && $0.remedy != nil }, "\(found)")
    #expect(found.filter { $0.status == .fail }.map(\.subject).contains("iommu"))
  }

  @Test func withoutAnIOMMU() throws {
    machine.remove("sys/class/iommu/dmar0")
    #expect(try finding("iommu").remedy == "systemctl reboot --firmware-setup")
    machine.file("proc/cmdline", "quiet\n")
    #expect(try finding("iommu").remedy?.contains("intel_iommu=on") == true)
    #expect(try finding("iommu").status == .fail)
    machine.file("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : fpu hypervisor\n")
    #expect(try finding("iommu").remedy?.contains("-device intel-iommu") == true)
    machine.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
    #expect(try finding("iommu").status == .warn)
    #expect(try finding("vfio noiommu").remedy?.hasPrefix("echo N > ") == true)
  }

  @Test func anIOMMUWithoutGroups() throws {
    machine.remove("sys/kernel/iommu_groups")
    #expect(try finding("iommu groups").status == .fail)
  }

  @Test func modules() throws {
    machine.remove("sys/module/vfio_pci")
    machine.remove("sys/bus/pci/drivers/vfio-pci")
    #expect(try finding("module vfio-pci").remedy == "apt-get install linux-image-amd64 && reboot")
    machine.file(
      "lib/modules/6.1.0-test/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko: kernel/drivers/vfio/vfio.ko\n")
    #expect(
      try finding("module vfio-pci").remedy == "modprobe vfio-pci && echo vfio-pci > /etc/modules-load.d/vfio-pci.conf")
    machine.file("lib/modules/6.1.0-test/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    #expect(try finding("module vfio-pci").summary == "built in")
  }

  @Test func nodesThatMayNotBeOpened() throws {
    let group = machine.roots.dev + "/vfio/7"
    let found = try finding(group, mayOpen: { $0 != group })
    #expect(found.status == .fail && found.remedy == "ringway bind --user jane 0000:03:00.0")
    #expect(found.summary.contains("mode 06"))
    let container = machine.roots.dev + "/vfio/vfio"
    #expect(try finding(container, mayOpen: { $0 != container }).remedy == "chmod 0666 \(container)")
    machine.remove("dev/vfio")
    #expect(try finding(container).remedy == "modprobe vfio")
    machine.file("dev/vfio/noiommu-0", "")
    #expect(try finding(machine.roots.dev + "/vfio/noiommu-0").status == .warn)
  }

  @Test(arguments: [("65536", "fail"), ("134217728", "warn"), ("268435456", "ok"), ("unlimited", "ok")])
  func lockedMemory(_ value: String, _ status: String) throws {
    limit(value)
    #expect(try finding("locked memory").status.rawValue == status)
    machine.file("proc/self/status", "CapEff:\t0000000000004000\n")
    #expect(try finding("locked memory").status == .ok)
  }

  @Test func hugepages() throws {
    pool(0, total: 0, free: 0)
    let none = try finding("hugepages")
    #expect(none.status == .fail)
    #expect(none.remedy == "echo 128 > \(machine.root)/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
    pool(0, total: 64, free: 0)
    pool(0, 1_048_576, total: 1, free: 1)
    let found = findings().filter { $0.subject == "hugepages node 0" }
    #expect(found.map(\.status) == [.ok, .warn])
    #expect(found[1].summary == "0 of 64 pages of 2048 kB are free")
  }

  @Test func hugepagesOnTheCardsOwnNode() throws {
    pool(1, total: 0, free: 0)
    machine.file("sys/bus/pci/devices/0000:03:00.0/numa_node", "1\n")
    #expect(try finding("hugepages node 1").remedy?.contains("node1") == true)
  }

  @Test func cards() throws {
    machine.addDevice("0000:04:00.0", group: nil, driver: "e1000e")
    #expect(try finding("card 0000:04:00.0").status == .warn)
    machine.addDriver("ahci")
    machine.addDevice("0000:03:00.1", classCode: 0x010601, driver: "ahci")
    #expect(try finding("card 0000:03:00.0").summary == "its IOMMU group 7 also holds 0000:03:00.1 (ahci)")
    machine.remove("sys/bus/pci/devices/0000:03:00.1")
    machine.remove("sys/kernel/iommu_groups/7/devices/0000:03:00.1")
    machine.detach("0000:03:00.0")
    machine.attach("0000:03:00.0", "e1000e")
    #expect(try finding("card 0000:03:00.0").status == .ok)
    machine.file("sys/bus/pci/devices/0000:03:00.0/driver_override", "vfio-pci\n")
    #expect(try finding("card 0000:03:00.0").remedy?.hasSuffix("0000:03:00.0/driver_override") == true)
  }

  @Test func interruptedOperations() throws {
    let journal = BindJournal(
      address: try PCIAddress("0000:03:00.0"), card: "8086:10d3", phase: .binding, driver: "e1000e",
      driverOverride: nil, interfaces: [])
    machine.file("run/ringway/bind/0000:03:00.0.journal", journal.text)
    #expect(try finding("journal 0000:03:00.0").remedy == "ringway unbind --recover")
  }
}
