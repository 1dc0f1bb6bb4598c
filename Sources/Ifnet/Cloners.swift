// Cloners: interfaces that are made by name ("tap3"), and go by name.
//
//     create "tap"  ─> cloner "tap" ─> lowest free unit ─> cloner.create ─> attach ─> "tap0"
//     destroy "lan" ─> the interface of that name ─> the cloner and the unit that it came from
//
// A unit belongs to the interfaces that were made under it until the last of them is detached, whatever their
// names are by then.

public import Netisr

/// What a cloner is asked to make.
public struct CloneRequest: Equatable, Sendable {
  public var unit: Int
  /// The asker's: "parent" and "tag" of a VLAN, for example. Untrusted.
  public var parameters: [String: String]
  public var vnet: Vnet
  public init(unit: Int, parameters: [String: String] = [:], vnet: Vnet = .base) {
    self.unit = unit
    self.parameters = parameters
    self.vnet = vnet
  }
}

/// Makes and destroys the interfaces of one kind. Called on worker 0.
public protocol InterfaceCloner: AnyObject, Sendable {
  /// "tap": letters, not ending in a digit.
  var name: String { get }
  /// Units below this one are made at once, and cannot be destroyed.
  var minimumUnits: Int { get }
  var maximumUnit: Int { get }
  /// false: EOPNOTSUPP for who wants to destroy one.
  var canDestroy: Bool { get }
  /// Attaches the interface (or several: `InterfaceTable.adopt` tells of the others) and returns the one that carries
  /// the unit. When it throws, nothing is left behind.
  func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface
  /// Detaches it, and what was made with it.
  func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError)
}

extension InterfaceCloner {
  public var minimumUnits: Int { 0 }
  public var maximumUnit: Int { 32767 }
  public var canDestroy: Bool { true }
}

/// Where a cloned interface came from; stays through renames.
struct CloneOrigin: Equatable, Sendable {
  var cloner: String
  var unit: Int
}

/// The cloners of a table, and which units are taken.
struct ClonerRegistry {
  private(set) var cloners: [any InterfaceCloner] = []
  /// Interfaces a unit, by cloner. A unit that is being made has an empty set.
  private var units: [String: [Int: Set<ObjectIdentifier>]] = [:]

  mutating func add(_ cloner: any InterfaceCloner) -> Bool {
    if cloners.contains(where: { $0.name == cloner.name }) { return false }
    cloners.append(cloner)
    return true
  }
  mutating func remove(_ name: String) {
    cloners.removeAll { $0.name == name }
  }
  func cloner(named name: String) -> (any InterfaceCloner)? { cloners.first { $0.name == name } }

  /// "tap3" is tap's unit 3; "tap" has none; "tap03" and "tap3x" are nobody's.
  func match(_ name: String) -> (cloner: any InterfaceCloner, unit: Int?)? {
    for cloner in cloners where name.hasPrefix(cloner.name) {
      let digits = name.utf8.dropFirst(cloner.name.utf8.count)
      if digits.isEmpty { return (cloner, nil) }
      guard digits.allSatisfy({ (48...57).contains($0) }), digits.first != 48 || digits.count == 1,
        let unit = Int(String(Substring(digits)))
      else { continue }
      return (cloner, unit)
    }
    return nil
  }

  func isTaken(_ unit: Int, of cloner: String) -> Bool { units[cloner]?[unit] != nil }
  mutating func reserve(_ unit: Int, of cloner: String) { units[cloner, default: [:]][unit] = [] }
  mutating func free(_ unit: Int, of cloner: String) { units[cloner]?[unit] = nil }
  mutating func adopt(_ interface: Interface, _ origin: CloneOrigin) {
    units[origin.cloner, default: [:]][origin.unit, default: []].insert(ObjectIdentifier(interface))
  }
  /// The interface is gone; the last one of a unit frees it.
  mutating func release(_ interface: Interface, _ origin: CloneOrigin) {
    guard units[origin.cloner]?[origin.unit]?.remove(ObjectIdentifier(interface)) != nil else { return }
    if units[origin.cloner]?[origin.unit]?.isEmpty == true { units[origin.cloner]?[origin.unit] = nil }
  }
}

extension InterfaceTable {
  /// Adds a cloner and makes the units that it always has.
  /// - Throws: EEXIST for a second one of a name; EINVAL for a name that ends in a digit or is empty; what `create`
  ///   throws.
  public func register(_ cloner: any InterfaceCloner) throws(InterfaceError) {
    guard let last = cloner.name.utf8.last, !(48...57).contains(last), cloner.name.utf8.count < Self.maximumNameLength else {
      throw InterfaceError(.EINVAL, "a cloner cannot be called \"\(cloner.name)\": its name takes a unit behind it")
    }
    guard cloners.withLock({ $0.add(cloner) }) else {
      throw InterfaceError(.EEXIST, "there is a cloner \"\(cloner.name)\" already")
    }
    for unit in 0..<max(0, cloner.minimumUnits) { _ = try create("\(cloner.name)\(unit)") }
  }

  /// Takes a cloner away; its interfaces stay.
  public func unregisterCloner(_ name: String) { cloners.withLock { $0.remove(name) } }

  /// For cloners that make several interfaces a unit: this one belongs to it as well, and may be named for destroying it.
  public func adopt(_ interface: Interface, cloner: String, unit: Int) {
    let origin = CloneOrigin(cloner: cloner, unit: unit)
    interface.setOrigin(origin)
    cloners.withLock { $0.adopt(interface, origin) }
  }

  /// Makes an interface by name (IFCREATE). On worker 0, or from a thread that is no worker.
  /// - Returns: the interface; its name has the unit that it got.
  /// - Throws: EINVAL (no such cloner, bad digits), EEXIST, ENOSPC (no free unit), ENXIO (above the highest unit).
  public func create(_ name: String, parameters: [String: String] = [:], vnet: Vnet = .base) throws(InterfaceError) -> Interface {
    try control { [self] () throws(InterfaceError) in
      guard let (cloner, wanted) = cloners.withLock({ $0.match(name) }) else {
        throw InterfaceError(.EINVAL, "\"\(name)\" names no kind of interface that can be made (`ringway ifconfig -C` lists them)")
      }
      let unit = try chooseUnit(wanted, of: cloner, asked: name)
      cloners.withLock { $0.reserve(unit, of: cloner.name) }
      do throws(InterfaceError) {
        let interface = try cloner.create(CloneRequest(unit: unit, parameters: parameters, vnet: vnet), in: self)
        adopt(interface, cloner: cloner.name, unit: unit)
        return interface
      } catch {
        cloners.withLock { $0.free(unit, of: cloner.name) }
        throw error
      }
    }
  }

  private func chooseUnit(_ wanted: Int?, of cloner: any InterfaceCloner, asked: String) throws(InterfaceError) -> Int {
    if let wanted {
      guard wanted <= cloner.maximumUnit else {
        throw InterfaceError(.ENXIO, "\(asked): units of \(cloner.name) end at \(cloner.maximumUnit)")
      }
      if cloners.withLock({ $0.isTaken(wanted, of: cloner.name) }) || interface(named: asked) != nil {
        throw InterfaceError(.EEXIST, "\(asked) exists already")
      }
      return wanted
    }
    let free = cloners.withLock { registry in
      (0...max(0, cloner.maximumUnit)).first { !registry.isTaken($0, of: cloner.name) && interface(named: "\(cloner.name)\($0)") == nil }
    }
    guard let free else { throw InterfaceError(.ENOSPC, "\(cloner.name): all \(cloner.maximumUnit + 1) units are taken") }
    return free
  }

  /// Destroys an interface that a cloner made (IFDESTROY), whatever it is called now.
  /// - Throws: EINVAL (no cloner made it, or its unit is kept), ENXIO (absent), EOPNOTSUPP, what the cloner throws.
  public func destroy(_ name: String, vnet: Vnet? = nil) throws(InterfaceError) {
    try control { [self] () throws(InterfaceError) in
      guard let interface = interface(named: name, vnet: vnet) else {
        guard let (_, unit) = cloners.withLock({ $0.match(name) }), unit != nil else {
          throw InterfaceError(.EINVAL, "\"\(name)\" names no interface that was made by name")
        }
        throw InterfaceError(.ENXIO, "there is no interface \(name)")
      }
      guard let origin = interface.origin, let cloner = cloners.withLock({ $0.cloner(named: origin.cloner) }) else {
        throw InterfaceError(.EINVAL, "\(name) was not made by name and cannot be destroyed")
      }
      guard origin.unit >= cloner.minimumUnits else {
        throw InterfaceError(.EINVAL, "\(name): \(cloner.name) keeps its first \(cloner.minimumUnits) units")
      }
      guard cloner.canDestroy else { throw InterfaceError(.EOPNOTSUPP, "\(name): interfaces of \(cloner.name) cannot be destroyed") }
      try cloner.destroy(interface, in: self)
    }
  }

  /// The names of up to `count` cloners, and how many there are (IFGCLONERS).
  /// - Throws: EINVAL for a negative count.
  public func clonerNames(_ count: Int = .max) throws(InterfaceError) -> (names: [String], total: Int) {
    guard count >= 0 else { throw InterfaceError(.EINVAL, "a list of cloners cannot have \(count) entries") }
    let names = cloners.withLock { $0.cloners.map(\.name) }
    return (Array(names.prefix(count)), names.count)
  }
}
