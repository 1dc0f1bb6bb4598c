import Testing

@testable import PCI

@Suite struct AddressTests {
  @Test func parsesWhatSysfsPrints() throws {
    let address = try PCIAddress("0000:03:1f.7")
    #expect(address.domain == 0 && address.bus == 3 && address.device == 31 && address.function == 7)
    #expect(address.description == "0000:03:1f.7")
    #expect(try PCIAddress("03:00.0") == PCIAddress("0000:03:00.0"))
    #expect(try PCIAddress("10000:E1:00.1").description == "10000:e1:00.1")
  }

  @Test(arguments: [
    "", "3", "03.0", "03:00", "03:00.", ":00.0", "0:0:0:0.0", "zz:00.0", "03:00.0x", "+3:00.0", "03:00.-1", "003:00.0",
    "03:000.0", "123456789:03:00.0", "03:00.0.0", "３:00.0",
  ])
  func refusesOtherText(_ text: String) {
    #expect(throws: PCIAddressError.malformed(text)) { try PCIAddress(text) }
  }

  @Test func refusesImpossibleSlots() {
    #expect(throws: PCIAddressError.outOfRange("03:20.0")) { try PCIAddress("03:20.0") }
    #expect(throws: PCIAddressError.outOfRange("03:00.8")) { try PCIAddress("03:00.8") }
    #expect(PCIAddress(bus: 0, device: 32, function: 0) == nil)
  }

  @Test func sortsByPlace() throws {
    let sorted = try ["0001:00:00.0", "0000:10:00.0", "0000:02:00.1", "0000:02:00.0"].map { try PCIAddress($0) }.sorted()
    #expect(sorted.map(\.description) == ["0000:02:00.0", "0000:02:00.1", "0000:10:00.0", "0001:00:00.0"])
  }
}

@Suite struct ConfigTests {
  /// The header of an 82574L with the capabilities power management, MSI, PCI Express, MSI-X.
  static func card() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4096)
    func put(_ offset: Int, _ value: UInt32, _ count: Int) {
      for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
    }
    put(0x00, 0x10d3_8086, 4)
    put(0x04, 0x0406, 2)
    put(0x06, 0x0010, 2)
    put(0x08, 0x0200_0003, 4)
    put(0x2c, 0xa01f_8086, 4)
    put(0x34, 0xc8, 1)
    put(0xc8, 0xd001, 2)
    put(0xd0, 0xe005, 2)
    put(0xe0, 0xa010, 2)
    put(0xe2, 0x0001, 2)
    put(0xe4, 1 << 28, 4)
    put(0xe8, 0x0020, 2)
    put(0xf2, 0x0011, 2)
    put(0xa0, 0x0011, 2)
    put(0xa2, 0x8004, 2)
    put(0xa4, 0x0000_0003, 4)
    put(0xa8, 0x0000_2003, 4)
    put(0x100, 0x1401_0001, 4)
    put(0x140, 0x0001_0003, 4)
    return bytes
  }

  @Test func readsTheHeader() throws {
    let config = try PCIConfig(bytes: Self.card())
    #expect(
      config.identity
        == PCIIdentity(
          vendor: 0x8086, device: 0x10d3, subsystemVendor: 0x8086, subsystemDevice: 0xa01f, revision: 3,
          classCode: 0x020000))
    #expect(config.command == [.memorySpace, .busMaster, .interruptDisable])
    #expect(config.status == [.capabilityList])
    #expect(!config.isBridge && !config.isMultifunction)
  }

  @Test func walksTheCapabilities() throws {
    let config = try PCIConfig(bytes: Self.card())
    #expect(config.capabilities.map(\.id) == [1, 5, 0x10, 0x11])
    #expect(config.capabilities.map(\.offset) == [0xc8, 0xd0, 0xe0, 0xa0])
    #expect(config.extendedCapabilities.map(\.id) == [1, 3])
    #expect(config.capabilityFault == nil)
    let msix = try #require(config.msix)
    #expect(msix.vectors == 5 && msix.isEnabled && !msix.isMasked)
    #expect(msix.tableBAR == 3 && msix.tableOffset == 0 && msix.tableRange == 0..<80)
    #expect(msix.pendingBAR == 3 && msix.pendingOffset == 0x2000)
    let express = try #require(config.express)
    #expect(express.version == 1 && express.portType == 0 && express.canResetFunction)
    #expect(express.maxPayload == 256 && express.linkSpeed == 1 && express.linkWidth == 1)
  }

  @Test func endsALoop() throws {
    var bytes = Self.card()
    bytes[0xa1] = 0xd0
    let config = try PCIConfig(bytes: bytes)
    #expect(config.capabilityFault == .loop(0xd0))
    #expect(config.capabilities.count == 4)
  }

  @Test func refusesPointersIntoTheHeader() throws {
    var bytes = Self.card()
    bytes[0xd1] = 0x3c
    let config = try PCIConfig(bytes: bytes)
    #expect(config.capabilityFault == .outside(0x3c))
    #expect(config.msix == nil)
  }

  @Test func endsALoopOfExtendedCapabilities() throws {
    var bytes = Self.card()
    bytes[0x143] = 0x10
    #expect(try PCIConfig(bytes: bytes).capabilityFault == .loop(0x100))
  }

  /// Whatever a device answers, the walk ends and nothing traps.
  @Test func survivesAnyBytes() throws {
    var state: UInt64 = 0x1234_5678_9abc_def0
    for round in 0..<2000 {
      let count = [64, 256, 4096][round % 3]
      var bytes = (0..<count).map { _ -> UInt8 in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 33)
      }
      bytes[0] = 0x86
      bytes[6] |= 0x10
      let config = try PCIConfig(bytes: bytes)
      #expect(config.capabilities.count <= 48)
      _ = (config.msix, config.express, config.identity)
    }
  }

  @Test func refusesWhatIsNoHeader() {
    #expect(throws: PCIConfigError.tooShort(count: 63)) { try PCIConfig(bytes: [UInt8](repeating: 0, count: 63)) }
    #expect(throws: PCIConfigError.gone) { try PCIConfig(bytes: [UInt8](repeating: 0xff, count: 256)) }
  }

  @Test func sixtyFourBytesGiveTheHeaderAlone() throws {
    let config = try PCIConfig(bytes: Array(Self.card().prefix(64)))
    #expect(config.identity.device == 0x10d3 && config.capabilities.isEmpty && config.msix == nil)
  }
}

@Suite struct ScannerTests {
  @Test func listsNetworkFunctionsWithTheirSurroundings() throws {
    let machine = FakeMachine()
    machine.addDriver("e1000e", serves: ["8086:10d3"], interface: "enp3s")
    machine.addDriver("snd_hda_intel")
    machine.addDevice("0000:03:00.0", group: 12, driver: "e1000e")
    machine.addDevice("0000:03:00.1", classCode: 0x040300, group: 12, driver: "snd_hda_intel")
    machine.addDevice("0000:00:01.0", vendor: 0x1af4, device: 0x1041, group: nil)
    machine.file("sys/bus/pci/devices/0000:00:01.0/virtio0/net/eth0/mtu", "1500\n")
    machine.file("sys/bus/pci/devices/0000:00:01.0/numa_node", "1\n")
    let found = try SysfsPCI(roots: machine.roots).networkFunctions(
      supported: [SupportedCard(vendor: 0x8086, device: 0x10d3, driver: "e1000e")])
    #expect(found.map(\.device.address.description) == ["0000:00:01.0", "0000:03:00.0"])
    #expect(found[0].device.interfaces == ["eth0"] && found[0].device.numaNode == 1)
    #expect(found[0].device.iommuGroup == nil && found[0].ringwayDriver == nil && found[0].device.driver == nil)
    #expect(found[1].device.driver == "e1000e" && found[1].device.interfaces == ["enp3s0"])
    #expect(found[1].device.iommuGroup == 12 && found[1].device.numaNode == nil && found[1].ringwayDriver == "e1000e")
    #expect(found[1].groupMembers.map(\.address.description) == ["0000:03:00.1"])
    #expect(found[1].groupMembers.map(\.driver) == ["snd_hda_intel"])
    #expect(found[1].device.identity.subsystemDevice == 1 && found[1].device.identity.revision == 2)
  }

  @Test func missingThingsAreTypedErrors() throws {
    let machine = FakeMachine()
    let scanner = SysfsPCI(roots: machine.roots)
    #expect(try scanner.networkFunctions().isEmpty)
    let address = try PCIAddress("0000:09:00.0")
    #expect(throws: PCIScanError.noSuchDevice(address)) { try scanner.device(at: address) }
    #expect(throws: PCIScanError.noPCIBus("/nowhere/sys/bus/pci/devices")) {
      try SysfsPCI(roots: SystemRoots(under: "/nowhere")).networkFunctions()
    }
  }

  @Test func readsConfigurationSpace() throws {
    let machine = FakeMachine()
    let address = machine.addDevice("0000:03:00.0")
    machine.file("sys/bus/pci/devices/0000:03:00.0/config", bytes: ConfigTests.card())
    #expect(try SysfsPCI(roots: machine.roots).configuration(of: address).msix?.vectors == 5)
  }
}
