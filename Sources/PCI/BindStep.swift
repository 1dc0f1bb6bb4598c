// A bind is a list of steps, made before the first is taken: `--dry-run` prints the list, the
// binder walks it. Each looks first and changes what differs, so any of them may be repeated.

/// One change to the machine.
public enum BindStep: Hashable, Sendable, CustomStringConvertible {
  case record(BindJournal)
  case forget(PCIAddress)
  /// Says which driver alone may have the device; nil lets all of them.
  case setOverride(PCIAddress, String?)
  /// Takes the device from whatever driver has it, unless that is `keeping`.
  case release(PCIAddress, keeping: String?)
  /// Offers the device to the drivers, and expects this one to take it (nil: any or none).
  case probe(PCIAddress, expecting: String?)
  /// Gives the card's interfaces their names back, and unless `nameOnly` what else they had.
  case restoreInterfaces(PCIAddress, [InterfaceSettings], nameOnly: Bool)
  case handOver(path: String, account: BindAccount)
  case writeFile(path: String, text: String)
  case removeFile(path: String)
  case link(path: String, target: String)

  public var description: String {
    switch self {
    case .record(let journal): "write the journal of \(journal.address): phase \(journal.phase.rawValue)"
    case .forget(let address): "remove the journal of \(address)"
    case .setOverride(let address, let driver?): "\(address): set driver_override to \(driver)"
    case .setOverride(let address, nil): "\(address): clear driver_override"
    case .release(let address, let keeping?): "\(address): unbind its driver, unless it is \(keeping)"
    case .release(let address, nil): "\(address): unbind its driver"
    case .probe(let address, let driver?): "\(address): probe, and check that \(driver) has it"
    case .probe(let address, nil): "\(address): probe"
    case .restoreInterfaces(let address, let interfaces, let nameOnly):
      "\(address): restore \(nameOnly ? "the name" : "name, addresses and routes") of "
        + interfaces.map(\.name).joined(separator: ", ")
    case .handOver(let path, let account): "give \(path) to \(account)"
    case .writeFile(let path, _): "write \(path)"
    case .removeFile(let path): "remove \(path)"
    case .link(let path, let target): "link \(path) to \(target)"
    }
  }
}

/// An unprivileged account that may open the card.
public struct BindAccount: Hashable, Sendable, CustomStringConvertible {
  public let user: String?
  public let userID: UInt32?
  public let group: String?
  public let groupID: UInt32?

  /// Looks the names up in passwd and group below `roots.etc`; nil when both are nil.
  public init?(user: String?, group: String?, roots: SystemRoots) throws(BindError) {
    guard user != nil || group != nil else { return nil }
    self.user = user
    self.group = group
    userID = try user.map { name throws(BindError) in
      try Self.look(name, in: roots.etc + "/passwd", kind: "user")
    }
    groupID = try group.map { name throws(BindError) in
      try Self.look(name, in: roots.etc + "/group", kind: "group")
    }
  }

  /// passwd(5) and group(5) both keep the name first and the number third.
  private static func look(_ name: String, in path: String, kind: String) throws(BindError) -> UInt32 {
    for line in (SystemFiles.text(path) ?? "").split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count >= 3, fields[0] == name, let id = UInt32(fields[2]) { return id }
    }
    throw .unknownAccount(kind: kind, name: name)
  }

  /// The owner alone, or the group too.
  var mode: UInt32 { group == nil ? 0o600 : 0o660 }

  public var description: String {
    [user.map { "user \($0)" }, group.map { "group \($0)" }].compactMap { $0 }.joined(separator: ", ")
  }
}

/// What the caller of bind wants.
public struct BindOptions: Sendable, Hashable {
  /// Takes the card although somebody uses its interfaces.
  public var force = false
  /// Puts everything back after so many milliseconds unless confirmed.
  public var confirmWithin: UInt64?
  /// Takes the card again at every boot.
  public var persist = false
  public var user: String?
  public var group: String?
  /// The command line's own path, for the boot unit.
  public var program = "/usr/bin/ringway"

  public init() {}
}

/// The steps of a bind, and what to say before them.
public struct BindPlan: Sendable, Hashable {
  /// Cards to take, each with what it was.
  public internal(set) var journals: [BindJournal] = []
  /// Cards that vfio-pci has already.
  public internal(set) var alreadyBound: [PCIAddress] = []
  public internal(set) var warnings: [String] = []
  /// Before the watcher starts: the journals.
  public internal(set) var prepare: [BindStep] = []
  /// After it has started.
  public internal(set) var take: [BindStep] = []

  public var steps: [BindStep] { prepare + take }
}
