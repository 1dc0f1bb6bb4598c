// A worker's copy of the ARP cache: what it looks up for every packet.

internal import Packet
internal import Wire

/// A neighbour as a worker knows it.
struct Neighbour {
  /// `NeighbourTable.key`; 0: the slot is free.
  var key: UInt64
  /// 0: the station does not answer; packets are refused until `until`.
  var station: UInt64
  /// Seconds of the ARP clock: ask the owner to look again from here on.
  var until: UInt32
  /// The owner has been asked.
  var isAsked: Bool
}

/// An open-addressing table of one worker. Grows by itself; the owner of the cache bounds it.
@safe struct NeighbourTable {
  private var slots: UnsafeMutablePointer<Neighbour>
  private var mask: Int
  private(set) var count = 0

  init() {
    mask = 63
    unsafe slots = .allocate(capacity: 64)
    unsafe slots.initialize(repeating: Neighbour(key: 0, station: 0, until: 0, isAsked: false), count: 64)
  }

  /// An address on an interface; never 0, because an interface's index is not.
  @inline(__always) static func key(_ interface: InterfaceIndex, _ address: IPv4Address) -> UInt64 {
    UInt64(interface.index) << 48 | UInt64(interface.generation) << 32 | UInt64(address.rawValue)
  }
  static func address(_ key: UInt64) -> IPv4Address { IPv4Address(rawValue: UInt32(truncatingIfNeeded: key)) }
  static func interface(_ key: UInt64) -> InterfaceIndex {
    InterfaceIndex(UInt16(truncatingIfNeeded: key >> 48), generation: UInt16(truncatingIfNeeded: key >> 32))
  }

  @inline(__always) private func home(_ key: UInt64) -> Int {
    Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> 32) & mask
  }

  /// The neighbour's slot, valid until the next change; nil: not known.
  @inline(__always) func find(_ key: UInt64) -> UnsafeMutablePointer<Neighbour>? {
    var at = home(key)
    // The table is never full, so a free slot ends the walk.
    while unsafe slots[at].key != 0 {
      if unsafe slots[at].key == key { return unsafe slots + at }
      at = (at &+ 1) & mask
    }
    return nil
  }

  mutating func set(_ neighbour: Neighbour) {
    if let slot = unsafe find(neighbour.key) {
      unsafe slot.pointee = neighbour
      return
    }
    if (count + 1) * 2 > mask { grow() }
    put(neighbour)
  }

  private mutating func put(_ neighbour: Neighbour) {
    var at = home(neighbour.key)
    while unsafe slots[at].key != 0 { at = (at &+ 1) & mask }
    unsafe slots[at] = neighbour
    count += 1
  }

  private mutating func grow() {
    let (old, size) = unsafe (slots, mask + 1)
    mask = size * 2 - 1
    count = 0
    unsafe slots = .allocate(capacity: mask + 1)
    unsafe slots.initialize(repeating: Neighbour(key: 0, station: 0, until: 0, isAsked: false), count: mask + 1)
    for i in 0..<size where unsafe old[i].key != 0 { unsafe put(old[i]) }
    unsafe old.deallocate()
  }

  mutating func remove(_ key: UInt64) {
    guard let slot = unsafe find(key) else { return }
    var hole = unsafe slot - slots
    var at = hole
    count -= 1
    // Those behind that would not be found any more move up.
    while true {
      at = (at &+ 1) & mask
      guard unsafe slots[at].key != 0 else { break }
      let wanted = unsafe home(slots[at].key)
      let distance = (at &- wanted) & mask
      if distance >= (at &- hole) & mask {
        unsafe slots[hole] = slots[at]
        hole = at
      }
    }
    unsafe slots[hole].key = 0
  }

  func deallocate() { unsafe slots.deallocate() }
}
