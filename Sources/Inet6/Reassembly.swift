// Reassembly (RFC 8200, section 4.5; RFC 5722; RFC 6946; RFC 7112): each worker has its own.

internal import Ether
internal import Netisr
internal import Packet
internal import Wire

/// Fragments that wait for the others of their datagram. Used by one worker.
@safe final class Reassembly {
  struct Key: Hashable {
    var source: IPv6Address
    var destination: IPv6Address
    var identification: UInt32
    /// Where addresses mean something on one link alone: that link.
    var link: UInt32
  }
  struct Piece {
    var offset: Int
    var length: Int
    /// Bytes in front of the data: headers, the fragment header last.
    var overhead: Int
    /// The packet, owned, and where it came in.
    var record: UInt
    var interface: InterfaceIndex
  }
  final class Datagram {
    let deadline: UInt64
    /// By offset, without gaps being known.
    var pieces: [Piece] = []
    var bytes = 0
    /// Known when the last fragment has come.
    var total: Int?
    /// Fragments overlapped: whatever else comes of it is dropped too.
    var isDead = false
    init(deadline: UInt64) { self.deadline = deadline }
  }

  var datagrams: [Key: Datagram] = [:]
  /// Keys by age; the oldest first.
  var order: [Key] = []
  var fragments = 0
  var timer: WorkerToken?
  private var random = SystemRandomNumberGenerator()

  /// Never 0, not to be guessed (RFC 7739).
  func nextIdentification() -> UInt32 { UInt32.random(in: 1 ... .max, using: &random) }

  func remove(_ key: Key) -> Datagram? {
    guard let datagram = datagrams.removeValue(forKey: key) else { return nil }
    fragments -= datagram.pieces.count
    if let at = order.firstIndex(of: key) { order.remove(at: at) }
    return datagram
  }
}

extension Inet6 {
  /// A fragment for this machine: `offset` is its fragment header's, `field` where that is named.
  func receiveFragment(_ packet: consuming Packet, _ offset: Int, _ field: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let bytes = packet.v6
    let source = bytes.address(IPv6Header.source)
    let destination = bytes.address(IPv6Header.destination)
    let identification = bytes.get32(offset + 4)
    // Fragments of one datagram may have come by different queues: they meet on the worker that their number gives.
    let meeting = mix(source.high ^ destination.low, source.low ^ destination.high ^ UInt64(identification))
    let here = unsafe worker.pointee.id
    if workerCount > 1, Int(meeting) % workerCount != here, !(packet.flags.contains(.hashed) && packet.hash == meeting) {
      packet.hash = meeting
      packet.flags.insert(.hashed)
      // It will come in again.
      counters.add(.total, .max)
      netisr.queue(.ipv6, packet)
      return
    }
    counters.add(.fragments)
    let overhead = offset + IPv6Header.fragmentSize
    let length = packet.count - overhead
    let word = bytes.get16(offset + 2)
    let start = Int(word & 0xfff8)
    let isLast = word & 1 == 0
    if let error = Self.fault(bytes, start: start, length: length, overhead: overhead, isLast: isLast) {
      unsafe sendError(error, about: packet, worker)
      counters.add(.fragmentsDropped)
      return dropInput(packet, .fragmentMalformed, counters)
    }
    guard length > 0 else {
      counters.add(.fragmentsDropped)
      return dropInput(packet, .fragmentMalformed, counters)
    }
    let key = Reassembly.Key(
      source: source, destination: destination, identification: identification,
      link: source.isLinkScoped || destination.isLinkScoped ? packet.interface.word : 0)
    guard let datagram = unsafe datagram(key, worker) else {
      counters.add(.fragmentOverflow)
      return dropInput(packet, .fragmentLimit, counters)
    }
    unsafe add(packet, to: datagram, key, start, length, overhead, isLast, worker)
  }

  /// What is wrong with a fragment by itself, and worth an answer.
  private static func fault(_ bytes: IPv6Bytes, start: Int, length: Int, overhead: Int, isLast: Bool) -> ICMPv6Error? {
    if !isLast, length & 7 != 0 { return .badField(at: IPv6Header.payloadLength) }
    let fixed = overhead - IPv6Header.fragmentSize - IPv6Header.size
    if fixed + start + length > IPv6Header.maximumPayload { return .badField(at: overhead - IPv6Header.fragmentSize + 2) }
    if start == 0, length > 0 {
      // All headers lie in the first fragment, the upper one's start included.
      guard let (next, at) = Headers.find(bytes) else { return .incompleteChain }
      let need = next == IPv6Next.tcp ? 20 : next == IPv6Next.udp || next == IPv6Next.icmp ? 8 : 1
      if !bytes.holds(need, at: at) { return .incompleteChain }
    }
    return nil
  }

  /// The datagram a fragment belongs to; a new one when limits allow.
  private func datagram(_ key: Reassembly.Key, _ worker: WorkerPointer) -> Reassembly.Datagram? {
    let state = unsafe worker.pointee.reassembly
    let settings = unsafe worker.pointee.settings
    if let found = state.datagrams[key] {
      return found.isDead || (state.fragments < settings.fragmentLimit && found.pieces.count < settings.fragmentsPerDatagram) ? found : nil
    }
    guard state.datagrams.count < settings.reassemblyLimit, state.fragments < settings.fragmentLimit else { return nil }
    let made = Reassembly.Datagram(deadline: netisr.clock.now() &+ UInt64(clamping: settings.fragmentSeconds) &* 1_000_000_000)
    state.datagrams[key] = made
    state.order.append(key)
    if state.timer == nil { unsafe armReassembly(worker) }
    return made
  }

  private func add(
    _ packet: consuming Packet, to datagram: Reassembly.Datagram, _ key: Reassembly.Key, _ start: Int, _ length: Int,
    _ overhead: Int, _ isLast: Bool, _ worker: WorkerPointer
  ) {
    let counters = unsafe worker.pointee.counters
    let state = unsafe worker.pointee.reassembly
    let end = start + length
    let at = datagram.pieces.firstIndex { $0.offset >= start } ?? datagram.pieces.count
    if !datagram.isDead, at < datagram.pieces.count, datagram.pieces[at].offset == start, datagram.pieces[at].length == length,
      isLast == (datagram.total == end)
    {
      // The same once more: a duplicate, no attack (RFC 8200, section 4.5).
      counters.add(.fragmentsDropped)
      return dropInput(packet, .fragmentMalformed, counters)
    }
    let overlaps =
      (at > 0 && datagram.pieces[at - 1].offset + datagram.pieces[at - 1].length > start)
      || (at < datagram.pieces.count && datagram.pieces[at].offset < end)
    let contradicts =
      isLast
      ? (datagram.total ?? end) != end || datagram.pieces.contains { $0.offset + $0.length > end }
      : datagram.total.map { end > $0 } ?? false
    if datagram.isDead || overlaps || contradicts {
      state.fragments -= datagram.pieces.count
      discard(datagram, .fragmentOverlap, counters)
      datagram.isDead = true
      counters.add(.fragmentsDropped)
      return dropInput(packet, .fragmentOverlap, counters)
    }
    let interface = packet.interface
    let record = unsafe UInt(bitPattern: packet.intoRaw())
    datagram.pieces.insert(
      Reassembly.Piece(offset: start, length: length, overhead: overhead, record: record, interface: interface), at: at)
    datagram.bytes += length
    state.fragments += 1
    if isLast { datagram.total = end }
    guard datagram.bytes == datagram.total, let whole = state.remove(key) else { return }
    unsafe join(whole, worker)
  }

  /// Frees what has come of a datagram.
  private func discard(_ datagram: Reassembly.Datagram, _ reason: DropReason, _ counters: CounterBlock) {
    for piece in datagram.pieces {
      // SAFETY: the piece owned the packet, and is forgotten below.
      if let raw = unsafe RawPacket(bitPattern: piece.record) { unsafe dropInput(Packet(unsafe: raw), reason, counters) }
      counters.add(.fragmentsDropped)
    }
    datagram.pieces = []
    datagram.bytes = 0
  }

  /// All fragments are there: one packet, without fragment header, goes to netisr.
  private func join(_ datagram: Reassembly.Datagram, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    guard let first = datagram.pieces.first, let total = datagram.total, let raw = unsafe RawPacket(bitPattern: first.record) else { return }
    let fixed = first.overhead - IPv6Header.fragmentSize
    guard fixed - IPv6Header.size + total <= IPv6Header.maximumPayload else { return discard(datagram, .fragmentMalformed, counters) }
    // SAFETY: each piece owned its packet; the datagram is forgotten after this.
    let packet = unsafe Packet(unsafe: raw)
    let bytes = packet.v6
    let (_, field) = Headers.fieldBefore(bytes, fixed)
    bytes.set8(bytes.get8(fixed), field)
    bytes.set16(UInt16(truncatingIfNeeded: fixed - IPv6Header.size + total), IPv6Header.payloadLength)
    // The headers move over the fragment header.
    unsafe (bytes.base + IPv6Header.fragmentSize).copyMemory(from: bytes.base, byteCount: fixed)
    packet.removeFirst(IPv6Header.fragmentSize)
    for piece in datagram.pieces.dropFirst() {
      guard let raw = unsafe RawPacket(bitPattern: piece.record) else { continue }
      let more = unsafe Packet(unsafe: raw)
      more.removeFirst(piece.overhead)
      packet.append(more)
    }
    packet.flags.formIntersection(.hashed)
    counters.add(.reassembled)
    counters.add(.fragmentsAbsorbed, UInt64(datagram.pieces.count - 1))
    for piece in datagram.pieces.dropFirst() { ether.delivered(piece.interface) }
    netisr.dispatch(.ipv6Direct, packet)
  }

  // MARK: Time

  private func armReassembly(_ worker: WorkerPointer) {
    let state = unsafe worker.pointee.reassembly
    guard let oldest = state.order.first, let deadline = state.datagrams[oldest]?.deadline else {
      state.timer = nil
      return
    }
    let now = netisr.clock.now()
    let id = unsafe worker.pointee.id
    state.timer = netisr.worker(id).schedule(after: deadline > now ? deadline - now : 0) { [weak self] in
      guard let self else { return }
      unsafe expireFragments(workers + id)
    }
  }

  /// Gives up what has waited too long; says so when the first fragment has come (RFC 8200, section 4.5).
  private func expireFragments(_ worker: WorkerPointer) {
    let state = unsafe worker.pointee.reassembly
    let counters = unsafe worker.pointee.counters
    let now = netisr.clock.now()
    while let key = state.order.first, let datagram = state.datagrams[key], datagram.deadline <= now {
      _ = state.remove(key)
      counters.add(.fragmentTimeouts)
      if let first = datagram.pieces.first, first.offset == 0, let raw = unsafe RawPacket(bitPattern: first.record) {
        let packet = unsafe Packet(unsafe: raw)
        unsafe sendError(.reassemblyTimeExceeded, about: packet, worker)
        _ = unsafe packet.intoRaw()
      }
      discard(datagram, .fragmentTimeout, counters)
    }
    unsafe armReassembly(worker)
  }

  /// Frees the fragments that came by an interface, or all.
  func purgeFragments(of link: UInt32?, _ worker: WorkerPointer) {
    let state = unsafe worker.pointee.reassembly
    for (key, datagram) in state.datagrams {
      let isConcerned = link.map { link in
        datagram.pieces.contains { $0.interface.word == link }
      }
      guard isConcerned ?? true, let gone = state.remove(key) else { continue }
      unsafe discard(gone, .interfaceGone, worker.pointee.counters)
    }
  }
}

extension Headers {
  /// Where the field lies that names the header at `offset`, which a walk has found before.
  static func fieldBefore(_ bytes: IPv6Bytes, _ offset: Int) -> (next: UInt8, field: Int) {
    var field = IPv6Header.next
    var at = IPv6Header.size
    while at < offset, bytes.holds(8, at: at) {
      let size = bytes.get8(field) == IPv6Next.fragment ? 8 : (Int(bytes.get8(at + 1)) + 1) * 8
      field = at
      at += size
    }
    return (bytes.get8(field), field)
  }
}
