// Routers: soliciting them, their advertisements, default routes, prefixes (RFC 4861, section 6; RFC 4862, section 5.5;
// RFC 4191 for preferences). On worker 0.

internal import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

/// A router that offers itself as a default one.
struct DefaultRouter {
  var address: IPv6Address
  var preference: Int
  var until: UInt64
}

/// A prefix that a router said is on the link.
struct OnLinkPrefix {
  var prefix: IPv6Prefix
  var until: UInt64
}

extension Inet6 {
  /// Seconds from now on the clock; all ones are for ever.
  func deadline(_ seconds: UInt32) -> UInt64 {
    seconds == .max ? .max : netisr.clock.now() &+ UInt64(seconds) &* 1_000_000_000
  }

  // MARK: Soliciting

  /// Up to three solicitations, four seconds apart, until a router answers (RFC 4861, section 6.3.7).
  func startSolicitation(_ link: Link6) {
    link.solicitationTimer?.cancel()
    guard settings.acceptRouterAdvertisements, !settings.forwarding, link.isUp, link.isEthernet else { return }
    link.solicitations = 0
    solicitRouters(link.index.word)
  }

  private func solicitRouters(_ index: UInt32) {
    guard let link = owner.links[index], link.isUp, !link.isDisabled, link.solicitations < 3 else { return }
    link.solicitations += 1
    counters0.add(.routerSolicitationOut)
    let source = link.linkLocal
    let message = NDBuilder.routerSolicitation(source: source == nil ? nil : link.interface.linkAddress)
    sendOnLink(message, from: source ?? .any, to: .allRouters, on: link)
    link.solicitationTimer = after(4000) { $0.solicitRouters(index) }
  }

  // MARK: Advertisements

  func routerAdvertised(_ message: NDRouterAdvertisement, _ options: NDOptions, _ source: IPv6Address, _ link: Link6) {
    guard settings.acceptRouterAdvertisements, !settings.forwarding, !link.isLoopback else { return }
    link.solicitations = 3
    link.solicitationTimer?.cancel()
    if message.hopLimit != 0 { link.hopLimit = message.hopLimit }
    // An hour is more than any router may say (section 6.2.1).
    if message.reachableTime != 0, message.reachableTime <= 3_600_000 { link.baseReachable = UInt64(message.reachableTime) }
    if message.retransmitTime != 0 { link.retransmit = UInt64(min(max(message.retransmitTime, 100), 60_000)) }
    if let mtu = options.mtu, mtu >= IPv6Header.minimumMTU, mtu <= link.interface.mtu { link.advertisedMTU = mtu }
    publishSlot(link)
    if let mac = options.source { learn(NeighbourKey(address: source, link: link.index.word), mac, isRouter: true) }
    owner.neighbours[NeighbourKey(address: source, link: link.index.word)]?.isRouter = true
    link.routers.removeAll { $0.address == source }
    // A router list has an end, whoever fills it.
    if message.routerLifetime > 0, link.routers.count < 16 {
      link.routers.append(
        DefaultRouter(address: source, preference: message.preference, until: deadline(UInt32(message.routerLifetime))))
    }
    chooseRouter(link)
    for option in options.prefixes { take(option, link) }
  }

  /// The default route goes through the best router that can be reached, if nobody has set one by hand.
  func chooseRouter(_ link: Link6) {
    func rank(_ router: DefaultRouter) -> Int {
      let neighbour = owner.neighbours[NeighbourKey(address: router.address, link: link.index.word)]
      return router.preference * 2 + (neighbour?.mac != nil ? 8 : 0) + (router.address == link.defaultRouter ? 1 : 0)
    }
    let best = link.routers.max { rank($0) < rank($1) }
    guard best?.address != link.defaultRouter else { return }
    let all = IPv6Prefix(.any, 0)
    if link.defaultRouter != nil {
      take(all, .dynamic, link)
      link.defaultRouter = nil
    }
    if let best {
      let route = Route6(all, gateway: best.address, interface: link.index, flags: [.up, .gateway, .dynamic])
      guard routes.route(all) == nil, (try? routes.add(route)) != nil else { return }
      link.defaultRouter = best.address
    } else if let other = owner.links.values.first(where: { $0 !== link && !$0.routers.isEmpty && $0.defaultRouter == nil }) {
      chooseRouter(other)
    }
  }

  func removeRouter(_ router: DefaultRouter, _ link: Link6) {
    link.routers.removeAll { $0.address == router.address }
    chooseRouter(link)
  }

  /// A neighbour says that it is no router any more (section 7.2.5).
  func routerLost(_ address: IPv6Address, _ link: Link6) {
    link.routers.removeAll { $0.address == address }
    chooseRouter(link)
    removeRedirects(through: address, link)
  }

  // MARK: Prefixes

  private func take(_ option: NDOptions.Prefix, _ link: Link6) {
    guard (0...128).contains(option.length), !option.prefix.isLinkLocal, !option.prefix.isMulticast,
      option.preferredLifetime <= option.validLifetime
    else { return }
    let prefix = IPv6Prefix(option.prefix, option.length)
    if option.isOnLink { onLink(prefix, option.validLifetime, link) }
    if option.isAutonomous, option.length == 64, let mac = link.interface.linkAddress { configure(option, mac, link) }
  }

  private func onLink(_ prefix: IPv6Prefix, _ lifetime: UInt32, _ link: Link6) {
    if let at = link.prefixes.firstIndex(where: { $0.prefix == prefix }) {
      if lifetime == 0 { return removePrefix(link.prefixes[at], link) }
      link.prefixes[at].until = deadline(lifetime)
    } else if lifetime > 0, link.prefixes.count < 64 {
      link.prefixes.append(OnLinkPrefix(prefix: prefix, until: deadline(lifetime)))
      try? routes.add(Route6(prefix, interface: link.index, flags: [.up, .connected, .dynamic]))
    }
  }

  func removePrefix(_ prefix: OnLinkPrefix, _ link: Link6) {
    link.prefixes.removeAll { $0.prefix == prefix.prefix }
    let isUsed = link.addresses.contains { !$0.isAutoconf && IPv6Prefix($0.address, $0.prefixLength) == prefix.prefix }
    if !isUsed { take(prefix.prefix, .connected, link) }
  }

  /// RFC 4862, section 5.5.3: an address under the prefix, and the two-hour rule for lifetimes that nobody proves.
  private func configure(_ option: NDOptions.Prefix, _ mac: MACAddress, _ link: Link6) {
    let address = IPv6Address(prefix: option.prefix.high, eui64Of: mac)
    let now = netisr.clock.now()
    if let record = link.addresses.first(where: { $0.address == address }) {
      guard record.isAutoconf else { return }
      let twoHours: UInt64 = 7_200_000_000_000
      let left = record.validUntil == .max ? .max : record.validUntil > now ? record.validUntil - now : 0
      let offered = option.validLifetime == .max ? .max : UInt64(option.validLifetime) &* 1_000_000_000
      if offered > twoHours || offered > left {
        record.validUntil = deadline(option.validLifetime)
      } else if left > twoHours {
        record.validUntil = now &+ twoHours
      }
      record.preferredUntil = deadline(option.preferredLifetime)
      return expire(link, now)
    }
    guard option.validLifetime > 0, link.addresses.count < 32 else { return }
    // The prefix's route is the prefix option's matter: the address alone is not on the link by itself.
    let record = AddressRecord(address, 64, on: link.interface)
    record.isAutoconf = true
    record.validUntil = deadline(option.validLifetime)
    record.preferredUntil = deadline(option.preferredLifetime)
    addAddress(record, link)
  }

  /// What is over: addresses, prefixes, routers.
  func expire(_ link: Link6, _ now: UInt64) {
    for record in link.addresses {
      if record.validUntil <= now {
        removeAddress(record, link)
      } else if record.isDeprecated != (record.preferredUntil <= now) {
        record.isDeprecated.toggle()
        publish(record, link)
      }
    }
    for prefix in link.prefixes where prefix.until <= now { removePrefix(prefix, link) }
    for router in link.routers where router.until <= now { removeRouter(router, link) }
  }

  // MARK: Being a router

  /// Advertises this router on a link, three times soon and then every ten minutes (RFC 4861, section 6.2.4).
  func startAdvertising(_ link: Link6) {
    link.advertisementTimer?.cancel()
    guard settings.forwarding, settings.sendRouterAdvertisements, link.isUp, link.isEthernet else { return }
    link.solicitations = 0
    advertiseRouter(link.index.word)
  }

  private func advertiseRouter(_ index: UInt32) {
    guard let link = owner.links[index], link.isUp, settings.forwarding, settings.sendRouterAdvertisements else { return }
    sendAdvertisement(link, lifetime: 1800)
    link.solicitations += 1
    link.advertisementTimer = after(link.solicitations < 3 ? 16_000 : 200_000 + jitter(400_000)) { $0.advertiseRouter(index) }
  }

  func answerRouterSolicitation(_ link: Link6) {
    guard settings.forwarding, settings.sendRouterAdvertisements else { return }
    sendAdvertisement(link, lifetime: 1800)
  }

  func sendAdvertisement(_ link: Link6, lifetime: UInt16) {
    guard let source = link.linkLocal else { return }
    counters0.add(.routerAdvertisementOut)
    var prefixes: [NDOptions.Prefix] = []
    for record in link.addresses where record.state == .ready && !record.address.isLinkLocal && record.prefixLength < 128 {
      let prefix = IPv6Prefix(record.address, record.prefixLength)
      guard !prefixes.contains(where: { $0.prefix == prefix.address && $0.length == prefix.length }), prefixes.count < 16 else { continue }
      prefixes.append(
        NDOptions.Prefix(
          prefix.address, prefix.length, isOnLink: true, isAutonomous: prefix.length == 64, validLifetime: 2_592_000,
          preferredLifetime: 604_800))
    }
    let message = NDBuilder.routerAdvertisement(
      NDRouterAdvertisement(hopLimit: link.hopLimit, routerLifetime: lifetime), source: link.interface.linkAddress, mtu: link.mtu,
      prefixes: prefixes)
    sendOnLink(message, from: source, to: .allNodes, on: link)
  }

  /// A host becomes a router, or a router a host.
  func settingsChanged(from old: Inet6Settings, to new: Inet6Settings) {
    for link in owner.links.values where !link.isLoopback {
      if new.forwarding, !old.forwarding {
        // A router listens to no other router's advertisements (section 6.2.2).
        for router in link.routers { removeRouter(router, link) }
        link.solicitationTimer?.cancel()
        if link.isUp { join(.allRouters, link) }
      } else if !new.forwarding, old.forwarding {
        if link.isUp, old.sendRouterAdvertisements { sendAdvertisement(link, lifetime: 0) }
        link.advertisementTimer?.cancel()
        leave(.allRouters, link)
      }
      if new.hopLimit != old.hopLimit { link.hopLimit = UInt8(clamping: new.hopLimit) }
      publishSlot(link)
      guard link.isUp, link.linkLocal != nil else { continue }
      let nowHost = !new.forwarding && new.acceptRouterAdvertisements
      if nowHost, !(!old.forwarding && old.acceptRouterAdvertisements) { startSolicitation(link) }
      if new.sendRouterAdvertisements != old.sendRouterAdvertisements || new.forwarding != old.forwarding { startAdvertising(link) }
    }
  }
}
