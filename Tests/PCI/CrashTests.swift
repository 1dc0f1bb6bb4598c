import Testing

@testable import PCI

/// A machine with an 82574L on its kernel driver in a group of its own.
func machineWithCard(driver: String? = "e1000e", override: String? = nil) -> (FakeMachine, PCIAddress) {
  let machine = FakeMachine()
  machine.addDriver("e1000e", serves: ["8086:10d3"], interface: "enp3s")
  machine.addDriver("vfio-pci")
  return (machine, machine.addDevice("0000:03:00.0", driver: driver, override: override))
}

func binder(
  _ kernel: SimulatedKernel, now: UInt64 = 1000, addresses: [InterfaceAddress] = []
) -> Binder<SimulatedKernel> {
  Binder(roots: kernel.machine.roots, effects: kernel, addresses: { addresses }, now: { now })
}

func allOptions() -> BindOptions {
  var options = BindOptions()
  options.persist = true
  options.user = "ring"
  options.group = "ring"
  return options
}

@Suite struct CrashTests {
  /// Stops the process before each of its changes in turn. Afterwards recovery must have either
  /// undone all of it or, where the journal already said so, find all of it done.
  @Test(arguments: [nil, "e1000e"] as [String?], [nil, "e1000e"] as [String?])
  func aCrashAnywhereInBindIsUndone(driver: String?, override: String?) throws {
    let (model, _) = machineWithCard(driver: driver, override: override)
    let counter = SimulatedKernel(model)
    _ = try binder(counter).bind([PCIAddress("0000:03:00.0")], allOptions())
    #expect(counter.changes > 10)
    var undone = 0
    for stop in 0..<counter.changes {
      let (machine, address) = machineWithCard(driver: driver, override: override)
      let before = machine.snapshot()
      #expect(throws: BindError.self) {
        try binder(SimulatedKernel(machine, stopAfter: stop)).bind([address], allOptions())
      }
      let recovered = try binder(SimulatedKernel(machine)).recover()
      #expect(recovered.allSatisfy { $0.error == nil })
      if machine.text("run/ringway/bind/0000:03:00.0.journal")?.contains("phase bound") == true {
        #expect(machine.text("sys/bus/pci/devices/0000:03:00.0/driver_override") == "(null)")
        #expect(machine.text("etc/ringway/bind.d/0000:03:00.0")?.contains("card 8086:10d3") == true)
        _ = try binder(SimulatedKernel(machine)).unbind(address)
      } else {
        undone += 1
      }
      #expect(machine.snapshot() == before, "stopped before change \(stop)")
    }
    #expect(undone >= counter.changes - 1)
  }

  @Test(arguments: [nil, "e1000e"] as [String?], [nil, "e1000e"] as [String?])
  func aCrashAnywhereInUnbindIsFinished(driver: String?, override: String?) throws {
    func bound() throws -> (FakeMachine, PCIAddress, [String: String]) {
      let (machine, address) = machineWithCard(driver: driver, override: override)
      let before = machine.snapshot()
      _ = try binder(SimulatedKernel(machine)).bind([address], allOptions())
      return (machine, address, before)
    }
    let (model, address, _) = try bound()
    let counter = SimulatedKernel(model)
    _ = try binder(counter).unbind(address)
    for stop in 0..<counter.changes {
      let (machine, address, before) = try bound()
      #expect(throws: BindError.self) { try binder(SimulatedKernel(machine, stopAfter: stop)).unbind(address) }
      // A second crash, in the middle of the recovery.
      _ = try? binder(SimulatedKernel(machine, stopAfter: stop / 2)).recover()
      let after = SimulatedKernel(machine)
      _ = try binder(after).recover()
      if machine.text("run/ringway/bind/0000:03:00.0.journal") != nil {
        #expect(after.driver("0000:03:00.0") == "vfio-pci")
        _ = try binder(after).unbind(address)
      }
      #expect(machine.snapshot() == before, "stopped before change \(stop)")
    }
  }

  /// At no moment is there an override without a journal that says how to undo it.
  @Test func theJournalComesFirstAndGoesLast() throws {
    let (machine, address) = machineWithCard()
    let kernel = SimulatedKernel(machine)
    // The closure holds the kernel that holds it.
    defer { kernel.observe = { _ in } }
    kernel.observe = { change in
      let touched =
        kernel.driver("0000:03:00.0") != "e1000e"
        || machine.text("sys/bus/pci/devices/0000:03:00.0/driver_override") != "(null)"
      #expect(!touched || machine.text("run/ringway/bind/0000:03:00.0.journal") != nil, "change \(change)")
    }
    _ = try binder(kernel).bind([address])
    _ = try binder(kernel).unbind(address)
  }
}

@Suite struct ConfirmTests {
  private func bound(persist: Bool = false) throws -> (FakeMachine, PCIAddress, [String: String]) {
    let (machine, address) = machineWithCard()
    let before = machine.snapshot()
    var options = BindOptions()
    options.confirmWithin = 60_000
    options.persist = persist
    var watched: [UInt64?] = []
    _ = try binder(SimulatedKernel(machine), now: 1000).bind([address], options) { plan throws(BindError) in
      // The watcher starts on a written journal and an untouched card.
      watched = plan.journals.map(\.deadline)
      let kernel = SimulatedKernel(machine)
      if kernel.driver("0000:03:00.0") != "e1000e" { throw .watcherFailed(address) }
    }
    #expect(watched == [61_000])
    return (machine, address, before)
  }

  @Test func timeBringsTheCardBack() throws {
    let (machine, address, before) = try bound()
    let kernel = SimulatedKernel(machine)
    #expect(try binder(kernel, now: 60_999).expire(address, deadline: 61_000) == false)
    #expect(kernel.driver("0000:03:00.0") == "vfio-pci")
    #expect(try binder(kernel, now: 61_000).expire(address, deadline: 61_000))
    #expect(machine.snapshot() == before)
    #expect(kernel.restored == ["enp3s0 <- enp3s0"])
  }

  @Test func confirmationKeepsIt() throws {
    let (machine, address, _) = try bound(persist: true)
    let kernel = SimulatedKernel(machine)
    // A machine that is switched off and on before the confirmation must not take the card again.
    #expect(machine.text("etc/ringway/bind.d/0000:03:00.0") == nil)
    try binder(kernel, now: 50_000).confirm(address, program: "/usr/bin/ringway")
    #expect(machine.text("etc/ringway/bind.d/0000:03:00.0") != nil)
    #expect(try binder(kernel, now: 61_000).expire(address, deadline: 61_000))
    #expect(kernel.driver("0000:03:00.0") == "vfio-pci")
    #expect(throws: BindError.nothingToConfirm(address)) { try binder(kernel).confirm(address, program: "x") }
  }

  @Test func lateConfirmationIsRefused() throws {
    let (machine, address, before) = try bound()
    let kernel = SimulatedKernel(machine)
    #expect(throws: BindError.tooLateToConfirm(address)) {
      try binder(kernel, now: 61_000).confirm(address, program: "x")
    }
    // Should the watcher have died, whoever comes next does its work.
    #expect(try binder(kernel, now: 61_000).recover().map(\.driver) == ["e1000e"])
    #expect(machine.snapshot() == before)
  }

  @Test func withoutAWatcherNothingHappens() throws {
    let (machine, address) = machineWithCard()
    let before = machine.snapshot()
    var options = BindOptions()
    options.confirmWithin = 1000
    #expect(throws: BindError.watcherFailed(address)) {
      try binder(SimulatedKernel(machine)).bind([address], options) { _ throws(BindError) in throw .watcherFailed(address) }
    }
    #expect(machine.snapshot() == before)
  }
}
