// `ringway bind`: takes cards from the kernel for user space.
//
// With --confirm a second process is started before anything is touched: a watcher in a session of
// its own, so that neither a closed terminal nor the end of this process stops it. It puts the
// cards back when the time is over and nobody has confirmed.

import ArgumentParser
import FoundationEssentials
import PCI

struct Bind: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take network cards from their kernel drivers, for use from user space.",
    discussion: """
      Refuses a card that somebody uses (an address, a route, a bridge) unless --force is given. \
      `ringway unbind` gives the card back to the driver that it had.
      """)

  @Argument(help: "PCI addresses; cards of one IOMMU group go together.", transform: PCIAddress.init)
  var addresses: [PCIAddress] = []
  @Flag(name: [.customShort("n"), .long], help: "Print the steps and change nothing.")
  var dryRun = false
  @Flag(help: "Take the card although it carries addresses or routes.")
  var force = false
  @Option(help: "Put everything back after this time (30s, 2m) unless --confirmed comes first.", transform: duration)
  var confirm: UInt64?
  @Flag(help: "Keep what was bound with --confirm.")
  var confirmed = false
  @Flag(help: "Take the card again at every boot.")
  var persist = false
  @Flag(help: "Take every card that was bound with --persist; the boot unit runs this.")
  var persisted = false
  @Option(help: "Let this group open the card, by a udev rule.")
  var group: String?
  @Option(help: "Let this user open the card, by a udev rule.")
  var user: String?

  func validate() throws {
    if persisted {
      guard addresses.isEmpty, !confirmed, confirm == nil else {
        throw ValidationError("--persisted takes no addresses and no --confirm.")
      }
    } else if addresses.isEmpty {
      throw ValidationError("Say which card to take; `ringway devices` lists them.")
    }
    if confirmed && (confirm != nil || dryRun || persist) {
      throw ValidationError("--confirmed stands alone with the addresses.")
    }
  }

  func run() throws {
    let binder = Binder(effects: MachineEffects(), warn: warn)
    if persisted { return try bindPersisted(binder) }
    if confirmed {
      for address in addresses {
        try binder.confirm(address, program: Self.program)
        print("\(address): stays bound to vfio-pci")
      }
      return
    }
    var options = BindOptions()
    options.force = force
    options.confirmWithin = confirm
    options.persist = persist
    options.user = user
    options.group = group
    options.program = Self.program
    if dryRun {
      let plan = try binder.plan(addresses, options)
      for warning in plan.warnings { warn(warning) }
      for address in plan.alreadyBound { print("\(address): has vfio-pci already") }
      for (index, step) in plan.steps.enumerated() { print("\(index + 1). \(step)") }
      return
    }
    let (plan, recovered) = try binder.bind(addresses, options) { plan throws(BindError) in
      try Watcher.start(plan, program: Self.program)
    }
    report(plan, recovered)
  }

  private func report(_ plan: BindPlan, _ recovered: [BindRecovery]) {
    for recovery in recovered { warn(recovery.description) }
    for warning in plan.warnings { warn(warning) }
    for address in plan.alreadyBound { print("\(address): has vfio-pci already") }
    for journal in plan.journals { print("\(journal.address): \(journal.driver ?? "no driver") -> vfio-pci") }
    for case .handOver(let path, let account) in plan.take { print("\(path): \(account) may open it") }
    for case .writeFile(let path, _) in plan.take where path.contains("/bind.d/") { print("\(path): taken at every boot") }
    if let confirm, !plan.journals.isEmpty {
      let names = plan.journals.map(\.address.description).joined(separator: " ")
      print("goes back in \(confirm / 1000) s unless you run: ringway bind --confirmed \(names)")
    }
  }

  /// Every card of the list, group by group: one that fails does not keep the others.
  private func bindPersisted(_ binder: Binder<MachineEffects>) throws {
    var failure: (any Error)?
    var options = BindOptions()
    options.program = Self.program
    options.force = force
    for result in binder.bindPersisted(options, dryRun: dryRun) {
      switch result {
      case .success(let plan):
        if dryRun { plan.steps.forEach { print($0) } } else { report(plan, []) }
      case .failure(let error):
        if let previous = failure { complain(Sentences(of: previous).first) }
        failure = error
      }
    }
    if let failure { throw failure }
  }

  /// This program's own file.
  static var program: String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
  }
}

/// "90", "90s", "2m" or "1h" in milliseconds: one second to a day.
func duration(_ text: String) throws -> UInt64 {
  let units: [Character: UInt64] = ["s": 1, "m": 60, "h": 3600]
  let unit = text.last.flatMap { units[$0] }
  let digits = unit == nil ? text[...] : text.dropLast()
  guard digits.allSatisfy(\.isNumber), let count = UInt64(digits), count > 0, count <= 86400 / (unit ?? 1) else {
    throw ValidationError("\"\(text)\" is no time between 1s and 24h.")
  }
  return count * (unit ?? 1) * 1000
}

extension BindError: CommandFailure {
  var exit: Exit {
    switch self {
    case .noSuchDevice: .deviceMissing
    case .notNetwork: .usage
    case .noIOMMU, .groupNotViable, .vfioNotLoaded, .inUse, .originalDriverMissing, .unknownAccount, .otherCard,
      .badJournal, .badConfiguration, .notBoundByUs:
      .configuration
    case .held, .driverRefused, .watcherFailed, .nothingToConfirm, .tooLateToConfirm, .notOurs, .locked: .failure
    case .untrusted: .permission
    case .effect(let error): Exit(errno: error.errno)
    }
  }
}
