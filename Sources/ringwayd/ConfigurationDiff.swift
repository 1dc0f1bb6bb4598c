// From what runs to what is wanted, as steps; a pure function.

import Control

/// One thing to do.
enum ConfigurationStep: Equatable, CustomStringConvertible {
  case logLevel(String)
  case destroy(String)
  case deleteRoute(String)
  case create(name: String, options: [String: String])
  case change(interface: String, InterfaceChange)
  case addRoute(RouteTarget)
  case sysctl(name: String, value: String)

  var description: String {
    switch self {
    case .logLevel(let level): "log at \(level)"
    case .destroy(let name): "destroy \(name)"
    case .deleteRoute(let prefix): "delete the route to \(prefix)"
    case .create(let name, _): "create \(name)"
    case .change(let interface, let change): "\(interface): \(change)"
    case .addRoute(let route): "add the route to \(route.prefix)"
    case .sysctl(let name, let value): "\(name) = \(value)"
    }
  }
}

struct ConfigurationDiff: Equatable {
  var steps: [ConfigurationStep] = []
  /// Always there, and never made or destroyed.
  static let builtIn = "lo0"
  /// What cannot change while the daemon runs, a sentence each.
  var warnings: [String] = []

  /// - Parameters:
  ///   - names: what the cards' interfaces are called, by device; a card that is missing has none.
  init(from old: Configuration, to new: Configuration, names: [String: String]) {
    settled(old, new)
    if old.log != new.log { steps.append(.logLevel(new.log.level)) }
    let routes = Self.byKey(old.routes, \.prefix)
    let wantedRoutes = Self.byKey(new.routes, \.prefix)
    // Routes that are changed go first and come back at the end: their interface may be another one then.
    for route in old.routes where wantedRoutes[route.prefix] != route { steps.append(.deleteRoute(route.prefix)) }
    clones(old, new)
    for card in new.cards {
      guard let name = names[card.device] else { continue }
      let before = old.cards.first { $0.device == card.device }?.settings ?? InterfaceSettings(up: false)
      change(name, from: before, to: card.settings)
    }
    for route in new.routes where routes[route.prefix] != route { steps.append(.addRoute(route)) }
    forwarding("net.inet.ip.forwarding", old.forwarding.inet, new.forwarding.inet)
    forwarding("net.inet6.ip6.forwarding", old.forwarding.inet6, new.forwarding.inet6)
    if new.netmap.enabled, old.netmap.enabled, old.netmap.spin != new.netmap.spin {
      steps.append(.sysctl(name: "netmap.spin_us", value: String(new.netmap.spin)))
    }
    for (name, value) in new.sysctl.sorted(by: { $0.key < $1.key }) where old.sysctl[name] != value {
      steps.append(.sysctl(name: name, value: value))
    }
    for name in old.sysctl.keys.sorted() where new.sysctl[name] == nil {
      warnings.append("sysctl.\(name) is gone from the file: the control keeps its value until it is set or the daemon starts anew.")
    }
  }

  /// What of [netmap] stays as it was at the start: all but the time of looking.
  private static func settled(_ section: NetmapSection) -> NetmapSection {
    var section = section
    section.spin = 0
    return section
  }

  private static func byKey<T>(_ list: [T], _ key: KeyPath<T, String>) -> [String: T] {
    Dictionary(list.map { ($0[keyPath: key], $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// What is settled at the start.
  private mutating func settled(_ old: Configuration, _ new: Configuration) {
    let tables = [
      ("netisr", old.netisr == new.netisr), ("memory", old.memory == new.memory), ("control", old.control == new.control),
      ("netmap", Self.settled(old.netmap) == Self.settled(new.netmap)),
      ("daemon", old.daemon == new.daemon),
    ]
    for (name, same) in tables where !same { warnings.append("[\(name)] changes when the daemon starts anew.") }
    func hardware(_ card: CardSection) -> CardSection {
      var card = card
      card.settings = InterfaceSettings()
      return card
    }
    let before = Self.byKey(old.cards, \.device)
    for card in new.cards where before[card.device].map(hardware) != hardware(card) {
      warnings.append("the card \(card.device) is new or has other rings: it is opened so when the daemon starts anew.")
    }
    for card in old.cards where !new.cards.contains(where: { $0.device == card.device }) {
      warnings.append("the card \(card.device) is gone from the file: it is given back when the daemon starts anew.")
    }
  }

  private mutating func clones(_ old: Configuration, _ new: Configuration) {
    let before = Self.byKey(old.interfaces, \.name)
    let after = Self.byKey(new.interfaces, \.name)
    func isSame(_ a: CloneSection?, _ b: CloneSection?) -> Bool { a?.kind == b?.kind && a?.options == b?.options }
    // Those on top (VLANs, bridges) stand below in the file: they go first.
    for clone in old.interfaces.reversed() where clone.name != Self.builtIn && !isSame(after[clone.name], clone) { steps.append(.destroy(clone.name)) }
    for clone in new.interfaces {
      var settings = InterfaceSettings(up: false)
      if isSame(before[clone.name], clone) {
        settings = before[clone.name]?.settings ?? settings
      } else if clone.name != Self.builtIn {
        steps.append(.create(name: clone.name, options: clone.options))
      }
      change(clone.name, from: settings, to: clone.settings)
    }
  }

  private mutating func change(_ name: String, from old: InterfaceSettings, to new: InterfaceSettings) {
    func add(_ change: InterfaceChange) { steps.append(.change(interface: name, change)) }
    if old.up, !new.up { add(.flags(set: [], clear: ["UP"])) }
    if let address = new.linkAddress, address != old.linkAddress { add(.linkAddress(address: address)) }
    if let mtu = new.mtu, mtu != old.mtu { add(.mtu(bytes: mtu)) }
    if let media = new.media, media != old.media { add(.media(type: media)) }
    if new.description != old.description { add(.description(text: new.description ?? "")) }
    let (enable, disable) = (new.enable.filter { !old.enable.contains($0) }, new.disable.filter { !old.disable.contains($0) })
    if !enable.isEmpty || !disable.isEmpty { add(.capabilities(enable: enable, disable: disable)) }
    for group in old.groups where !new.groups.contains(group) { add(.deleteGroup(name: group)) }
    for group in new.groups where !old.groups.contains(group) { add(.addGroup(name: group)) }
    for address in old.addresses where !new.addresses.contains(address) { add(.deleteAddress(address: address)) }
    for address in new.addresses where !old.addresses.contains(address) {
      add(.addAddress(address: address, broadcast: nil, destination: nil))
    }
    if new.up, !old.up { add(.flags(set: ["UP"], clear: [])) }
    if new.promiscuous != old.promiscuous { add(.promiscuous(on: new.promiscuous)) }
    if new.polling != old.polling { add(.polling(on: new.polling)) }
    for (key, was, isNow) in [("mtu", old.mtu.map(String.init), new.mtu.map(String.init)), ("ether", old.linkAddress, new.linkAddress), ("media", old.media, new.media)]
    where was != nil && isNow == nil {
      warnings.append("\(name): \(key) is gone from the file: it keeps its value until it is set or the daemon starts anew.")
    }
  }

  private mutating func forwarding(_ name: String, _ old: Bool?, _ new: Bool?) {
    if let new, new != old { steps.append(.sysctl(name: name, value: new ? "1" : "0")) }
  }
}
