// Takes cards from the kernel and gives them back.
//
//     bind:    journal ─► override ─► unbind ─► probe ─► clear override ─► journal "bound"
//     unbind:  journal "restoring" ─► override ─► unbind ─► probe ─► old override ─► no journal
//
// Whoever comes next and finds a journal that is not "bound" walks the second line, from wherever
// the first or the second stopped.

/// What recovery did to a card.
public struct BindRecovery: Sendable, CustomStringConvertible {
  public let address: PCIAddress
  public let driver: String?
  public let error: BindError?

  public var description: String {
    if let error { return "\(address): an interrupted operation could not be undone: \(error)" }
    return "\(address): an interrupted operation was undone; its driver is \(driver ?? "none") again"
  }
}

public struct Binder<Effects: SystemEffects> {
  let roots: SystemRoots
  let effects: Effects
  let addresses: () -> [InterfaceAddress]
  let now: () -> UInt64
  /// Told what could not be put back although the card itself could.
  let warn: (String) -> Void
  let store: JournalStore<Effects>
  var scanner: SysfsPCI { SysfsPCI(roots: roots) }

  public init(
    roots: SystemRoots = SystemRoots(), effects: Effects,
    addresses: @escaping () -> [InterfaceAddress] = machineAddresses,
    now: @escaping () -> UInt64 = bootMilliseconds, warn: @escaping (String) -> Void = { _ in }
  ) {
    self.roots = roots
    self.effects = effects
    self.addresses = addresses
    self.now = now
    self.warn = warn
    store = JournalStore(roots: roots, effects: effects)
  }

  /// What `bind` would do. Changes nothing.
  public func plan(
    _ cards: [PCIAddress], _ options: BindOptions = BindOptions(), originals: [PCIAddress: String] = [:]
  ) throws(BindError) -> BindPlan {
    try BindPlanner(roots: roots, store: store, addresses: addresses, now: now())
      .plan(cards, options, originals: originals)
  }

  /// Takes the cards, all of them or none.
  /// - Parameter startWatcher: called when the journals with their deadline are written and nothing
  ///   is touched yet; must not return before the watcher stands on its own feet.
  public func bind(
    _ cards: [PCIAddress], _ options: BindOptions = BindOptions(), originals: [PCIAddress: String] = [:],
    startWatcher: (BindPlan) throws(BindError) -> Void = { _ in }
  ) throws(BindError) -> (plan: BindPlan, recovered: [BindRecovery]) {
    try locked { () throws(BindError) in
      let recovered = try recoverLocked()
      let plan = try plan(cards, options, originals: originals)
      do throws(BindError) {
        for step in plan.prepare { try perform(step) }
        if options.confirmWithin != nil && !plan.journals.isEmpty { try startWatcher(plan) }
        for step in plan.take { try perform(step) }
      } catch {
        // What cannot be put back now keeps its journal for the next attempt.
        for journal in plan.journals { try? restore(journal) }
        throw error
      }
      return (plan, recovered)
    }
  }

  /// Takes every card that was made to persist. Cards of one group go together; groups that fail
  /// do not keep the others.
  public func bindPersisted(_ options: BindOptions, dryRun: Bool = false) -> [Result<BindPlan, BindError>] {
    var groups: [Int: [PCIAddress]] = [:]
    var originals: [PCIAddress: String] = [:]
    var results: [Result<BindPlan, BindError>] = []
    for address in PersistedCard.all(roots) {
      do throws(BindError) {
        let card = try PersistedCard(address: address, roots: roots)
        guard let device = try? scanner.device(at: address) else { throw .noSuchDevice(address) }
        let found = cardName(device.identity)
        guard found == card.card else { throw .otherCard(address, expected: card.card, found: found) }
        originals[address] = card.driver
        // Without a group each card stands for itself.
        groups[device.iommuGroup ?? -1 - groups.count, default: []].append(address)
      } catch { results.append(.failure(error)) }
    }
    for cards in groups.values.sorted(by: { $0[0] < $1[0] }) {
      do throws(BindError) {
        results.append(.success(dryRun ? try plan(cards, options, originals: originals) : try bind(cards, options, originals: originals).plan))
      } catch { results.append(.failure(error)) }
    }
    return results
  }

  /// What `unbind` would do.
  public func unbindPlan(_ address: PCIAddress) throws(BindError) -> [BindStep] {
    try restoreSteps(unbindJournal(address), nameOnly: true)
  }

  /// Gives the card back as its journal says, and removes what would take it again at boot.
  public func unbind(_ address: PCIAddress, force: Bool = false) throws(BindError) -> [BindRecovery] {
    try locked { () throws(BindError) in
      // The card's own journal may be one of an interrupted operation: then recovery is the unbind.
      let recovered = try recoverLocked()
      if let own = recovered.first(where: { $0.address == address }) {
        if let failure = own.error { throw failure }
        for step in BindFiles.forgetSteps(address, roots) { try perform(step) }
        return recovered
      }
      let journal = try unbindJournal(address)
      try checkHolders(address, force: force)
      try restore(journal, nameOnly: true)
      return recovered
    }
  }

  /// Lets the kernel choose a driver for a card that no journal knows.
  public func unbindToDefault(_ address: PCIAddress, force: Bool = false) throws(BindError) -> String? {
    try locked { () throws(BindError) in
      try checkOurs(address)
      try checkHolders(address, force: force)
      let steps: [BindStep] = [
        .setOverride(address, nil), .release(address, keeping: nil), .probe(address, expecting: nil), .forget(address),
      ]
      for step in steps + BindFiles.forgetSteps(address, roots) { try perform(step) }
      return scanner.driver(of: address)
    }
  }

  /// Removes what would take the card at boot and leaves the card itself alone.
  public func forget(_ address: PCIAddress) throws(BindError) {
    try locked { () throws(BindError) in
      for step in BindFiles.forgetSteps(address, roots) { try perform(step) }
    }
  }

  /// Finishes or undoes what a dead process left half done.
  public func recover() throws(BindError) -> [BindRecovery] {
    try locked { () throws(BindError) in try recoverLocked() }
  }

  /// Keeps a card that was bound for a time.
  public func confirm(_ address: PCIAddress, program: String) throws(BindError) {
    try locked { () throws(BindError) in
      guard var journal = try store.load(address), let deadline = journal.deadline, journal.phase == .bound else {
        throw .nothingToConfirm(address)
      }
      guard now() < deadline else { throw .tooLateToConfirm(address) }
      if journal.persistWhenConfirmed {
        for step in BindFiles.persistSteps(journal, program: program, roots) { try perform(step) }
      }
      journal.deadline = nil
      journal.persistWhenConfirmed = false
      try store.save(journal)
    }
  }

  /// The watcher's part: puts the card back if `deadline` has passed and nobody confirmed.
  /// - Returns: false while there is still something to wait for.
  public func expire(_ address: PCIAddress, deadline: UInt64) throws(BindError) -> Bool {
    guard try store.load(address)?.deadline == deadline else { return true }
    guard now() >= deadline else { return false }
    return try locked(patience: 60_000) { () throws(BindError) in
      guard let journal = try store.load(address), journal.deadline == deadline else { return true }
      try restore(journal)
      return true
    }
  }

  private func locked<Value>(
    patience: Int = 10_000, _ body: () throws(BindError) -> Value
  ) throws(BindError) -> Value {
    let lock = try BindLock(roots: roots, effects: effects, patience: patience)
    do throws(BindError) {
      let value = try body()
      lock.release()
      return value
    } catch {
      lock.release()
      throw error
    }
  }

  private func recoverLocked() throws(BindError) -> [BindRecovery] {
    try store.removeLeftovers()
    var result: [BindRecovery] = []
    for address in store.addresses() {
      do throws(BindError) {
        guard let journal = try store.load(address) else { continue }
        let expired = journal.deadline.map { now() >= $0 } ?? false
        guard journal.phase != .bound || expired else { continue }
        try restore(journal)
        result.append(BindRecovery(address: address, driver: scanner.driver(of: address), error: nil))
      } catch {
        result.append(BindRecovery(address: address, driver: scanner.driver(of: address), error: error))
      }
    }
    return result
  }

  /// The journal of a card to give back, with every file that goes with it.
  private func unbindJournal(_ address: PCIAddress) throws(BindError) -> BindJournal {
    guard var journal = try store.load(address) else {
      try checkOurs(address)
      throw .notBoundByUs(address, driver: scanner.driver(of: address))
    }
    journal.files = BindFiles.ownPaths(address, roots)
    return journal
  }

  private func restore(_ journal: BindJournal, nameOnly: Bool = false) throws(BindError) {
    do throws(BindError) {
      for step in try restoreSteps(journal, nameOnly: nameOnly) { try perform(step) }
    } catch {
      // The journal stays for the next attempt; the override does not.
      if SystemFiles.exists(roots.device(journal.address)) {
        try? perform(.setOverride(journal.address, journal.driverOverride))
      }
      throw error
    }
  }

  /// From any state back to what the journal says. A bind that is undone (too late to confirm,
  /// failed, interrupted) also gets its addresses and routes back; after an unbind that somebody
  /// asked for, those are for whoever manages the network.
  private func restoreSteps(_ journal: BindJournal, nameOnly: Bool) throws(BindError) -> [BindStep] {
    let address = journal.address
    let files = BindFiles.removeSteps(journal.files, of: address, roots)
    // Unplugged, or another card by now: there is nothing to give back.
    guard let device = try? scanner.device(at: address), cardName(device.identity) == journal.card else {
      return files + [.forget(address)]
    }
    var restoring = journal
    restoring.phase = .restoring
    restoring.deadline = nil
    var steps: [BindStep] = [.record(restoring)]
    if let driver = journal.driver {
      if device.driver != driver && !SystemFiles.exists(roots.driver(driver)) {
        throw .originalDriverMissing(address, driver: driver)
      }
      steps += [.setOverride(address, driver), .release(address, keeping: driver), .probe(address, expecting: driver)]
    } else {
      steps.append(.release(address, keeping: nil))
    }
    steps.append(.setOverride(address, journal.driverOverride))
    if !journal.interfaces.isEmpty {
      steps.append(.restoreInterfaces(address, journal.interfaces, nameOnly: nameOnly))
    }
    return steps + files + [.forget(address)]
  }

  /// A card with a kernel driver of its own is left alone, whatever is asked.
  private func checkOurs(_ address: PCIAddress) throws(BindError) {
    guard SystemFiles.exists(roots.device(address)) else { throw .noSuchDevice(address) }
    if let driver = scanner.driver(of: address), !userSpaceDrivers.contains(driver) {
      throw .notOurs(address, driver: driver)
    }
  }

  private func checkHolders(_ address: PCIAddress, force: Bool) throws(BindError) {
    guard !force, let device = try? scanner.device(at: address), let group = device.iommuGroup else { return }
    let holders = VFIOHolders.processes(holdingGroup: group, roots: roots)
    guard holders.isEmpty else { throw .held(address, processes: holders) }
  }
}
