// IPv4 packets from this machine: header, source, route, fragments.

internal import CRingway
internal import Ether
internal import Ifnet
internal import Netisr
public import Packet
internal import Routes
public import Wire

extension Inet {
  /// What a packet from here is to have in its header.
  public struct OutputOptions: Sendable {
    public var proto: UInt8
    public var target: IPv4Address
    /// nil: the address of the interface that the packet leaves through.
    public var source: IPv4Address?
    /// nil: `net.inet.ip.ttl`, 1 for groups.
    public var timeToLive: UInt8?
    public var service: UInt8 = 0
    public var mayNotFragment = false
    public var hasRouterAlert = false
    /// For groups and broadcasts; nil: as the routes say.
    public var interface: InterfaceIndex?
    public init(proto: UInt8, target: IPv4Address, source: IPv4Address? = nil, interface: InterfaceIndex? = nil) {
      self.proto = proto
      self.target = target
      self.source = source
      self.interface = interface
    }
  }

  /// The address that packets to `target` leave with; nil: there is no way to it. On a worker without a lock.
  public func sourceAddress(towards target: IPv4Address) -> IPv4Address? {
    guard let route = routes.lookup(target) else { return nil }
    if route.flags.contains(.local) { return target }
    let found: IPv4Address? = withLocal { head in
      let own = unsafe head.port(route.interface)?.pointee.source(towards: route.gateway ?? target) ?? 0
      return own == 0 ? nil : IPv4Address(rawValue: own)
    }
    return found
  }

  func withLocal<R>(_ body: (borrowing LocalHead) -> R) -> R {
    if workerID != nil { return unsafe body(local.pointee) }
    let table = state.withLock { $0.local }
    return withExtendedLifetime(table) { unsafe body(table.head.pointee) }
  }

  /// Sends a payload: the packet holds no header yet, and has 64 bytes of room in front for speed. On a worker of this
  /// stack; from another thread the packet goes to worker 0.
  public func output(_ packet: consuming Packet, _ options: OutputOptions) {
    guard workerID != nil else {
      let raw = UInt(bitPattern: unsafe packet.intoRaw())
      return netisr.worker(0).post { [weak self] in
        // SAFETY: the message owns the packet.
        guard let record = unsafe RawPacket(bitPattern: raw) else { return }
        let packet = unsafe Packet(unsafe: record)
        self?.output(packet, options)
      }
    }
    let length = options.hasRouterAlert ? 24 : IPv4Header.size
    guard packet.count + length <= IPv4Header.maximumDatagram else { return refuse(packet, .ipTooBig, .ipCannotFragment) }
    guard let whole = packet.withHeadroom(length) else {
      unsafe my.pointee.counters.add(.ipOutDropped)
      return netisr.drops.count(1, .sendNoBuffer, interface: options.interface ?? .none, proto: NetisrProtocol.ip.rawValue)
    }
    guard let header = unsafe IPv4Header(unsafe: whole.start, count: whole.firstCount) else { return refuse(whole, .ipMalformed) }
    header.setHeaderLength(length)
    header.service = options.service
    header.totalLength = whole.count
    header.identification = nextIdentification()
    header.fragment = options.mayNotFragment ? IPv4Header.dontFragment : 0
    header.timeToLive = options.timeToLive ?? (options.target.isMulticast ? 1 : UInt8(settings.timeToLive.value))
    header.proto = options.proto
    header.source = options.source ?? .any
    header.destination = options.target
    // Router alert: examine this packet (RFC 2113).
    if options.hasRouterAlert { unsafe whole.start.setBig32(0x9404_0000, IPv4Header.size) }
    launch(whole, header, options.interface)
  }

  /// Datagrams of one source and target within two minutes have different numbers, as far as 16 bits go.
  func nextIdentification() -> UInt16 {
    let my = unsafe self.my
    unsafe my.pointee.identification &+= UInt16(truncatingIfNeeded: workerCount)
    return unsafe my.pointee.identification
  }

  /// A datagram with its header, from here: fills in source and checksum, and sends it. On a worker.
  func launch(_ packet: consuming Packet, _ header: IPv4Header, _ interface: InterfaceIndex?) {
    let target = header.destination
    var (out, hop, mtu) = (interface ?? .none, target, 0)
    let kind = unsafe local.pointee.find(target)
    if kind.kind == .own { return launchToSelf(packet, header) }
    if interface == nil {
      if kind.kind == .broadcast {
        out = kind.interface
      } else if let route = routes.lookup(target), route.flags.isDisjoint(with: [.reject, .blackhole]) {
        out = route.interface
        hop = route.gateway ?? target
        mtu = route.mtu
      } else {
        return refuse(packet, .ipNoRoute, .ipOutNoRoute)
      }
    }
    guard let port = unsafe local.pointee.port(out) else { return refuse(packet, .sendInterfaceGone, .ipOutDropped) }
    let largest = unsafe port.pointee.interface!._withUnsafeGuaranteedRef { $0.mtu }
    if header.source.rawValue == 0 { header.source = unsafe IPv4Address(rawValue: port.pointee.source(towards: hop)) }
    header.fillChecksum()
    unsafe my.pointee.counters.add(.ipLocalOut)
    mtu = mtu > 0 ? min(mtu, largest) : largest
    if let known = pathMTU(target) { mtu = min(mtu, known) }
    packet.flags = []
    packet.setHeaderLengths(link: 0, network: 0)
    guard packet.count > mtu else { return send(packet, towards: hop, through: out) }
    guard !header.mayNotFragment else { return refuse(packet, .ipTooBig, .ipCannotFragment) }
    fragment(packet, mtu: mtu, towards: hop, through: out)
  }

  /// To one of our own addresses: through a loopback interface when there is one, else by the queue.
  @inline(never) private func launchToSelf(_ packet: consuming Packet, _ header: IPv4Header) {
    if header.source.rawValue == 0 { header.source = header.destination }
    header.fillChecksum()
    unsafe my.pointee.counters.add(.ipLocalOut)
    packet.flags = []
    for i in 0..<(unsafe local.pointee.portCount) {
      let port = unsafe local.pointee.ports[i]
      guard port.isLoopback, let lo = unsafe port.interface?.takeUnretainedValue(), lo.flags.contains(.up), let link = lo.link else { continue }
      return link.output(packet, to: .ipv4(header.destination), on: lo)
    }
    // No interface received it; it has been checked, by being made here.
    packet.interface = .none
    netisr.queue(.ipDirect, packet)
  }

  /// Cuts a datagram into pieces of at most `mtu` bytes and sends them (RFC 791, section 3.2).
  @inline(never) func fragment(_ packet: consuming Packet, mtu: Int, towards hop: IPv4Address, through index: InterfaceIndex) {
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else { return refuse(packet, .ipMalformed) }
    let length = header.headerLength
    // Room for link headers in each piece's buffer.
    let room = min(mtu, packet.bufferCapacity - 64)
    let step = (room - length) & ~7
    guard step >= 8, length >= IPv4Header.size, length <= packet.firstCount else { return refuse(packet, .ipTooBig, .ipCannotFragment) }
    let payload = packet.count - length
    let (base, last) = (header.fragmentOffset, header.hasMoreFragments)
    var at = 0
    while at < payload {
      let n = min(step, payload - at)
      // Options that are not to be copied go with the first piece alone (RFC 791, section 3.1).
      guard let piece = Worker.current?.allocate(), piece.reserveHeadroom(64), piece.extend(length + n),
        unsafe packet.copyBytes(from: 0, count: length, to: piece.start),
        unsafe packet.copyBytes(from: length + at, count: n, to: piece.start + length),
        let part = unsafe IPv4Header(unsafe: piece.start, count: piece.firstCount)
      else {
        unsafe my.pointee.counters.add(.ipOutDropped)
        return netisr.drops.drop(packet, .sendNoBuffer, interface: index, proto: NetisrProtocol.ip.rawValue)
      }
      piece.interface = packet.interface
      if at > 0, length > IPv4Header.size { Self.keepCopiedOptions(piece, length) }
      part.totalLength = length + n
      let more = at + n < payload || last
      part.fragment = UInt16(truncatingIfNeeded: (base + at) >> 3) | (more ? IPv4Header.moreFragments : 0)
      part.fillChecksum()
      unsafe my.pointee.counters.add(.ipFragmentsCreated)
      send(piece, towards: hop, through: index)
      at += n
    }
    unsafe my.pointee.counters.add(.ipFragmented)
  }

  /// Turns options without the copy bit into no-operations.
  private static func keepCopiedOptions(_ piece: borrowing Packet, _ headerLength: Int) {
    var at = IPv4Header.size
    while at < headerLength {
      let kind = unsafe piece.start.octet(at)
      if kind == IPv4Option.end { return }
      if kind == IPv4Option.noOperation {
        at += 1
        continue
      }
      guard at + 1 < headerLength else { return }
      let length = unsafe Int(piece.start.octet(at + 1))
      guard length >= 2, at + length <= headerLength else { return }
      if kind & 0x80 == 0 { for i in at..<at + length { unsafe piece.start.setOctet(IPv4Option.noOperation, i) } }
      at += length
    }
  }
}
