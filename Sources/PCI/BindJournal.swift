// The journal of one card: how it was before, and how far we have got. Small text files that the
// next process can act on without knowing what the last one thought.
//
//     ringway-bind 1
//     address 0000:03:00.0
//     card 8086:10d3
//     phase binding
//     driver e1000e
//     interface enp3s0
//     end

/// How far a bind or unbind has got.
public enum BindPhase: String, Sendable {
  /// Being taken. If the process is gone, everything goes back.
  case binding
  /// Taken: vfio-pci has it.
  case bound
  /// Being given back. If the process is gone, that is brought to its end.
  case restoring
}

/// What is needed to give a card back exactly as it was.
public struct BindJournal: Hashable, Sendable {
  public var address: PCIAddress
  /// `vendor:device`, so that a journal is never applied to another card in the same place.
  public var card: String
  public var phase: BindPhase
  /// The driver that had it; nil when it had none.
  public var driver: String?
  public var driverOverride: String?
  public var interfaces: [InterfaceSettings]
  /// Milliseconds of CLOCK_BOOTTIME after which the card goes back unless confirmed.
  public var deadline: UInt64?
  /// Make it last over boots once it is confirmed.
  public var persistWhenConfirmed = false
  /// Files that this operation made and that go when the card goes back.
  public var files: [String] = []

  /// The file's text.
  public var text: String {
    var lines = ["ringway-bind 1", "address \(address)", "card \(card)", "phase \(phase.rawValue)"]
    if let driver { lines.append("driver \(driver)") }
    if let driverOverride { lines.append("override \(driverOverride)") }
    for interface in interfaces {
      lines.append("interface \(interface.name)")
      if interface.isUp { lines.append("up \(interface.name)") }
      if let mtu = interface.mtu { lines.append("mtu \(interface.name) \(mtu)") }
      if let master = interface.master { lines.append("master \(interface.name) \(master)") }
      lines += interface.messages.map { "message \(interface.name) \($0)" }
    }
    if let deadline { lines.append("deadline \(deadline)") }
    if persistWhenConfirmed { lines.append("persist confirmed") }
    lines += files.map { "file \($0)" }
    return (lines + ["end", ""]).joined(separator: "\n")
  }

  /// Reads what `text` wrote; anything else is an error, by line.
  init(text: String, path: String) throws(BindError) {
    func fail(_ line: Int, _ reason: String) -> BindError { .badJournal(path: path, line: line, reason: reason) }
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    guard lines.first == "ringway-bind 1" else { throw fail(1, "\"ringway-bind 1\" expected") }
    guard let end = lines.firstIndex(of: "end") else { throw fail(lines.count, "the line \"end\" is missing") }
    var fields: [String: [String]] = [:]
    for (index, line) in lines[1..<end].enumerated() {
      let parts = line.split(separator: " ", maxSplits: 1)
      guard parts.count == 2, Self.known.contains(String(parts[0])) else { throw fail(index + 2, "\"\(line)\" not known") }
      fields[String(parts[0]), default: []].append(String(parts[1]))
    }
    guard let name = fields["address"]?.first, let address = try? PCIAddress(name) else {
      throw fail(2, "an address is missing")
    }
    guard let card = fields["card"]?.first else { throw fail(3, "the card is missing") }
    guard let phase = fields["phase"]?.first.flatMap(BindPhase.init) else { throw fail(4, "the phase is missing") }
    self.init(
      address: address, card: card, phase: phase, driver: fields["driver"]?.first,
      driverOverride: fields["override"]?.first,
      interfaces: (fields["interface"] ?? []).map { Self.interface($0, fields) })
    deadline = fields["deadline"]?.first.flatMap { UInt64($0) }
    if fields["deadline"] != nil && deadline == nil { throw fail(end, "the deadline is no number") }
    persistWhenConfirmed = fields["persist"] != nil
    files = fields["file"] ?? []
  }

  /// The lines that begin with the interface's name.
  private static func interface(_ name: String, _ fields: [String: [String]]) -> InterfaceSettings {
    func values(_ key: String) -> [String] {
      (fields[key] ?? []).filter { $0.hasPrefix(name + " ") }.map { String($0.dropFirst(name.count + 1)) }
    }
    var settings = InterfaceSettings(name: name)
    settings.isUp = fields["up"]?.contains(name) ?? false
    settings.mtu = values("mtu").first.flatMap { Int($0) }
    settings.master = values("master").first
    settings.messages = values("message")
    return settings
  }

  private static let known: Set = [
    "address", "card", "phase", "driver", "override", "interface", "up", "mtu", "master", "message", "deadline",
    "persist", "file",
  ]

  init(
    address: PCIAddress, card: String, phase: BindPhase, driver: String?, driverOverride: String?,
    interfaces: [InterfaceSettings]
  ) {
    self.address = address
    self.card = card
    self.phase = phase
    self.driver = driver
    self.driverOverride = driverOverride
    self.interfaces = interfaces
  }
}

/// The directory of journals.
struct JournalStore<Effects: SystemEffects> {
  let roots: SystemRoots
  let effects: Effects

  func path(_ address: PCIAddress) -> String { "\(roots.journals)/\(address).journal" }

  func load(_ address: PCIAddress) throws(BindError) -> BindJournal? {
    guard let bytes = SystemFiles.bytes(path(address)) else { return nil }
    return try BindJournal(text: String(decoding: bytes, as: UTF8.self), path: path(address))
  }

  /// On the disk when this returns.
  func save(_ journal: BindJournal) throws(BindError) {
    try attempt { () throws(EffectError) in try effects.replaceFile(path(journal.address), text: journal.text) }
  }

  func remove(_ address: PCIAddress) throws(BindError) {
    try attempt { () throws(EffectError) in
      try effects.remove(path(address))
      try effects.synchronizeDirectory(roots.journals)
    }
  }

  /// Addresses that have a journal.
  func addresses() -> [PCIAddress] {
    SystemFiles.list(roots.journals).compactMap { name in
      name.hasSuffix(".journal") ? try? PCIAddress(String(name.dropLast(".journal".count))) : nil
    }.sorted()
  }

  /// Files that a crash left half written; the journal itself is whole beside them.
  func removeLeftovers() throws(BindError) {
    for name in SystemFiles.list(roots.journals) where name.hasSuffix(".new") {
      try attempt { () throws(EffectError) in try effects.remove("\(roots.journals)/\(name)") }
    }
  }
}

/// Turns a failed effect into a failed bind.
func attempt<Value>(_ body: () throws(EffectError) -> Value) throws(BindError) -> Value {
  do { return try body() } catch { throw .effect(error) }
}
