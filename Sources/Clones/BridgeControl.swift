// How a bridge is asked and told: requests by name, and the cloner.

public import Ether
public import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Wire

extension BridgeDriver {
  /// Beside what every interface is asked: addm, deletem, learn, discover, private (with "-" in front to switch off),
  /// static ("member address"), deladdr, flush, flushall, maxaddr, timeout.
  public func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .setFlags(_, let new):
      let isUp = new.contains(.up)
      interface.setDriverFlags(isUp ? .running : [], clear: isUp ? [] : .running)
    case .setMTU(let mtu):
      if let odd = members.first(where: { $0.interface.mtu != mtu }) {
        throw InterfaceError(.EINVAL, "\(interface.name): the MTU of its member \(odd.interface.name) is \(odd.interface.mtu)")
      }
    case .addMulticast, .deleteMulticast, .setLinkAddress, .setCapabilities: return
    case .generic(let name, let value): try generic(name, value, interface)
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name): a bridge cannot do this")
    }
  }

  private func generic(_ name: String, _ value: String, _ bridge: Interface) throws(InterfaceError) {
    switch name {
    case "addm": try add(try named(value, bridge))
    case "deletem": try remove(try named(value, bridge))
    case "static":
      let parts = value.split(separator: " ")
      guard parts.count == 2, let address = MACAddress(parts[1]) else {
        throw InterfaceError(.EINVAL, "\(bridge.name): a static entry is a member and an address")
      }
      try addStatic(address, on: try named(String(parts[0]), bridge))
    case "deladdr":
      guard let address = MACAddress(value) else { throw InterfaceError(.EINVAL, "\(bridge.name): \"\(value.prefix(40))\" is no address") }
      try forget(address)
    case "flush": flush()
    case "flushall": flush(statics: true)
    case "maxaddr": addressLimit = try number(value, 1...addresses.largestLimit, bridge)
    case "timeout": addressTimeout = try number(value, 0...Int(Int32.max), bridge)
    default: try setFlag(name, value, bridge)
    }
  }

  private func setFlag(_ name: String, _ value: String, _ bridge: Interface) throws(InterfaceError) {
    let known: [String: BridgeMemberFlags] = ["learn": .learn, "discover": .discover, "private": .private]
    let isOff = name.hasPrefix("-")
    guard let flag = known[isOff ? String(name.dropFirst()) : name] else {
      throw InterfaceError(.EOPNOTSUPP, "\(bridge.name): a bridge knows nothing called \"\(name.prefix(40))\"")
    }
    let member = try named(value, bridge)
    let old = members.first { $0.interface === member }?.flags ?? []
    try setFlags(isOff ? old.subtracting(flag) : old.union(flag), of: member)
  }

  private func named(_ name: String, _ bridge: Interface) throws(InterfaceError) -> Interface {
    guard let found = bridge.table.interface(named: name, vnet: bridge.vnet) else {
      throw InterfaceError(.ENXIO, "\(bridge.name): there is no interface \(name.prefix(40))")
    }
    return found
  }

  private func number(_ text: String, _ range: ClosedRange<Int>, _ bridge: Interface) throws(InterfaceError) -> Int {
    guard let value = Int(text), range.contains(value) else {
      throw InterfaceError(.EINVAL, "\(bridge.name): \"\(text.prefix(40))\" is outside \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }

  public func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer {
    switch query {
    case .status:
      let lines = members.map { member, flags in
        let words = [(BridgeMemberFlags.learn, "LEARNING"), (.discover, "DISCOVER"), (.private, "PRIVATE")]
        return "member: \(member.name) flags=\(flags.rawValue)<\(words.filter { flags.contains($0.0) }.map(\.1).joined(separator: ","))>"
      }
      return .text((["maxaddr \(addressLimit) timeout \(addressTimeout)"] + lines).joined(separator: "\n"))
    case .generic(let name) where name == "addresses":
      return .text(knownAddresses.map { "\($0.address) \($0.member) \($0.expires.map(String.init) ?? "0") \($0.isStatic ? "STATIC" : "DYNAMIC")" }.joined(separator: "\n"))
    case .generic(let name) where name == "members": return .text(members.map(\.interface.name).joined(separator: " "))
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name) does not say this")
    }
  }
}

/// Makes bridges. Parameters: `members` (names with commas between), `mac`, `maxaddr`, `timeout`.
public final class BridgeCloner: InterfaceCloner {
  public let name = "bridge"
  /// Stations a bridge learns at first, as in FreeBSD.
  static let addressLimit = 2000
  private let ether: EtherLayer
  private let token = Guarded<WorkerToken?>(nil)

  public init(_ ether: EtherLayer, _ table: InterfaceTable) {
    self.ether = ether
    let token = table.subscribe { [weak table] event, interface in
      for bridge in table?.interfaces ?? [] { (bridge.driver as? BridgeDriver)?.memberChanged(event, interface) }
    }
    self.token.withLock { $0 = token }
  }

  deinit { token.withLock { $0?.cancel() } }

  public func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface {
    let asked = "\(name)\(request.unit)"
    var parameters = CloneParameters(request, of: asked)
    let address = try parameters.address("mac") ?? .local(last: UInt8(truncatingIfNeeded: request.unit))
    let names = parameters.text("members")?.split(separator: ",").map(String.init) ?? []
    let limit = try parameters.number("maxaddr", in: 1...65536) ?? Self.addressLimit
    let timeout = try parameters.number("timeout", in: 0...Int(Int32.max)) ?? 1200
    try parameters.finish()
    let driver = BridgeDriver(ether, table.netisr, limit: limit)
    driver.addressTimeout = timeout
    var options = InterfaceOptions(name, unit: request.unit, type: .bridge)
    options.linkAddress = address
    options.queueLength = SendLimits.standard
    options.subqueues = table.netisr.workers.count
    options.vnet = request.vnet
    let bridge = try table.attach(options, driver: driver)
    driver.join(bridge)
    do throws(InterfaceError) {
      for member in names {
        guard let interface = table.interface(named: member, vnet: request.vnet) else {
          throw InterfaceError(.ENXIO, "\(asked): there is no interface \(member.prefix(40))")
        }
        try driver.add(interface)
      }
    } catch {
      try destroy(bridge, in: table)
      throw error
    }
    return bridge
  }

  public func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError) {
    (interface.driver as? BridgeDriver)?.dissolve()
    table.detach(interface)
  }
}
