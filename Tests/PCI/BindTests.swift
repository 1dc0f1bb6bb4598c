import Testing

@testable import PCI

@Suite struct BindTests {
  @Test func takesACardAndGivesItBack() throws {
    let (machine, address) = machineWithCard()
    let before = machine.snapshot()
    let kernel = SimulatedKernel(machine)
    let plan = try binder(kernel).bind([address]).plan
    #expect(plan.warnings.isEmpty && plan.alreadyBound.isEmpty)
    #expect(kernel.driver("0000:03:00.0") == "vfio-pci")
    #expect(machine.text("sys/bus/pci/devices/0000:03:00.0/driver_override") == "(null)")
    #expect(machine.text("run/ringway/bind/0000:03:00.0.journal")?.contains("phase bound\ndriver e1000e\ninterface enp3s0") == true)
    _ = try binder(kernel).unbind(address)
    #expect(machine.snapshot() == before)
    #expect(kernel.restored == ["enp3s0 <- enp3s0 *"])
  }

  @Test func dryRunChangesNothing() throws {
    let (machine, address) = machineWithCard()
    let before = machine.snapshot()
    let kernel = SimulatedKernel(machine)
    let steps = try binder(kernel).plan([address], allOptions()).steps.map(\.description)
    #expect(kernel.changes == 0 && machine.snapshot() == before)
    #expect(steps.first == "write the journal of 0000:03:00.0: phase binding")
    #expect(steps.contains("0000:03:00.0: set driver_override to vfio-pci"))
    #expect(steps.last == "write the journal of 0000:03:00.0: phase bound")
  }

  @Test func twoCardsOfOneGroupGoTogether() throws {
    let (machine, first) = machineWithCard()
    let second = machine.addDevice("0000:03:00.1", driver: "e1000e")
    let before = machine.snapshot()
    let kernel = SimulatedKernel(machine)
    let refusal = BindError.groupNotViable(first, group: 7, members: ["0000:03:00.1 (driver e1000e)"])
    #expect(throws: refusal) { try binder(kernel).bind([first]) }
    #expect(machine.snapshot() == before)
    _ = try binder(kernel).bind([first, second])
    #expect(kernel.driver("0000:03:00.0") == "vfio-pci" && kernel.driver("0000:03:00.1") == "vfio-pci")
  }

  @Test func bridgesAndFreeMembersDoNotMatter() throws {
    let (machine, address) = machineWithCard()
    machine.addDevice("0000:00:1c.0", classCode: 0x060400, driver: "pcieport")
    machine.addDevice("0000:00:1c.1", classCode: 0x060400, driver: "shpchp")
    machine.addDevice("0000:03:00.2", classCode: 0x040300)
    machine.addDevice("0000:03:00.3", classCode: 0x010000, driver: "pci-stub")
    #expect(try binder(SimulatedKernel(machine)).plan([address]).steps.isEmpty == false)
    machine.addDevice("0000:03:00.4", classCode: 0x010000, driver: "ahci")
    #expect(throws: BindError.groupNotViable(address, group: 7, members: ["0000:03:00.4 (driver ahci)"])) {
      try binder(SimulatedKernel(machine)).plan([address])
    }
  }

  @Test func aRefusingDriverPutsEverythingBack() throws {
    let (machine, address) = machineWithCard()
    let before = machine.snapshot()
    let kernel = SimulatedKernel(machine)
    kernel.refusing = ["vfio-pci"]
    #expect(throws: BindError.driverRefused(address, wanted: "vfio-pci", found: nil)) {
      try binder(kernel).bind([address], allOptions())
    }
    #expect(machine.snapshot() == before)
  }

  @Test func aMissingOriginalDriverKeepsTheJournalAndNoOverride() throws {
    let (machine, address) = machineWithCard()
    let kernel = SimulatedKernel(machine)
    _ = try binder(kernel).bind([address])
    machine.remove("sys/bus/pci/drivers/e1000e")
    #expect(throws: BindError.originalDriverMissing(address, driver: "e1000e")) { try binder(kernel).unbind(address) }
    #expect(machine.text("sys/bus/pci/devices/0000:03:00.0/driver_override") == "(null)")
    machine.addDriver("e1000e", serves: ["8086:10d3"], interface: "enp3s")
    _ = try binder(kernel).unbind(address)
    #expect(kernel.driver("0000:03:00.0") == "e1000e")
  }

  @Test func refusesWhatItCannotTake() throws {
    let (machine, address) = machineWithCard()
    let kernel = SimulatedKernel(machine)
    let missing = try PCIAddress("0000:09:00.0")
    #expect(throws: BindError.noSuchDevice(missing)) { try binder(kernel).bind([missing]) }
    #expect(throws: BindError.noSuchDevice(missing)) { try binder(kernel).unbind(missing) }
    let sound = machine.addDevice("0000:00:1b.0", classCode: 0x040300, group: 9)
    #expect(throws: BindError.notNetwork(sound, classCode: 0x040300)) { try binder(kernel).bind([sound]) }
    let bare = machine.addDevice("0000:04:00.0", group: nil)
    #expect(throws: BindError.noIOMMU(bare)) { try binder(kernel).bind([bare]) }
    #expect(throws: BindError.notOurs(address, driver: "e1000e")) { try binder(kernel).unbind(address) }
    #expect(throws: BindError.notOurs(address, driver: "e1000e")) { try binder(kernel).unbindToDefault(address) }
    var options = BindOptions()
    options.group = "nobody-here"
    #expect(throws: BindError.unknownAccount(kind: "group", name: "nobody-here")) {
      try binder(kernel).bind([address], options)
    }
    machine.remove("sys/bus/pci/drivers/vfio-pci")
    #expect(throws: BindError.vfioNotLoaded) { try binder(kernel).bind([address]) }
  }

  @Test func bindingTwiceIsFine() throws {
    let (machine, address) = machineWithCard()
    let kernel = SimulatedKernel(machine)
    _ = try binder(kernel).bind([address])
    let bound = machine.snapshot()
    #expect(try binder(kernel).bind([address]).plan.alreadyBound == [address])
    #expect(machine.snapshot() == bound)
  }

  @Test func aCardThatWasUnboundByHandKeepsItsOriginalDriver() throws {
    let (machine, address) = machineWithCard()
    let before = machine.snapshot()
    let kernel = SimulatedKernel(machine)
    _ = try binder(kernel).bind([address])
    machine.detach("0000:03:00.0")
    _ = try binder(kernel).bind([address])
    _ = try binder(kernel).unbind(address)
    #expect(machine.snapshot() == before)
  }

  @Test func anUnpluggedCardLeavesNothingBehind() throws {
    let (machine, address) = machineWithCard()
    let kernel = SimulatedKernel(machine)
    _ = try binder(kernel).bind([address], allOptions())
    machine.detach("0000:03:00.0")
    machine.remove("sys/bus/pci/devices/0000:03:00.0")
    _ = try binder(kernel).unbind(address)
    #expect(machine.snapshot().keys.filter { $0.contains("ringway/") || $0.contains("rules.d") || $0.contains("systemd") }.isEmpty)
  }

  @Test func aTornJournalIsAnErrorByLine() throws {
    let (machine, address) = machineWithCard()
    let path = machine.root + "/run/ringway/bind/0000:03:00.0.journal"
    machine.file("run/ringway/bind/0000:03:00.0.journal", "ringway-bind 1\naddress 0000:03:00.0\ncard 8086:10d3\n")
    let torn = BindError.badJournal(path: path, line: 4, reason: "the line \"end\" is missing")
    #expect(throws: torn) { try binder(SimulatedKernel(machine)).unbind(address) }
    machine.file("run/ringway/bind/0000:03:00.0.journal", "ringway-bind 1\nhello\nend\n")
    #expect(throws: BindError.badJournal(path: path, line: 2, reason: "\"hello\" not known")) {
      try binder(SimulatedKernel(machine)).unbind(address)
    }
  }

  @Test func journalsSurviveTheirText() throws {
    var journal = BindJournal(
      address: try PCIAddress("0000:03:00.0"), card: "8086:10d3", phase: .bound, driver: "a driver with spaces",
      driverOverride: "vfio-pci", interfaces: [InterfaceSettings(name: "eth0"), InterfaceSettings(name: "eth1")])
    journal.interfaces[1].isUp = true
    journal.interfaces[1].mtu = 9000
    journal.interfaces[1].master = "br0"
    journal.interfaces[1].messages = ["1400" + "02", "1800ff"]
    journal.deadline = 123_456
    journal.persistWhenConfirmed = true
    journal.files = ["/etc/a b", "/etc/c"]
    #expect(try BindJournal(text: journal.text, path: "x") == journal)
  }

  @Test func theBootUnitGoesWithTheLastCard() throws {
    let (machine, first) = machineWithCard()
    let second = machine.addDevice("0000:04:00.0", group: 8, driver: "e1000e")
    let before = machine.snapshot()
    let kernel = SimulatedKernel(machine)
    _ = try binder(kernel).bind([first], allOptions())
    _ = try binder(kernel).bind([second], allOptions())
    _ = try binder(kernel).unbind(first)
    #expect(machine.text("etc/systemd/system/ringway-bind.service")?.contains("bind --persisted") == true)
    let want = machine.root + "/etc/systemd/system/multi-user.target.wants/ringway-bind.service"
    #expect(SystemFiles.link(want) == "/etc/systemd/system/ringway-bind.service")
    _ = try binder(kernel).unbind(second)
    #expect(machine.snapshot() == before)
  }

  @Test func bootTakesTheListAndNoOtherCard() throws {
    let (machine, first) = machineWithCard()
    let second = machine.addDevice("0000:04:00.0", group: 8, driver: "e1000e")
    let kernel = SimulatedKernel(machine)
    var options = BindOptions()
    options.persist = true
    _ = try binder(kernel).bind([first], options)
    _ = try binder(kernel).bind([second], options)
    // The next boot: no journals, the first card without a driver yet, another card in the second slot.
    machine.remove("run/ringway")
    machine.detach("0000:03:00.0")
    machine.detach("0000:04:00.0")
    machine.addDevice("0000:04:00.0", device: 0x1521, group: 8, driver: "e1000e")
    let results = binder(kernel).bindPersisted(BindOptions())
    #expect(results.count == 2)
    #expect(throws: BindError.otherCard(second, expected: "8086:10d3", found: "8086:1521")) { try results[0].get() }
    #expect(try results[1].get().journals.map(\.driver) == ["e1000e"])
    #expect(kernel.driver("0000:03:00.0") == "vfio-pci" && kernel.driver("0000:04:00.0") == "e1000e")
    _ = try binder(kernel).unbind(first)
    #expect(kernel.driver("0000:03:00.0") == "e1000e")
    try binder(kernel).forget(second)
    #expect(SystemFiles.list(machine.root + "/etc/systemd/system") == ["multi-user.target.wants"])
  }

  @Test func theUnitQuotesThePath() {
    let text = BindFiles.unitText(program: #"/opt/a "b"/50%/ringway"#)
    #expect(text.contains(#"ExecStart="/opt/a \"b\"/50%%/ringway" bind --persisted"#))
  }

  @Test func aBrokenListIsAnErrorByLine() throws {
    let (machine, address) = machineWithCard()
    machine.file("etc/ringway/bind.d/0000:03:00.0", "# hello\ncolour blue\n")
    let path = machine.root + "/etc/ringway/bind.d/0000:03:00.0"
    let results = binder(SimulatedKernel(machine)).bindPersisted(BindOptions())
    let reason = "\"card VENDOR:DEVICE\" or \"driver NAME\" expected"
    #expect(throws: BindError.badConfiguration(path: path, line: 2, reason: reason)) { try results[0].get() }
    #expect(results.count == 1 && SimulatedKernel(machine).driver(address.description) == "e1000e")
  }

  @Test func onlyOneAtATime() throws {
    let (machine, _) = machineWithCard()
    let lock = try BindLock(roots: machine.roots, effects: MachineEffects())
    #expect(throws: BindError.self) { _ = try BindLock(roots: machine.roots, effects: MachineEffects(), patience: 40) }
    lock.release()
    _ = try BindLock(roots: machine.roots, effects: MachineEffects(), patience: 40)
  }

  @Test func foreignJournalsAreNotTrusted() throws {
    let (machine, address) = machineWithCard()
    machine.directory("run/ringway/bind")
    try MachineEffects().setOwner(machine.roots.journals, user: nil, group: nil, mode: 0o777)
    let kernel = SimulatedKernel(machine)
    #expect(throws: BindError.untrusted(path: machine.roots.journals)) { try binder(kernel).bind([address]) }
    #expect(kernel.driver("0000:03:00.0") == "e1000e")
  }

  @Test func aHeldCardIsNotTakenAway() throws {
    let (machine, address) = machineWithCard()
    let kernel = SimulatedKernel(machine)
    _ = try binder(kernel).bind([address])
    machine.file("proc/412/comm", "ringway\n")
    machine.link("proc/412/fd/5", machine.roots.dev + "/vfio/7")
    #expect(throws: BindError.held(address, processes: ["process 412 (ringway)"])) { try binder(kernel).unbind(address) }
    _ = try binder(kernel).unbind(address, force: true)
    #expect(kernel.driver("0000:03:00.0") == "e1000e")
  }

  @Test func withoutAJournalTheKernelMayChoose() throws {
    let (machine, address) = machineWithCard(driver: "vfio-pci", override: "vfio-pci")
    let kernel = SimulatedKernel(machine)
    #expect(throws: BindError.notBoundByUs(address, driver: "vfio-pci")) { try binder(kernel).unbind(address) }
    #expect(try binder(kernel).unbindToDefault(address) == "e1000e")
    #expect(machine.text("sys/bus/pci/devices/0000:03:00.0/driver_override") == "(null)")
  }
}
