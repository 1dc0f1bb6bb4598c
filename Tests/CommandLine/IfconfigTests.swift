import Control
import Testing

@testable import ringway

/// The words of `ifconfig`, and what it prints.
@Suite struct IfconfigTests {
  private func line(_ text: String) throws -> IfconfigLine { try IfconfigLine(text.split(separator: " ").map(String.init)) }

  @Test func showsByDefault() throws {
    #expect(try line("").action == .show(nil))
    #expect(try line("-a").action == .show(nil))
    #expect(try line("em0").action == .show("em0"))
    let json = try line("em0 --json --socket /tmp/x")
    #expect(json.action == .show("em0") && json.json && json.socket == "/tmp/x")
    let names = try line("-l -g cards")
    #expect(names.namesOnly && names.group == "cards")
    #expect(try line("-C").action == .cloners)
  }

  @Test func changesComeInOrder() throws {
    #expect(
      try line("em0 mtu 9000 -rxcsum up description uplink").action
        == .change(
          "em0",
          [
            .mtu(bytes: 9000), .capabilities(enable: [], disable: ["RXCSUM"]), .flags(set: ["UP"], clear: []),
            .description(text: "uplink"),
          ]))
    #expect(try line("em0 -arp").action == .change("em0", [.flags(set: ["NOARP"], clear: [])]))
    #expect(try line("em0 -promisc").action == .change("em0", [.flags(set: [], clear: ["PPROMISC"])]))
    #expect(try line("em0 down").action == .change("em0", [.flags(set: [], clear: ["UP"])]))
  }

  @Test func addresses() throws {
    #expect(
      try line("em0 inet 198.18.0.1/24").action
        == .change("em0", [.setAddress(address: "198.18.0.1/24", broadcast: nil, destination: nil)]))
    #expect(
      try line("em0 inet 198.18.0.1 netmask 255.254.0.0 broadcast 198.19.255.255 alias").action
        == .change("em0", [.addAddress(address: "198.18.0.1/15", broadcast: "198.19.255.255", destination: nil)]))
    #expect(
      try line("em0 inet 198.18.0.1 netmask 0xffffff00").action
        == .change("em0", [.setAddress(address: "198.18.0.1/24", broadcast: nil, destination: nil)]))
    #expect(try line("em0 198.18.0.9 delete").action == .change("em0", [.deleteAddress(address: "198.18.0.9")]))
    #expect(try line("em0 inet 198.18.0.9 -alias").action == .change("em0", [.deleteAddress(address: "198.18.0.9")]))
    #expect(
      try line("em0 inet6 2001:2::1 prefixlen 64").action
        == .change("em0", [.addAddress(address: "2001:2::1/64", broadcast: nil, destination: nil)]))
    #expect(
      try line("tun0 inet 198.18.0.1 198.18.0.2").action
        == .change("tun0", [.setAddress(address: "198.18.0.1", broadcast: nil, destination: "198.18.0.2")]))
  }

  @Test func clonedInterfaces() throws {
    #expect(
      try line("vlan create vlan 7 vlandev em0").action
        == .create("vlan", options: ["tag": "7", "parent": "em0"], changes: []))
    #expect(
      try line("tap3 create netns /proc/1/ns/net device eth9 up").action
        == .create("tap3", options: ["netns": "/proc/1/ns/net", "device": "eth9"], changes: [.flags(set: ["UP"], clear: [])]))
    #expect(
      try line("bridge create member em0 member em1").action == .create("bridge", options: ["members": "em0,em1"], changes: []))
    #expect(try line("vlan7 destroy").action == .destroy("vlan7"))
    #expect(throws: (any Error).self) { try line("vlan7 destroy up") }
  }

  @Test(arguments: ["em0 mtu", "em0 mtu big", "em0 nonsense", "-z", "em0 inet", "em0 inet 198.18.0.1 netmask 255.0.255.0", "--socket"])
  func nonsenseIsRefused(_ text: String) { #expect(throws: (any Error).self) { try line(text) } }

  @Test func printsAsTheBSDsDo() {
    var record = InterfaceRecord(name: "em0", index: 1, type: "ethernet", mtu: 1500)
    record.flags = ["UP", "BROADCAST", "RUNNING", "SIMPLEX", "MULTICAST"]
    record.flagBits = 0x8843
    record.capabilities = ["RXCSUM", "TXCSUM"]
    record.options = ["RXCSUM"]
    record.optionBits = 1
    record.ether = "02:00:00:00:00:01"
    var v4 = AddressRecord(family: "inet", address: "198.18.0.1", prefixLength: 15)
    v4.broadcast = "198.19.255.255"
    var v6 = AddressRecord(family: "inet6", address: "fe80::1", prefixLength: 64)
    v6.scope = "link-local"
    v6.marks = ["tentative"]
    record.addresses = [v4, v6]
    record.media = MediaRecord(
      configured: "Ethernet autoselect", active: "1000baseT <full-duplex>", status: "active", baudRate: 1_000_000_000, choices: [])
    record.groups = ["all"]
    #expect(
      IfconfigText.text(record) == """
        em0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500
        \toptions=1<RXCSUM>
        \tether 02:00:00:00:00:01
        \tinet 198.18.0.1 netmask 0xfffe0000 broadcast 198.19.255.255
        \tinet6 fe80::1%em0 prefixlen 64 tentative scopeid 0x1
        \tmedia: Ethernet autoselect (1000baseT <full-duplex>)
        \tstatus: active
        \tgroups: all
        """)
  }
}
