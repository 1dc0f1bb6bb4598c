// Routes and neighbours of a stack, as requests of people.

public import Control
internal import Ifnet
internal import Inet
internal import Inet6
internal import Packet
internal import Routes
internal import Wire

extension Stack {
  private func name(_ index: InterfaceIndex) -> String? { interfaces.interface(index)?.name }

  private func record(_ route: Route4) -> RouteRecord {
    var record = RouteRecord(family: "inet", prefix: "\(route.prefix)", flags: "\(route.flags)")
    record.gateway = route.gateway.map { "\($0)" }
    record.interface = name(route.interface)
    record.mtu = route.mtu == 0 ? nil : route.mtu
    return record
  }
  private func record(_ route: Route6) -> RouteRecord {
    var record = RouteRecord(family: "inet6", prefix: "\(route.prefix)", flags: "\(route.flags)")
    record.gateway = route.gateway.map { "\($0)" }
    record.interface = name(route.interface)
    record.mtu = route.mtu == 0 ? nil : route.mtu
    return record
  }

  private func checked(_ family: String?) throws(ControlError) {
    if let family, family != "inet", family != "inet6" { throw ControlError("EINVAL", "there is no family \"\(family)\": inet, inet6.") }
  }

  public func routeRecords(family: String?) throws(ControlError) -> [RouteRecord] {
    try checked(family)
    return (family == "inet6" ? [] : routes.list4().map { record($0) }) + (family == "inet" ? [] : routes.list6().map { record($0) })
  }

  /// The route that a packet to the address takes.
  public func route(to text: String) throws(ControlError) -> RouteRecord {
    let (found, known): (RouteRecord?, Bool) = switch try address(text).address {
    case .ipv4(let address): (netisr.worker(0).perform { [routes] in routes.lookup(address) }.map { record($0) }, true)
    case .ipv6(let address): (netisr.worker(0).perform { [routes] in routes.lookup(address) }.map { record($0) }, true)
    default: (nil, false)
    }
    guard known else { throw ControlError("EINVAL", "\"\(text)\" is no IP address.") }
    guard let found else { throw ControlError("ESRCH", "there is no route to \(text). `ringway netstat -r` lists them.") }
    return found
  }

  /// Adds a route, or replaces it.
  public func setRoute(_ target: RouteTarget, replacing: Bool) throws(ControlError) -> RouteRecord {
    var gateway: AddressText?
    if let text = target.gateway {
      gateway = try address(text)
      guard gateway?.length == nil else { throw ControlError("EINVAL", "\"\(text)\" is no gateway: it has a prefix length.") }
    }
    guard let prefix = PrefixText(target.prefix, like: gateway?.family) else {
      throw ControlError("EINVAL", "\"\(target.prefix)\" is no prefix. Write default, 198.18.0.0/15 or 2001:2::/48.")
    }
    var flags: RouteFlags = [.up, .static]
    if target.gateway != nil { flags.insert(.gateway) }
    if target.reject == true { flags.insert(.reject) }
    if target.blackhole == true { flags.insert(.blackhole) }
    if let mtu = target.mtu, !(72...65535).contains(mtu) { throw ControlError("EINVAL", "a route's MTU is 72 to 65535, not \(mtu).") }
    let index = try target.interface.map { name throws(ControlError) in try interface(name).index }
    switch prefix {
    case .ipv4(let prefix):
      var next: IPv4Address?
      if let gateway { guard case .ipv4(let address) = gateway.address else { throw mixed(target) }; next = address }
      if prefix.length == 32 { flags.insert(.host) }
      let through = try self.through(index, next.map { .ipv4($0) }, target)
      let route = Route4(prefix, gateway: next, interface: through, flags: flags, mtu: target.mtu ?? 0)
      do { try routes.add(route, replacing: replacing) } catch { throw ControlError(error) }
      return record(route)
    case .ipv6(let prefix):
      var next: IPv6Address?
      if let gateway { guard case .ipv6(let address) = gateway.address else { throw mixed(target) }; next = address }
      if prefix.length == 128 { flags.insert(.host) }
      let through = try self.through(index, next.map { .ipv6($0) }, target)
      let route = Route6(prefix, gateway: next, interface: through, flags: flags, mtu: target.mtu ?? 0)
      do { try routes.add(route, replacing: replacing) } catch { throw ControlError(error) }
      return record(route)
    }
  }

  /// Replaces a route that is there. ESRCH
  public func changeRoute(_ target: RouteTarget) throws(ControlError) -> RouteRecord {
    let family = target.gateway.flatMap { AddressText($0)?.family }
    let isThere = switch PrefixText(target.prefix, like: family) {
    case .ipv4(let prefix): routes.route(prefix) != nil
    case .ipv6(let prefix): routes.route(prefix) != nil
    case nil: true
    }
    guard isThere else { throw ControlError(RouteError.missing(target.prefix)) }
    return try setRoute(target, replacing: true)
  }

  private func mixed(_ target: RouteTarget) -> ControlError {
    ControlError("EINVAL", "the gateway \(target.gateway ?? "") and \(target.prefix) are of two families.")
  }
  private func nowhere(_ target: RouteTarget) -> ControlError {
    ControlError("EINVAL", "the route to \(target.prefix) leads nowhere: name a gateway or an interface.")
  }

  private func through(_ index: InterfaceIndex?, _ gateway: SocketAddress?, _ target: RouteTarget) throws(ControlError) -> InterfaceIndex {
    if let index { return index }
    guard let found = try outgoing(gateway, target) else { throw nowhere(target) }
    return found
  }

  /// The interface on whose network the gateway is. Rejecting routes need one too: the first there is.
  private func outgoing(_ gateway: SocketAddress?, _ target: RouteTarget) throws(ControlError) -> InterfaceIndex? {
    guard let gateway else {
      return target.reject == true || target.blackhole == true ? interfaces.interfaces.first?.index : nil
    }
    for interface in interfaces.interfaces {
      for own in interface.addresses where own.address.family == gateway.family {
        switch (own.address, gateway) {
        case (.ipv4(let a), .ipv4(let b)) where IPv4Prefix(a, own.prefixLength) == IPv4Prefix(b, own.prefixLength): return interface.index
        case (.ipv6(let a), .ipv6(let b)) where !b.isLinkLocal && IPv6Prefix(a, own.prefixLength) == IPv6Prefix(b, own.prefixLength):
          return interface.index
        default: if own.destination == gateway { return interface.index }
        }
      }
    }
    throw ControlError(RouteError.unreachable("\(gateway)"))
  }

  /// EINVAL, ESRCH.
  public func deleteRoute(_ text: String) throws(ControlError) -> RouteRecord {
    do {
      switch PrefixText(text) {
      case .ipv4(let prefix): return record(try routes.remove(prefix) as Route4)
      case .ipv6(let prefix): return record(try routes.remove(prefix) as Route6)
      case nil: break
      }
    } catch { throw ControlError(error) }
    throw ControlError("EINVAL", "\"\(text)\" is no prefix. Write default, 198.18.0.0/15 or 2001:2::/48.")
  }

  /// Routes with gateways go; how many.
  public func flushRoutes(family: String?) throws(ControlError) -> Int {
    try checked(family)
    var count = 0
    if family != "inet6" { for route in routes.list4() where route.flags.contains(.gateway) { if (try? routes.remove(route.prefix)) != nil { count += 1 } } }
    if family != "inet" { for route in routes.list6() where route.flags.contains(.gateway) { if (try? routes.remove(route.prefix)) != nil { count += 1 } } }
    return count
  }

  // MARK: Neighbours

  public func neighbourRecords(family: String?, interface: String?) throws(ControlError) -> [NeighbourRecord] {
    try checked(family)
    if let interface { _ = try self.interface(interface) }
    var found: [NeighbourRecord] = []
    if family != "inet6" {
      for entry in inet.arpEntries() {
        let state = entry.state == "down" ? "failed" : entry.state == "probing" ? "probe" : entry.state
        var record = NeighbourRecord(family: "inet", address: "\(entry.address)", interface: entry.interface, state: state)
        record.ether = entry.station?.description
        record.expires = entry.expires.map { Double($0) }
        record.published = entry.isPublished
        found.append(record)
      }
    }
    if family != "inet" {
      for entry in inet6.neighbours() {
        let words: [String: String] = ["N": "incomplete", "R": "reachable", "S": "stale", "D": "delay", "P": entry.expires == nil ? "permanent" : "probe"]
        var record = NeighbourRecord(
          family: "inet6", address: "\(entry.address)", interface: name(entry.interface) ?? "-", state: words["\(entry.state)"] ?? "\(entry.state)")
        record.ether = entry.mac?.description
        record.expires = entry.expires.map { Double($0) }
        record.isRouter = entry.isRouter
        found.append(record)
      }
    }
    return found.filter { interface == nil || $0.interface == interface }
  }

  /// A permanent entry.
  public func setNeighbour(_ request: NeighbourSet) throws(ControlError) -> NeighbourRecord {
    guard let station = MACAddress(request.ether) else { throw ControlError("EINVAL", "\"\(request.ether)\" is no link address.") }
    let on = try request.interface.map { name throws(ControlError) in try interface(name) }
    do {
      switch try address(request.address).address {
      case .ipv4(let address): try inet.setARP(address, station, on: on)
      case .ipv6(let address):
        let index = try through(on?.index, .ipv6(address), RouteTarget(request.address))
        guard let interface = interfaces.interface(index) else {
          throw ControlError("ENXIO", "the interface of \(address) has gone.")
        }
        try inet6.setNeighbour(address, station, on: interface)
      default: throw ControlError("EINVAL", "\"\(request.address)\" is no IP address.")
      }
    } catch let error as InterfaceError { throw ControlError(error) } catch let error as ControlError { throw error } catch {
      throw ControlError("EIO", "\(error)")
    }
    let all = try neighbourRecords(family: nil, interface: request.interface)
    let text = "\(try address(request.address).address)"
    guard let record = all.first(where: { $0.address == text }) else { throw ControlError("ENXIO", "the neighbour \(text) has gone again.") }
    return record
  }

  public func deleteNeighbour(_ request: NeighbourDelete) throws(ControlError) {
    let on = try request.interface.map { name throws(ControlError) in try interface(name) }
    do {
      switch try address(request.address).address {
      case .ipv4(let address): try inet.deleteARP(address, on: on)
      case .ipv6(let address):
        let holders = inet6.neighbours().filter { $0.address == address && (on == nil || $0.interface == on?.index) }
        guard let holder = holders.first, let interface = interfaces.interface(holder.interface) else {
          throw ControlError("ENOENT", "there is no neighbour \(address). `ringway ndp -a` lists them.")
        }
        try inet6.deleteNeighbour(address, on: interface)
      default: throw ControlError("EINVAL", "\"\(request.address)\" is no IP address.")
      }
    } catch let error as InterfaceError { throw ControlError(error) } catch let error as ControlError { throw error } catch {
      throw ControlError("EIO", "\(error)")
    }
  }

  /// Forgets what was learned; how many.
  public func flushNeighbours(_ request: NeighbourFlush) throws(ControlError) -> Int {
    let learned = try neighbourRecords(family: request.family, interface: request.interface).filter { $0.state != "permanent" }
    for record in learned { try? deleteNeighbour(NeighbourDelete(address: record.address, interface: record.interface)) }
    return learned.count
  }
}
