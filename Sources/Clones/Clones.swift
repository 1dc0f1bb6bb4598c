// Clones: interfaces that are made by name, without a card.
//
//     lo      what is sent comes back                       lo0
//     tap     Linux is at the other end                     tap0
//     epair   two ends of a cable                           epair0a, epair0b
//     vlan    a tag of an Ethernet interface                vlan0 (parent em0, tag 5)
//     bridge  a learning switch over Ethernet interfaces    bridge0
//
// Each is a cloner (`InterfaceCloner`) and a driver (`InterfaceDriver`); `Clones.register` adds all five to a table.
//
// Invariants
// - Parameters come from whoever asks: each is checked, an unknown one is an error and not silence.
// - A cloner that throws leaves nothing behind.
// - What a driver takes out of a send queue is sent, handed on, or dropped with a reason.

public import Ether
public import Ifnet
internal import Wire
internal import Netisr
internal import Packet

public enum Clones {
  /// Adds all five cloners; lo0 exists afterwards.
  /// - Parameter opener: opens TAP interfaces of Linux: by itself, or by asking a privileged helper.
  public static func register(in table: InterfaceTable, ether: EtherLayer, opener: any TapOpener = LinuxTapOpener()) throws(InterfaceError) {
    try table.register(LoopbackCloner())
    try table.register(TapCloner(opener: opener))
    try table.register(EpairCloner(table))
    try table.register(VLANCloner(ether, table))
    try table.register(BridgeCloner(ether, table))
  }
}

/// The parameters of a request, taken out one by one.
struct CloneParameters {
  private var left: [String: String]
  private let name: String

  init(_ request: CloneRequest, of name: String) {
    left = request.parameters
    self.name = name
  }

  mutating func text(_ key: String) -> String? { left.removeValue(forKey: key) }

  mutating func number(_ key: String, in range: ClosedRange<Int>) throws(InterfaceError) -> Int? {
    guard let text = left.removeValue(forKey: key) else { return nil }
    guard let value = Int(text), range.contains(value) else {
      throw InterfaceError(.EINVAL, "\(name): \(key) is \"\(text.prefix(40))\", it must be \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }

  /// A station's own address.
  mutating func address(_ key: String) throws(InterfaceError) -> MACAddress? {
    guard let text = left.removeValue(forKey: key) else { return nil }
    guard let address = MACAddress(text), address.isUnicast else {
      throw InterfaceError(.EINVAL, "\(name): \(key) is \"\(text.prefix(40))\", that is no station's address")
    }
    return address
  }

  /// Nothing may be left.
  func finish() throws(InterfaceError) {
    if let key = left.keys.min() { throw InterfaceError(.EINVAL, "\(name) has no parameter \"\(key.prefix(40))\"") }
  }
}

extension MACAddress {
  /// An address of this machine's own making (IEEE 802: locally administered, one station), with its last octet given.
  static func local(last: UInt8) -> MACAddress {
    let random = UInt64.random(in: 0...UInt64.max)
    return MACAddress(rawValue: 0x0200_0000_0000 | (random & 0xff_ffff_ff00) | UInt64(last))
  }
}

extension Packet {
  /// A copy of the frame and what is known about it, in buffers of the calling worker's pool; nil when there are none.
  borrowing func copied() -> Packet? {
    guard let worker = Worker.current, let copy = worker.allocate(), copy.reserveHeadroom(min(64, copy.bufferCapacity)) else {
      return nil
    }
    let (old, new) = unsafe (record, copy.record)
    var source: RawPacket? = unsafe old
    var tail = unsafe new
    while let from = unsafe source {
      var done = 0
      let length = unsafe Int(from.pointee.length)
      while done < length {
        var room = unsafe tail.pointee.pool.pointee.bufferSize - Int(tail.pointee.offset) - Int(tail.pointee.length)
        if room <= 0 {
          guard let more = worker.allocate() else { return nil }
          let record = unsafe more.record
          copy.append(more)
          unsafe tail = record
          room = unsafe Int(tail.pointee.pool.pointee.bufferSize)
        }
        let n = min(room, length - done)
        // SAFETY: n bytes are in the one buffer and fit into the other; the two differ.
        unsafe (tail.pointee.buffer + Int(tail.pointee.offset) + Int(tail.pointee.length)).copyMemory(
          from: from.pointee.buffer + Int(from.pointee.offset) + done, byteCount: n)
        unsafe tail.pointee.length += UInt16(truncatingIfNeeded: n)
        unsafe new.pointee.frameLength += UInt32(truncatingIfNeeded: n)
        done += n
      }
      unsafe source = from.pointee.next
    }
    copy.flags = flags
    copy.vlan = vlan
    copy.hash = hash
    copy.interface = interface
    copy.timestamp = timestamp
    return copy
  }

  /// The target and the source of a frame whose first buffer holds a header.
  @inline(__always) var stations: (target: UInt64, source: UInt64) {
    // SAFETY: the caller has looked at `firstCount`.
    let start = unsafe record.pointee.buffer + Int(record.pointee.offset)
    let (first, second) = unsafe (
      UInt64(bigEndian: start.loadUnaligned(as: UInt64.self)), UInt64(bigEndian: start.loadUnaligned(fromByteOffset: 6, as: UInt64.self))
    )
    return (first >> 16, second >> 16)
  }
}
