// ARP (RFC 826) and its conflicts (RFC 5227): messages that come in, messages that go out, packets that wait.
//
//     packet for a neighbour ─> this worker's table ─┬─ known ─> Ethernet
//                                                    └─ not known ─> held here; "resolve" ─> owner (worker 0)
//     answer on any worker ─> "learn" ─> owner ─> "it is there" ─> every worker: table, held packets go
//
// The owner has each entry's state and its timers (`ARPOwner`).

internal import CRingway
internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Wire

extension Inet {
  /// Held neighbours a worker at most: a scan of a network must not eat all buffers.
  static var maximumHeldNeighbours: Int { 512 }

  // MARK: Sending through ARP

  /// The family's resolver for Ethernet: on any thread.
  func resolve(_ packet: consuming Packet, _ nextHop: SocketAddress, _ interface: Interface) {
    guard case .ipv4(let address) = nextHop else {
      return netisr.drops.drop(packet, .arpUnresolved, interface: interface.index)
    }
    guard workerID != nil else {
      let raw = UInt(bitPattern: unsafe packet.intoRaw())
      return netisr.worker(0).post { [weak self] in
        // SAFETY: the message owns the packet.
        guard let record = unsafe RawPacket(bitPattern: raw) else { return }
        let packet = unsafe Packet(unsafe: record)
        self?.send(packet, towards: address, on: interface)
      }
    }
    send(packet, towards: address, on: interface)
  }

  /// Sends an IPv4 packet to a station of the link. On a worker.
  func send(_ packet: consuming Packet, towards address: IPv4Address, on interface: Interface) {
    send(packet, towards: address, through: interface.index)
  }

  /// The same with the interface's index.
  @inline(__always) func send(_ packet: consuming Packet, towards address: IPv4Address, through index: InterfaceIndex) {
    guard let port = unsafe local.pointee.port(index) else {
      return netisr.drops.drop(packet, .sendInterfaceGone, interface: index)
    }
    guard unsafe port.pointee.isEthernet else { return passToLink(packet, address, index) }
    let key = NeighbourTable.key(index, address)
    if let slot = unsafe my.pointee.neighbours.find(key), unsafe slot.pointee.station != 0 {
      if unsafe slot.pointee.until <= arp.second { refresh(key) }
      return unsafe ether.send(packet, to: slot.pointee.station, type: Ethernet.typeIPv4, through: index)
    }
    sendUnknown(packet, address, index)
  }

  /// Groups, broadcasts, and neighbours that are down or not known.
  @inline(never) private func sendUnknown(_ packet: consuming Packet, _ address: IPv4Address, _ index: InterfaceIndex) {
    if address.isMulticast {
      return ether.send(packet, to: EtherLayer.multicast(address).rawValue, type: Ethernet.typeIPv4, through: index)
    }
    if unsafe local.pointee.port(index)?.pointee.isBroadcast(address) ?? false {
      return ether.send(packet, to: MACAddress.broadcast.rawValue, type: Ethernet.typeIPv4, through: index)
    }
    let key = NeighbourTable.key(index, address)
    if let slot = unsafe my.pointee.neighbours.find(key) {
      if unsafe slot.pointee.until > arp.second { return hostUnreachable(packet, index) }
      unsafe my.pointee.neighbours.remove(key)
    }
    hold(packet, key)
  }

  @inline(never) private func passToLink(_ packet: consuming Packet, _ address: IPv4Address, _ index: InterfaceIndex) {
    guard let interface = table.interface(index) else { return netisr.drops.drop(packet, .sendInterfaceGone, interface: index) }
    guard let link = interface.link, link !== ether else {
      return netisr.drops.drop(packet, .sendInterfaceGone, interface: interface.index)
    }
    link.output(packet, to: .ipv4(address), on: interface)
  }

  /// Asks the owner to look at an entry again, once.
  @inline(never) private func refresh(_ key: UInt64) {
    guard let slot = unsafe my.pointee.neighbours.find(key), unsafe !slot.pointee.isAsked, unsafe slot.pointee.station != 0 else { return }
    unsafe slot.pointee.isAsked = true
    onOwner { $0.arpRefresh(key) }
  }

  @inline(never) private func hold(_ packet: consuming Packet, _ key: UInt64) {
    let my = unsafe self.my
    let interface = NeighbourTable.interface(key)
    guard unsafe my.pointee.held[key] != nil || my.pointee.held.count < Self.maximumHeldNeighbours else {
      unsafe my.pointee.counters.add(.arpDropped)
      return netisr.drops.drop(packet, .arpQueueFull, interface: interface)
    }
    let isNew = unsafe my.pointee.held[key] == nil
    var waiting = unsafe my.pointee.held[key] ?? []
    // The oldest goes: what was sent last is what somebody still waits for.
    if waiting.count >= settings.arpMaxHold.value, let oldest = unsafe RawPacket(bitPattern: waiting.removeFirst()) {
      unsafe my.pointee.counters.add(.arpDropped)
      netisr.drops.drop(unsafe Packet(unsafe: oldest), .arpQueueFull, interface: interface)
    }
    waiting.append(UInt(bitPattern: unsafe packet.intoRaw()))
    unsafe my.pointee.held[key] = waiting
    if isNew { onOwner { $0.arpResolve(key) } }
  }

  private func hostUnreachable(_ packet: consuming Packet, _ interface: InterfaceIndex) {
    unsafe my.pointee.counters.add(.arpDropped)
    sendError(about: packet, type: ICMP.unreachable, code: ICMP.Unreachable.host)
    netisr.drops.drop(packet, .arpUnresolved, interface: interface)
  }

  // MARK: What the owner tells each worker

  /// A neighbour's station is known (0: it does not answer): the held packets go. On a worker.
  func neighbourChanged(_ key: UInt64, station: UInt64, until: UInt32) {
    let my = unsafe self.my
    unsafe my.pointee.neighbours.set(Neighbour(key: key, station: station, until: until, isAsked: false))
    guard let waiting = unsafe my.pointee.held.removeValue(forKey: key) else { return }
    let index = NeighbourTable.interface(key)
    let interface = table.interface(index)
    for address in waiting {
      // SAFETY: the list owned the packets.
      guard let raw = unsafe RawPacket(bitPattern: address) else { continue }
      let packet = unsafe Packet(unsafe: raw)
      if station != 0, let interface {
        ether.send(packet, to: MACAddress(rawValue: station), type: Ethernet.typeIPv4, on: interface)
      } else {
        hostUnreachable(packet, index)
      }
    }
  }

  /// A neighbour is forgotten; what was held for it is dropped. On a worker.
  func neighbourRemoved(_ key: UInt64) {
    let my = unsafe self.my
    unsafe my.pointee.neighbours.remove(key)
    for address in unsafe my.pointee.held.removeValue(forKey: key) ?? [] {
      guard let raw = unsafe RawPacket(bitPattern: address) else { continue }
      unsafe my.pointee.counters.add(.arpDropped)
      netisr.drops.drop(unsafe Packet(unsafe: raw), .arpUnresolved, interface: NeighbourTable.interface(key))
    }
  }

  /// Runs on worker 0, now when the caller is it.
  func onOwner(_ body: @escaping @Sendable (Inet) -> Void) {
    if workerID == 0 { return body(self) }
    netisr.worker(0).post { [weak self] in
      if let self { body(self) }
    }
  }

  /// Runs on every worker, now on the one that is calling.
  func onEveryWorker(_ body: @escaping @Sendable (Inet) -> Void) {
    for (id, worker) in netisr.workers.enumerated() {
      if workerID == id { body(self) } else { worker.post { [weak self] in if let self { body(self) } } }
    }
  }

  // MARK: Messages

  /// Sends an ARP message from `interface`; `to` nil: to every station.
  func sendARP(
    _ operation: UInt16, from sender: IPv4Address, to target: IPv4Address, hardware: MACAddress?, on interface: Interface,
    senderHardware: MACAddress? = nil
  ) {
    let flags = interface.flags
    guard let own = senderHardware ?? interface.linkAddress, flags.contains(.up), !flags.contains(.noARP) else { return }
    guard let packet = Worker.current?.allocate(), packet.reserveHeadroom(64), packet.extend(ARPMessage.size) else {
      return netisr.drops.count(1, .sendNoBuffer, interface: interface.index, proto: NetisrProtocol.arp.rawValue)
    }
    let message = ARPMessage(
      operation: operation, senderHardware: own, sender: sender,
      targetHardware: operation == ARPMessage.reply ? hardware ?? .broadcast : MACAddress(rawValue: 0), target: target)
    // SAFETY: the room was made above.
    unsafe message.write(unsafe: packet.start)
    unsafe my.pointee.counters.add(operation == ARPMessage.reply ? .arpRepliesSent : .arpRequestsSent)
    ether.send(packet, to: hardware ?? .broadcast, type: Ethernet.typeARP, on: interface)
  }

  private func refuseARP(_ packet: consuming Packet, _ reason: DropReason) {
    netisr.drops.drop(packet, reason, proto: NetisrProtocol.arp.rawValue)
  }

  /// ARP's handler.
  func arpInput(_ packet: consuming Packet) {
    let my = unsafe self.my
    unsafe my.pointee.counters.add(.arpReceived)
    guard packet.pullUp(ARPMessage.size), let message = unsafe ARPMessage(unsafe: packet.start, count: packet.firstCount),
      message.operation == ARPMessage.request || message.operation == ARPMessage.reply, message.senderHardware.isUnicast,
      !message.sender.isMulticast, message.sender != .broadcast, !message.target.isMulticast
    else {
      unsafe my.pointee.counters.add(.arpMalformed)
      return refuseARP(packet, .arpMalformed)
    }
    let isRequest = message.operation == ARPMessage.request
    unsafe my.pointee.counters.add(isRequest ? .arpRequestsReceived : .arpRepliesReceived)
    guard let port = unsafe local.pointee.port(packet.interface), unsafe port.pointee.isEthernet,
      let interface = unsafe port.pointee.interface?.takeUnretainedValue()
    else { return refuseARP(packet, .interfaceGone) }
    let flags = interface.flags
    guard !flags.contains(.noARP) else { return refuseARP(packet, .arpNotForUs) }
    guard message.senderHardware != interface.linkAddress else { return refuseARP(packet, .ownFrame) }
    if isConflict(message, on: interface) { return refuseARP(packet, .arpConflict) }
    let target = unsafe local.pointee.find(message.target)
    let isForUs = target.kind == .own && target.interface == interface.index
    if message.sender.rawValue != 0, !flags.contains(.staticARP), unsafe port.pointee.isOnNetwork(message.sender) {
      learn(message, isForUs: isForUs, on: interface)
    }
    guard isRequest else { return isForUs || message.sender == message.target ? ether.deliver(packet) : refuseARP(packet, .arpNotForUs) }
    guard let station = isForUs ? interface.linkAddress : proxy(for: message, on: interface) else {
      return refuseARP(packet, .arpNotForUs)
    }
    ether.deliver(packet)
    sendARP(
      ARPMessage.reply, from: message.target, to: message.sender, hardware: message.senderHardware, on: interface,
      senderHardware: station == interface.linkAddress ? nil : station)
  }

  /// Tells the owner what a message says, unless this worker's table says so already.
  private func learn(_ message: ARPMessage, isForUs: Bool, on interface: Interface) {
    let key = NeighbourTable.key(interface.index, message.sender)
    if let slot = unsafe my.pointee.neighbours.find(key), unsafe slot.pointee.station == message.senderHardware.rawValue,
      unsafe slot.pointee.until > arp.second
    {
      return
    }
    let station = message.senderHardware
    onOwner { $0.arpLearn(key, station, mayCreate: isForUs) }
  }

  /// Somebody else's message about an address of ours: counts it, tells, and defends the address (RFC 5227, 2.4).
  private func isConflict(_ message: ARPMessage, on interface: Interface) -> Bool {
    let (index, sender) = (interface.index, message.sender)
    let claimed = sender.rawValue == 0 ? message.target : sender
    if arp.isProbing(index, claimed) {
      // A claim, or another's probe for the same address, while ours is being probed.
      if sender.rawValue != 0 || message.operation == ARPMessage.request && sender.rawValue == 0 {
        let station = message.senderHardware
        onOwner { $0.arpProbeLost(index, claimed, station) }
        return true
      }
    }
    guard sender.rawValue != 0 else { return false }
    let entry = unsafe local.pointee.find(sender)
    guard entry.kind == .own, entry.interface == index else { return false }
    unsafe my.pointee.counters.add(.arpConflicts)
    let station = message.senderHardware
    onOwner { $0.arpDefend(index, sender, station) }
    return true
  }
}
