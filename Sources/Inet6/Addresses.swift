// Addresses: adding and removing, and the proof that nobody else has them (RFC 4862). On worker 0.

public import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

/// Marks in `InterfaceAddress.flags`, with FreeBSD's values (netinet6/in6_var.h).
public struct IPv6AddressFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let anycast = IPv6AddressFlags(rawValue: 0x01)
  /// Not yet known to be this machine's alone; not used.
  public static let tentative = IPv6AddressFlags(rawValue: 0x02)
  /// Somebody else has it; not used.
  public static let duplicated = IPv6AddressFlags(rawValue: 0x04)
  /// Its preferred lifetime is over: not for new connections.
  public static let deprecated = IPv6AddressFlags(rawValue: 0x10)
  /// From a router's prefix.
  public static let autoconf = IPv6AddressFlags(rawValue: 0x40)
  public var description: String {
    [(Self.anycast, "anycast"), (.tentative, "tentative"), (.duplicated, "duplicated"), (.deprecated, "deprecated"), (.autoconf, "autoconf")]
      .filter { contains($0.0) }.map(\.1).joined(separator: " ")
  }
}

extension InterfaceAddress {
  public var ipv6Flags: IPv6AddressFlags { IPv6AddressFlags(rawValue: flags) }
}

/// One of this machine's addresses.
final class AddressRecord {
  enum State { case tentative, ready, duplicated }
  let entry: InterfaceAddress
  let address: IPv6Address
  let prefixLength: Int
  let destination: IPv6Address?
  var state = State.tentative
  var isAutoconf = false
  var isAnycast = false
  var probes = 0
  var timer: WorkerToken?
  /// Clock time; `.max` is for ever.
  var validUntil = UInt64.max
  var preferredUntil = UInt64.max
  var isDeprecated = false

  init(_ address: IPv6Address, _ prefixLength: Int, on interface: Interface, destination: IPv6Address? = nil) {
    self.address = address
    self.prefixLength = prefixLength
    self.destination = destination
    entry = InterfaceAddress(
      .ipv6(address), on: interface, prefixLength: prefixLength, destination: destination.map { .ipv6($0) })
  }

  var flags: IPv6AddressFlags {
    var flags: IPv6AddressFlags = []
    if state == .tentative { flags.insert(.tentative) }
    if state == .duplicated { flags.insert(.duplicated) }
    if isDeprecated { flags.insert(.deprecated) }
    if isAutoconf { flags.insert(.autoconf) }
    if isAnycast { flags.insert(.anycast) }
    return flags
  }
}

extension Inet6 {
  /// Every worker hears what an address is worth now.
  func publish(_ record: AddressRecord, _ link: Link6) {
    record.entry.flags = record.flags.rawValue
    var bits: UInt8 = 0
    if record.state == .ready { bits |= OwnAddress.ready }
    if record.isDeprecated { bits |= OwnAddress.deprecated }
    if record.isAnycast { bits |= OwnAddress.anycast }
    let own = OwnAddress(bits: bits, prefixLength: UInt8(clamping: record.prefixLength), link: link.index.word)
    let address = record.address
    let key = address.isLinkScoped ? link.index.word : 0
    unsafe publish { unsafe $0.pointee.own.set(address, key, own) }
  }

  func addAddress(_ record: AddressRecord, _ link: Link6) {
    link.addresses.append(record)
    publish(record, link)
    link.interface.add(record.entry)
    installRoutes(record, link)
    if !link.isLoopback { join(record.address.solicitedNode, link) }
    if link.isUp || link.isLoopback { startDetection(record, link, delay: 0) }
  }

  func removeAddress(_ record: AddressRecord, _ link: Link6) {
    record.timer?.cancel()
    link.addresses.removeAll { $0 === record }
    let address = record.address
    let key = address.isLinkScoped ? link.index.word : 0
    unsafe publish { unsafe $0.pointee.own.remove(address, key) }
    removeRoutes(record, link)
    if !link.isLoopback { leave(record.address.solicitedNode, link) }
    link.interface.remove(record.entry)
  }

  // MARK: Routes of addresses

  func installRoutes(_ record: AddressRecord, _ link: Link6) {
    // Link-local addresses mean something on their link alone: no table of the whole machine holds them.
    guard !record.address.isLinkLocal else { return }
    try? routes.add(Route6(IPv6Prefix(record.address, 128), interface: link.index, flags: [.up, .host, .local]), replacing: true)
    if let destination = record.destination {
      try? routes.add(Route6(IPv6Prefix(destination, 128), interface: link.index, flags: [.up, .host]))
    } else if record.prefixLength < 128 {
      try? routes.add(Route6(IPv6Prefix(record.address, record.prefixLength), interface: link.index, flags: [.up, .connected]))
    }
  }

  func removeRoutes(_ record: AddressRecord, _ link: Link6) {
    guard !record.address.isLinkLocal else { return }
    take(IPv6Prefix(record.address, 128), .local, link)
    if let destination = record.destination { take(IPv6Prefix(destination, 128), .host, link) }
    let prefix = IPv6Prefix(record.address, record.prefixLength)
    let isShared = owner.links.values.contains { other in
      other.addresses.contains { $0 !== record && $0.prefixLength == record.prefixLength && $0.destination == nil && IPv6Prefix($0.address, $0.prefixLength) == prefix }
    }
    guard record.prefixLength < 128, record.destination == nil, !link.prefixes.contains(where: { $0.prefix == prefix }) else { return }
    take(prefix, .connected, link)
    // Another interface on the same network takes over.
    guard isShared else { return }
    for other in owner.links.values where other.isUp {
      for heir in other.addresses where heir !== record && IPv6Prefix(heir.address, heir.prefixLength) == prefix { installRoutes(heir, other) }
    }
  }

  /// Removes a route if it is the one that was meant.
  func take(_ prefix: IPv6Prefix, _ flag: RouteFlags, _ link: Link6) {
    guard let found = routes.route(prefix), found.interface == link.index, found.flags.contains(flag) else { return }
    _ = try? routes.remove(prefix)
  }

  // MARK: Duplicate address detection

  /// Starts the proof that an address is nobody else's (section 5.4).
  func startDetection(_ record: AddressRecord, _ link: Link6, delay: UInt64) {
    record.timer?.cancel()
    record.probes = 0
    guard settings.duplicateProbes > 0, link.isEthernet, !record.isAnycast, !link.isDisabled else { return becomeReady(record, link) }
    record.state = .tentative
    publish(record, link)
    let address = record.address
    let index = link.index.word
    if delay == 0 {
      probe(record, link)
    } else {
      record.timer = after(delay) { $0.detect(address, index) }
    }
  }

  private func detect(_ address: IPv6Address, _ index: UInt32) {
    guard let link = owner.links[index], let record = link.addresses.first(where: { $0.address == address }), record.state == .tentative
    else { return }
    if record.probes < settings.duplicateProbes { probe(record, link) } else { becomeReady(record, link) }
  }

  /// Asks from nobody for the address: whoever has it answers all nodes.
  private func probe(_ record: AddressRecord, _ link: Link6) {
    record.probes += 1
    counters0.add(.solicitationOut)
    sendOnLink(NDBuilder.solicitation(target: record.address, source: nil), from: .any, to: record.address.solicitedNode, on: link)
    let address = record.address
    let index = link.index.word
    record.timer = after(link.retransmit) { $0.detect(address, index) }
  }

  private func becomeReady(_ record: AddressRecord, _ link: Link6) {
    record.timer = nil
    guard record.state != .ready else { return }
    record.state = .ready
    publish(record, link)
    announce(.ready(record.address, interface: link.index))
    if record.address.isLinkLocal, link.isUp, !link.isLoopback {
      // What was reported from nobody is reported again (RFC 3590).
      reportAll(link)
      startSolicitation(link)
      startAdvertising(link)
    }
  }

  func foundDuplicate(_ record: AddressRecord, _ link: Link6) {
    record.timer?.cancel()
    record.timer = nil
    record.state = .duplicated
    counters0.add(.duplicates)
    publish(record, link)
    announce(.duplicated(record.address, interface: link.index))
    removeRoutes(record, link)
    // The card's own identifier is not unique: nothing of IPv6 may run here (section 5.4.5).
    if let mac = link.interface.linkAddress, record.address == IPv6Address(linkLocal: mac) {
      link.isDisabled = true
      publishSlot(link)
    }
  }
}
