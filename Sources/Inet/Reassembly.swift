// Fragments put together again (RFC 791, section 3.2; RFC 1122, section 3.3.2; RFC 5722's answer to overlaps).
//
// The fragments of a datagram meet on the worker that their addresses and number name (IP_DIRECT's placement), so a
// table belongs to one worker. Everything in it is bounded: datagrams, fragments of one, and time.

internal import CRingway
internal import Ether
internal import Netisr
internal import Packet
internal import Wire

/// Which datagram a fragment belongs to.
struct FragmentKey: Hashable {
  var source: UInt32
  var target: UInt32
  /// Identification and protocol.
  var number: UInt32
}

/// A fragment that waits: where its payload belongs.
struct WaitingFragment {
  var offset: Int
  var end: Int
  var packet: UInt
}

/// A datagram of which something is missing.
struct PartialDatagram {
  /// By offset.
  var fragments: [WaitingFragment] = []
  /// Bytes of payload; known with the last fragment.
  var total: Int?
  var bytes = 0
  var expires: UInt64
}

/// Datagrams that a worker waits for.
struct FragmentTable {
  var partial: [FragmentKey: PartialDatagram] = [:]
  /// Fragments in all of them: buffers that somebody else could use.
  var count = 0
}

extension InetWorker {
  /// Gives back everything that waits.
  mutating func dissolve() {
    for datagram in fragments.partial.values {
      for fragment in datagram.fragments { Self.free(fragment.packet) }
    }
    for waiting in held.values { for packet in waiting { Self.free(packet) } }
    fragments.partial = [:]
    held = [:]
    neighbours.deallocate()
  }

  private static func free(_ address: UInt) {
    guard let raw = unsafe RawPacket(bitPattern: address) else { return }
    _ = unsafe Packet(unsafe: raw)
  }
}

extension Inet {
  /// The worker on which a datagram's fragments meet.
  static func fragmentHash(_ packet: borrowing Packet) -> UInt32 {
    guard packet.firstCount >= IPv4Header.size else { return 0 }
    let start = unsafe packet.start
    let mixed = unsafe (UInt64(start.big32(12)) ^ UInt64(start.big32(16)) << 16 ^ UInt64(start.big16(4)) << 40) &* 0x9e37_79b9_7f4a_7c15
    return UInt32(truncatingIfNeeded: mixed >> 40)
  }

  private func lose(_ packet: consuming Packet, _ reason: DropReason) {
    unsafe my.pointee.counters.add(.ipFragmentsDropped)
    refuse(packet, reason)
  }

  /// IP_DIRECT's handler: a checked fragment for this machine.
  func reassemble(_ packet: consuming Packet) {
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount), header.headerLength >= IPv4Header.size,
      header.headerLength <= packet.firstCount
    else { return refuse(packet, .ipMalformed) }
    guard header.isFragment else { return up(packet) }
    let offset = header.fragmentOffset
    let payload = packet.count - header.headerLength
    let (end, isLast) = (offset + payload, !header.hasMoreFragments)
    // Nothing in it, cut at an odd place, or beyond what a length field can say.
    guard payload > 0, isLast || payload & 7 == 0, end + IPv4Header.size <= IPv4Header.maximumDatagram else {
      return lose(packet, .fragmentMalformed)
    }
    let key = FragmentKey(
      source: header.source.rawValue, target: header.destination.rawValue,
      number: UInt32(header.identification) << 8 | UInt32(header.proto))
    let my = unsafe self.my
    var datagram: PartialDatagram
    if let known = unsafe my.pointee.fragments.partial.removeValue(forKey: key) {
      datagram = known
    } else {
      guard unsafe my.pointee.fragments.partial.count < settings.maxFragmentPackets.value else { return lose(packet, .fragmentLimit) }
      datagram = PartialDatagram(expires: netisr.clock.now() &+ UInt64(settings.fragmentTimeout.value) &* 1_000_000_000)
    }
    let at = datagram.fragments.firstIndex { $0.offset >= offset } ?? datagram.fragments.count
    if at < datagram.fragments.count, datagram.fragments[at].offset == offset, datagram.fragments[at].end == end {
      // The same piece twice: the network did that, and the first one stays.
      unsafe my.pointee.fragments.partial[key] = datagram
      return lose(packet, .fragmentOverlap)
    }
    let overlaps =
      at > 0 && datagram.fragments[at - 1].end > offset || at < datagram.fragments.count && datagram.fragments[at].offset < end
    let fits = isLast ? datagram.total == nil && (datagram.fragments.last?.end ?? 0) <= end : end <= datagram.total ?? end
    if overlaps || !fits {
      giveUp(datagram, overlaps ? .fragmentOverlap : .fragmentMalformed)
      return lose(packet, overlaps ? .fragmentOverlap : .fragmentMalformed)
    }
    guard datagram.fragments.count < settings.maxFragmentsPerPacket.value else {
      giveUp(datagram, .fragmentLimit)
      return lose(packet, .fragmentLimit)
    }
    guard unsafe my.pointee.fragments.count < settings.maxFragments.value else {
      giveUp(datagram, .fragmentLimit)
      return lose(packet, .fragmentLimit)
    }
    unsafe my.pointee.fragments.count += 1
    if isLast { datagram.total = end }
    datagram.bytes += payload
    datagram.fragments.insert(WaitingFragment(offset: offset, end: end, packet: UInt(bitPattern: unsafe packet.intoRaw())), at: at)
    if datagram.bytes == datagram.total { return join(datagram) }
    unsafe my.pointee.fragments.partial[key] = datagram
  }

  private func giveUp(_ datagram: PartialDatagram, _ reason: DropReason) {
    unsafe my.pointee.fragments.count -= datagram.fragments.count
    for fragment in datagram.fragments {
      // SAFETY: the datagram owned its fragments.
      guard let raw = unsafe RawPacket(bitPattern: fragment.packet) else { continue }
      lose(unsafe Packet(unsafe: raw), reason)
    }
  }

  /// All is there: one datagram, with the first fragment's header.
  private func join(_ datagram: PartialDatagram) {
    unsafe my.pointee.fragments.count -= datagram.fragments.count
    guard let first = datagram.fragments.first, let raw = unsafe RawPacket(bitPattern: first.packet) else { return }
    // SAFETY: the datagram owned its fragments.
    let whole = unsafe Packet(unsafe: raw)
    for fragment in datagram.fragments.dropFirst() {
      guard let raw = unsafe RawPacket(bitPattern: fragment.packet) else { continue }
      let piece = unsafe Packet(unsafe: raw)
      ether.delivered(piece.interface)
      piece.removeFirst(Int(piece.byte(at: 0) ?? 0) & 15 &* 4)
      whole.append(piece)
    }
    unsafe my.pointee.counters.add(.ipReassembled)
    let interface = whole.interface
    guard let datagram = packed(whole) else { return netisr.drops.count(1, .noBuffer, interface: interface, proto: NetisrProtocol.ip.rawValue) }
    guard let header = unsafe IPv4Header(unsafe: datagram.start, count: datagram.firstCount) else { return refuse(datagram, .ipMalformed) }
    guard datagram.count <= IPv4Header.maximumDatagram else { return lose(datagram, .fragmentMalformed) }
    header.totalLength = datagram.count
    header.fragment = 0
    header.fillChecksum()
    datagram.flags.subtract([.ipChecksum, .tcpChecksum, .udpChecksum, .badChecksum])
    up(datagram)
  }

  /// The same bytes in full buffers: a chain of small pieces would be longer than cards take. nil: no buffer.
  private func packed(_ packet: consuming Packet) -> Packet? {
    let size = packet.bufferCapacity
    guard packet.segmentCount > (packet.count + size - 1) / size else { return packet }
    var at = 0
    var head: RawPacket?
    let (count, interface, flags) = (packet.count, packet.interface, packet.flags)
    while at < count {
      let isFirst = unsafe head == nil
      let room = isFirst ? size - 64 : size
      let n = min(room, count - at)
      guard let part = Worker.current?.allocate(), !isFirst || part.reserveHeadroom(64), part.extend(n),
        unsafe packet.copyBytes(from: at, count: n, to: part.start)
      else {
        if let head = unsafe head { _ = unsafe Packet(unsafe: head) }
        return nil
      }
      at += n
      if let started = unsafe head {
        let front = unsafe Packet(unsafe: started)
        front.append(part)
        unsafe head = front.intoRaw()
      } else {
        part.interface = interface
        part.flags = flags
        unsafe head = part.intoRaw()
      }
    }
    guard let head = unsafe head else { return packet }
    return unsafe Packet(unsafe: head)
  }

  /// Twice a second, on each worker: gives up what has waited too long; the sender is told when the first fragment came
  /// (RFC 1122, section 3.3.2).
  func fragmentTick() {
    let my = unsafe self.my
    guard unsafe !my.pointee.fragments.partial.isEmpty else { return }
    let now = netisr.clock.now()
    for key in unsafe my.pointee.fragments.partial.filter({ $0.value.expires <= now }).keys {
      guard let datagram = unsafe my.pointee.fragments.partial.removeValue(forKey: key) else { continue }
      unsafe my.pointee.fragments.count -= datagram.fragments.count
      for fragment in datagram.fragments {
        guard let raw = unsafe RawPacket(bitPattern: fragment.packet) else { continue }
        let packet = unsafe Packet(unsafe: raw)
        if fragment.offset == 0 { sendError(about: packet, type: ICMP.timeExceeded, code: ICMP.exceededReassembly) }
        unsafe my.pointee.counters.add(.ipFragmentsTimedOut)
        refuse(packet, .fragmentTimeout)
      }
    }
  }
}
