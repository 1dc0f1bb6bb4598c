// The messages of Messages.swift as bytes. What comes in is taken whole or refused with EINVAL.

extension NetmapRequestHead {
  /// From the first 32 bytes of a packet.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count >= Self.size else { throw wrongLength("The head of a request", bytes.count, Self.size) }
    guard bytes.u32(0) == Self.magic else {
      throw NetmapError(.EINVAL, "The packet is no request of a netmap program. Connect with the library of the same version.")
    }
    guard let kind = NetmapMessageKind(rawValue: bytes.u16(4)) else {
      throw NetmapError(.EINVAL, "Requests of kind \(bytes.u16(4)) are unknown. Use daemon and library of the same version.")
    }
    guard bytes.u16(6) == 0, bytes.u32(20) == 0 else {
      throw NetmapError(.EINVAL, "A reserved field of the request's head is not zero.")
    }
    self.init(kind, number: bytes.u64(8), extra: bytes.u64(24))
    payloadLength = bytes.u32(16)
  }

  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.size)
    bytes.put(Self.magic, at: 0)
    bytes.put(kind.rawValue, at: 4)
    bytes.put(number, at: 8)
    bytes.put(payloadLength, at: 16)
    bytes.put(extra, at: 24)
    return bytes
  }

  /// One packet: head and payload. The head's length is the payload's.
  public func packet(_ payload: [UInt8]) -> [UInt8] {
    var head = self
    head.payloadLength = UInt32(truncatingIfNeeded: payload.count)
    return head.encoded() + payload
  }

  /// Takes a packet apart. EINVAL unless the payload has exactly the bytes that the head promises.
  public static func read(packet: [UInt8]) throws(NetmapError) -> (head: NetmapRequestHead, payload: [UInt8]) {
    let head = try NetmapRequestHead(decoding: packet)
    guard packet.count <= NetmapMessageLimit.bytes, Int(head.payloadLength) == packet.count - size else {
      throw wrongLength("A request's payload", packet.count - size, Int(head.payloadLength))
    }
    return (head, packet.part(size, packet.count - size))
  }
}

extension NetmapReplyHead {
  /// From the first 32 bytes of a packet.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count >= Self.size else { throw wrongLength("The head of an answer", bytes.count, Self.size) }
    guard bytes.u32(0) == Self.magic else {
      throw NetmapError(.EINVAL, "The packet is no answer of the netmap daemon. Use daemon and library of the same version.")
    }
    guard bytes[20..<32].allSatisfy({ $0 == 0 }), Int(bytes.u32(16)) <= NetmapMessageLimit.descriptors else {
      throw NetmapError(.EINVAL, "A field of the answer's head is out of range.")
    }
    self.init(errno: Int32(bitPattern: bytes.u32(4)))
    payloadLength = bytes.u32(8)
    textLength = bytes.u32(12)
    descriptors = bytes.u32(16)
  }

  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.size)
    bytes.put(Self.magic, at: 0)
    bytes.put(UInt32(bitPattern: errno), at: 4)
    bytes.put(payloadLength, at: 8)
    bytes.put(textLength, at: 12)
    bytes.put(descriptors, at: 16)
    return bytes
  }

  /// One packet: head, payload and text. A text that would make the packet too long is cut at a character.
  public static func packet(errno: Int32 = 0, payload: [UInt8] = [], text: String = "", descriptors: Int = 0) -> [UInt8] {
    let room = max(0, NetmapMessageLimit.bytes - size - payload.count)
    var text = text
    while text.utf8.count > room { text.removeLast() }
    let head = NetmapReplyHead(errno: errno, payloadLength: payload.count, textLength: text.utf8.count, descriptors: descriptors)
    return head.encoded() + payload + Array(text.utf8)
  }

  /// Takes a packet apart. EINVAL unless payload and text have exactly the bytes that the head promises.
  public static func read(packet: [UInt8]) throws(NetmapError) -> (head: NetmapReplyHead, payload: [UInt8], text: String) {
    let head = try NetmapReplyHead(decoding: packet)
    let payload = Int(head.payloadLength)
    let text = Int(head.textLength)
    guard packet.count <= NetmapMessageLimit.bytes, payload + text == packet.count - size else {
      throw wrongLength("An answer's payload and text", packet.count - size, payload + text)
    }
    return (head, packet.part(size, payload), String(decoding: packet.part(size + payload, text), as: UTF8.self))
  }
}

extension NetmapAttachReply {
  /// EINVAL unless there are exactly as many rings as the head says, and no field is out of range.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count >= Self.size else { throw wrongLength("The answer to an attach", bytes.count, Self.size) }
    let count = Int(bytes.u32(28))
    guard bytes.count == Self.size + Self.ringSize * count else {
      throw wrongLength("The answer to an attach", bytes.count, Self.size + Self.ringSize * count)
    }
    self.init()
    regionBytes = bytes.u64(0)
    interfaceOffset = bytes.u64(8)
    flags = RegisterFlags(rawValue: bytes.u64(16))
    pageBytes = bytes.u32(24)
    doorbells = bytes.u32(32)
    regionID = bytes.u16(36)
    mode = bytes.u16(38)
    portFlags = bytes.u32(40)
    regionStart = bytes.u32(44)
    guard doorbells <= SyncPage.mostDoorbells else {
      throw NetmapError(.EINVAL, "A field of the answer to an attach is out of range.")
    }
    rings.reserveCapacity(count)
    for i in 0..<count { rings.append(try Ring(decoding: bytes, at: Self.size + Self.ringSize * i, doorbells: doorbells)) }
  }

  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.size + Self.ringSize * rings.count)
    bytes.put(regionBytes, at: 0)
    bytes.put(interfaceOffset, at: 8)
    bytes.put(flags.rawValue, at: 16)
    bytes.put(pageBytes, at: 24)
    bytes.put(UInt32(truncatingIfNeeded: rings.count), at: 28)
    bytes.put(doorbells, at: 32)
    bytes.put(regionID, at: 36)
    bytes.put(mode, at: 38)
    bytes.put(portFlags, at: 40)
    bytes.put(regionStart, at: 44)
    for (i, ring) in rings.enumerated() { ring.encode(into: &bytes, at: Self.size + Self.ringSize * i) }
    return bytes
  }
}

extension NetmapAttachReply.Ring {
  init(decoding bytes: [UInt8], at base: Int, doorbells: UInt32) throws(NetmapError) {
    let direction = bytes.u16(base + 16)
    let host = bytes.u16(base + 18)
    guard direction <= 1, host <= 1, bytes.u32(base + 12) < doorbells, bytes.part(base + 22, 10).allSatisfy({ $0 == 0 }) else {
      throw NetmapError(.EINVAL, "A ring in the answer to an attach is out of range.")
    }
    self.init(
      offset: bytes.u64(base), slots: bytes.u32(base + 8), doorbell: bytes.u32(base + 12), isReceive: direction == 1, isHost: host == 1,
      number: bytes.u16(base + 20))
  }

  func encode(into bytes: inout [UInt8], at base: Int) {
    bytes.put(offset, at: base)
    bytes.put(slots, at: base + 8)
    bytes.put(doorbell, at: base + 12)
    bytes.put(UInt16(isReceive ? 1 : 0), at: base + 16)
    bytes.put(UInt16(isHost ? 1 : 0), at: base + 18)
    bytes.put(number, at: base + 20)
  }
}
