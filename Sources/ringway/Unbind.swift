// `ringway unbind`: gives cards back to the driver that they had.

import ArgumentParser
import PCI

struct Unbind: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Give network cards back to the kernel driver that they had.",
    discussion: "Also ends what --persist, --user and --group set up for them.")

  @Argument(help: "PCI addresses.", transform: PCIAddress.init)
  var addresses: [PCIAddress] = []
  @Flag(name: [.customShort("n"), .long], help: "Print the steps and change nothing.")
  var dryRun = false
  @Flag(help: "Do not ask whether a process holds the card; the kernel waits until it lets go.")
  var force = false
  @Flag(help: "Undo or finish what a dead process left half done, on any card.")
  var recover = false
  @Flag(name: .customLong("default"), help: "Without a journal: let the kernel choose a driver.")
  var toDefault = false
  @Flag(help: "Only end --persist, --user and --group; leave the card as it is.")
  var forget = false

  func validate() throws {
    if recover != addresses.isEmpty {
      throw ValidationError(recover ? "--recover takes no addresses." : "Say which card to give back.")
    }
    if [recover, toDefault, forget, dryRun].filter({ $0 }).count > 1 {
      throw ValidationError("--recover, --default, --forget and --dry-run exclude each other.")
    }
  }

  func run() throws {
    let binder = Binder(effects: MachineEffects(), warn: warn)
    if recover {
      let recovered = try binder.recover()
      if recovered.isEmpty { print("nothing was left half done") }
      for recovery in recovered {
        if let error = recovery.error { throw error }
        print(recovery)
      }
      return
    }
    for address in addresses {
      if dryRun {
        for (index, step) in try binder.unbindPlan(address).enumerated() { print("\(index + 1). \(step)") }
      } else if forget {
        try binder.forget(address)
        print("\(address): is not taken at boot")
      } else if toDefault {
        print("\(address): \(try binder.unbindToDefault(address, force: force) ?? "no driver")")
      } else {
        for recovery in try binder.unbind(address, force: force) where recovery.address != address {
          warn(recovery.description)
        }
        let device = try? SysfsPCI().device(at: address)
        print("\(address): \(device?.driver ?? "no driver")")
      }
    }
  }
}
