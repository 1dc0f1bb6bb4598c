// May we take these cards, and how? Looks, refuses, and writes the steps down; changes nothing.

let vfioDriver = "vfio-pci"
/// Drivers that make no interface of a card: they keep it for user space, or for nobody.
let userSpaceDrivers: Set = [vfioDriver, "pci-stub", "uio_pci_generic", "igb_uio"]

struct BindPlanner<Effects: SystemEffects> {
  let roots: SystemRoots
  let store: JournalStore<Effects>
  let addresses: () -> [InterfaceAddress]
  let now: UInt64

  private var scanner: SysfsPCI { SysfsPCI(roots: roots) }

  /// - Parameter originals: drivers to note down for cards that have none at the moment.
  func plan(
    _ cards: [PCIAddress], _ options: BindOptions, originals: [PCIAddress: String] = [:]
  ) throws(BindError) -> BindPlan {
    var plan = BindPlan()
    let account = try BindAccount(user: options.user, group: options.group, roots: roots)
    var finish: [BindStep] = []
    for address in cards {
      let device = try look(address)
      try checkGroup(device, together: cards, &plan)
      if device.driver == vfioDriver {
        plan.alreadyBound.append(address)
      } else {
        try checkUse(device, force: options.force, &plan)
      }
      var journal = try original(of: device, fallback: originals[address])
      if device.driver != vfioDriver {
        journal.deadline = options.confirmWithin.map { now + $0 }
        journal.persistWhenConfirmed = options.persist && options.confirmWithin != nil
      }
      let files = fileSteps(device, journal, options, account)
      let own = [BindFiles.rulePath(address, roots), BindFiles.listPath(address, roots)]
      journal.files = own.filter { path in
        !SystemFiles.exists(path) && files.contains { if case .writeFile(path, _) = $0 { true } else { false } }
      }
      if device.driver != vfioDriver {
        plan.journals.append(journal)
        plan.prepare.append(.record(journal))
        plan.take += takeSteps(address)
        journal.phase = .bound
        finish.append(.record(journal))
      }
      plan.take += files
    }
    plan.take += finish
    return plan
  }

  private func look(_ address: PCIAddress) throws(BindError) -> PCIDevice {
    guard let device = try? scanner.device(at: address) else { throw .noSuchDevice(address) }
    guard device.isNetwork else { throw .notNetwork(address, classCode: device.identity.classCode) }
    guard SystemFiles.exists(roots.driver(vfioDriver)) else { throw .vfioNotLoaded }
    return device
  }

  /// The kernel opens a group only when no member has a driver that does DMA on its own. Port
  /// drivers of bridges do not.
  private func checkGroup(_ device: PCIDevice, together: [PCIAddress], _ plan: inout BindPlan) throws(BindError) {
    guard let group = device.iommuGroup else {
      guard Doctor.allowsNoIOMMU(roots) else { throw .noIOMMU(device.address) }
      plan.warnings.append("\(device.address) is behind no IOMMU: a wrong address in a descriptor can overwrite any memory")
      return
    }
    let harmless: Set = [vfioDriver, "pci-stub", "pcieport"]
    let others = scanner.members(ofGroup: group).filter { member in
      !together.contains(member.address) && !member.isBridge && !(member.driver.map(harmless.contains) ?? true)
    }
    guard others.isEmpty else {
      throw .groupNotViable(
        device.address, group: group, members: others.map { "\($0.address) (driver \($0.driver ?? "none"))" })
    }
  }

  private func checkUse(_ device: PCIDevice, force: Bool, _ plan: inout BindPlan) throws(BindError) {
    var uses = NetworkUseFinder(roots: roots, addresses: addresses).uses(of: device.interfaces)
    if let driver = device.driver, device.interfaces.isEmpty, !userSpaceDrivers.contains(driver) {
      uses.append(.elsewhere(driver: driver))
    }
    if device.virtualFunctions > 0 { uses.append(.virtualFunctions(device.virtualFunctions)) }
    if uses.isEmpty { return }
    guard force else { throw .inUse(device.address, uses: uses.map(\.description)) }
    plan.warnings += uses.map { "\(device.address): \($0), and loses it" }
  }

  /// How the card was. A journal that still fits knows better than the card itself: the driver that
  /// it names has been taken off by us.
  private func original(of device: PCIDevice, fallback: String?) throws(BindError) -> BindJournal {
    let card = cardName(device.identity)
    if var journal = try store.load(device.address), journal.card == card,
      device.driver == nil || device.driver == vfioDriver
    {
      journal.phase = .binding
      journal.deadline = nil
      return journal
    }
    return BindJournal(
      address: device.address, card: card, phase: .binding, driver: device.driver ?? fallback,
      driverOverride: device.driverOverride, interfaces: InterfaceKeeper.capture(device.interfaces, roots: roots))
  }

  private func takeSteps(_ address: PCIAddress) -> [BindStep] {
    [
      .setOverride(address, vfioDriver), .release(address, keeping: vfioDriver),
      .probe(address, expecting: vfioDriver), .setOverride(address, nil),
    ]
  }

  private func fileSteps(
    _ device: PCIDevice, _ journal: BindJournal, _ options: BindOptions, _ account: BindAccount?
  ) -> [BindStep] {
    var steps: [BindStep] = []
    if let account {
      steps.append(
        .writeFile(
          path: BindFiles.rulePath(device.address, roots), text: BindFiles.ruleText(device.address, account)))
      if let group = device.iommuGroup {
        steps.append(.handOver(path: "\(roots.dev)/vfio/\(group)", account: account))
      }
    }
    if options.persist && options.confirmWithin == nil {
      steps += BindFiles.persistSteps(journal, program: options.program, roots)
    }
    return steps
  }
}

/// `8086:10d3`.
func cardName(_ identity: PCIIdentity) -> String {
  "\(hex(identity.vendor, digits: 4)):\(hex(identity.device, digits: 4))"
}
