import Testing

@testable import PCI

@Suite struct NetworkUseTests {
  private let machine = FakeMachine()

  private func card() -> PCIAddress {
    machine.addDriver("e1000e", serves: ["8086:10d3"], interface: "enp3s")
    machine.addDriver("vfio-pci")
    return machine.addDevice("0000:03:00.0", driver: "e1000e")
  }

  private func uses(_ addresses: [InterfaceAddress] = []) -> [String] {
    NetworkUseFinder(roots: machine.roots, addresses: { addresses }).uses(of: ["enp3s0"]).map(\.description)
  }

  @Test func findsRoutes() {
    machine.file(
      "proc/net/route",
      """
      Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
      enp3s0\t00000000\t010012C6\t0003\t0\t0\t0\t00000000\t0\t0\t0
      enp3s0\t000012C6\t00000000\t0001\t0\t0\t0\t00FEFFFF\t0\t0\t0
      eth9\t000013C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
      enp3s0\t000014C6\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0

      """)
    #expect(uses() == ["enp3s0 carries the default route", "enp3s0 carries the route to 198.18.0.0/23"])
  }

  @Test func findsRoutesAndAddressesOfIPv6() {
    machine.file(
      "proc/net/ipv6_route",
      """
      20010002000000000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001   enp3s0
      fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001   enp3s0
      20010002000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001   enp3s0
      ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001   enp3s0

      """)
    machine.file(
      "proc/net/if_inet6",
      """
      20010002000000000000000000000001 02 30 00 80   enp3s0
      fe80000000000000020000fffe000001 02 40 20 80   enp3s0
      00000000000000000000000000000001 01 80 10 80       lo

      """)
    #expect(uses() == ["enp3s0 has the address 2001:2::1/48", "enp3s0 carries the route to 2001:2::/48"])
  }

  @Test func anInterfaceThatIsOnlyUpIsFree() {
    machine.file(
      "proc/net/if_inet6", "fe80000000000000020000fffe000001 02 40 20 80   enp3s0\n")
    #expect(uses().isEmpty)
  }

  @Test func addressesAboveABondCount() {
    machine.link("sys/class/net/enp3s0/upper_bond0", "../bond0")
    machine.link("sys/class/net/bond0/upper_bond0.5", "../bond0.5")
    #expect(
      uses([InterfaceAddress(interface: "bond0.5", address: "198.18.0.1"), InterfaceAddress(interface: "lo", address: "127.0.0.1")])
        == ["enp3s0 is part of bond0", "bond0 is part of bond0.5", "bond0.5 has the address 198.18.0.1"])
  }

  @Test func aCardInUseIsTakenByForceOnly() throws {
    let address = card()
    let used = Binder(
      roots: machine.roots, effects: SimulatedKernel(machine),
      addresses: { [InterfaceAddress(interface: "enp3s0", address: "198.18.0.1")] }, now: { 0 })
    #expect(throws: BindError.inUse(address, uses: ["enp3s0 has the address 198.18.0.1"])) { try used.plan([address]) }
    var options = BindOptions()
    options.force = true
    #expect(
      try used.plan([address], options).warnings
        == ["0000:03:00.0: enp3s0 has the address 198.18.0.1, and loses it"])
  }

  @Test func anInterfaceInAnotherNamespaceCounts() throws {
    let address = card()
    machine.remove("sys/bus/pci/devices/0000:03:00.0/net")
    let binder = Binder(roots: machine.roots, effects: SimulatedKernel(machine), addresses: { [] }, now: { 0 })
    #expect(throws: BindError.inUse(address, uses: [NetworkUse.elsewhere(driver: "e1000e").description])) {
      try binder.plan([address])
    }
  }

  @Test func virtualFunctionsCount() throws {
    let address = card()
    machine.file("sys/bus/pci/devices/0000:03:00.0/sriov_numvfs", "4\n")
    let binder = Binder(roots: machine.roots, effects: SimulatedKernel(machine), addresses: { [] }, now: { 0 })
    #expect(throws: BindError.inUse(address, uses: ["it has 4 virtual functions"])) { try binder.plan([address]) }
  }

  @Test func textOfIPv6Addresses() {
    func text(_ bytes: [UInt8]) -> String { NetworkUseFinder.text6(bytes) }
    #expect(text([UInt8](repeating: 0, count: 16)) == "::")
    #expect(text([UInt8](repeating: 0, count: 15) + [1]) == "::1")
    #expect(text([0x20, 1, 0, 2] + [UInt8](repeating: 0, count: 12)) == "2001:2::")
    #expect(text([0x20, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]) == "2001:0:1::1:0:1")
  }
}
