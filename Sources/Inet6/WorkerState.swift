// What each worker has of its own: interfaces, own addresses, neighbours, limits. It changes by message alone.

internal import CRingway
internal import Ifnet
internal import Netisr
internal import Packet
internal import Wire

/// An interface as the packet path sees it.
@safe struct InterfaceSlot {
  static let present: UInt8 = 1
  static let up: UInt8 = 2
  static let ethernet: UInt8 = 4
  /// Its link-local address is somebody else's: no IPv6 here (RFC 4862, section 5.4.5).
  static let disabled: UInt8 = 8
  static let loopback: UInt8 = 16
  static let usable = present | up

  var bits: UInt8 = 0
  var generation: UInt16 = 0
  /// Bytes of an IPv6 packet.
  var mtu: UInt32 = 0
  /// Hop limit of what this host sends here.
  var hopLimit: UInt8 = 64
  /// Retained by the control half, until every worker has forgotten it.
  var interface: Unmanaged<Interface>?

  @inline(__always) var isUsable: Bool { bits & (Self.usable | Self.disabled) == Self.usable }
  @inline(__always) var isEthernet: Bool { bits & Self.ethernet != 0 }
}

/// An address of this machine, or a group that it listens to.
struct OwnAddress: BitwiseCopyable {
  static let ready: UInt8 = 1
  static let group: UInt8 = 2
  static let deprecated: UInt8 = 4
  static let anycast: UInt8 = 8
  var bits: UInt8
  var prefixLength: UInt8
  /// Index and generation of the interface it belongs to.
  var link: UInt32
}

/// A neighbour whose link address is known.
struct NeighbourCopy: BitwiseCopyable {
  var mac: UInt64
  /// Whoever uses it tells the owner once: reachability is in doubt.
  var tellsOwner: Bool
}

extension InterfaceIndex {
  /// Both numbers in one word; 0 is none.
  @inline(__always) var word: UInt32 { UInt32(generation) << 16 | UInt32(index) }
  @inline(__always) init(word: UInt32) { self.init(UInt16(truncatingIfNeeded: word), generation: UInt16(truncatingIfNeeded: word >> 16)) }
}

/// A worker's half of IPv6, at a fixed address. Only that worker touches it (but for `counters`).
@safe struct Inet6Worker: ~Copyable {
  let id: Int
  let token: UInt32
  let counters: CounterBlock
  private(set) var slots: UnsafeMutablePointer<InterfaceSlot>
  private(set) var slotCount: Int
  var own: AddressMap<OwnAddress>
  var neighbours: AddressMap<NeighbourCopy>
  var settings = Inet6Settings()
  let reassembly: Reassembly
  /// Where packets of this machine to itself go; `.none`: there is no loopback interface.
  var loopback = InterfaceIndex.none
  var upper: UpperTable

  init(id: Int, token: UInt32, seed: UInt64, upper: UpperTable) {
    self.id = id
    self.token = token
    self.upper = upper
    counters = CounterBlock()
    slotCount = 16
    unsafe slots = .allocate(capacity: 16)
    unsafe slots.initialize(repeating: InterfaceSlot(), count: 16)
    own = AddressMap(empty: OwnAddress(bits: 0, prefixLength: 0, link: 0), seed: seed)
    neighbours = AddressMap(empty: NeighbourCopy(mac: 0, tellsOwner: false), seed: seed ^ 0x5bd1_e995, capacity: 256)
    reassembly = Reassembly()
  }

  deinit {
    unsafe slots.deallocate()
    counters.free()
  }

  /// The interface of an index; an empty slot when it is gone.
  @inline(__always) func slot(_ index: InterfaceIndex) -> InterfaceSlot {
    // SAFETY: the index is compared with the count.
    guard Int(index.index) < slotCount, unsafe slots[Int(index.index)].generation == index.generation else { return InterfaceSlot() }
    return unsafe slots[Int(index.index)]
  }

  mutating func setSlot(_ index: InterfaceIndex, _ slot: InterfaceSlot) {
    let need = Int(index.index) + 1
    if need > slotCount {
      var count = slotCount
      while count < need { count *= 2 }
      let bigger = UnsafeMutablePointer<InterfaceSlot>.allocate(capacity: count)
      for i in 0..<count { unsafe (bigger + i).initialize(to: i < slotCount ? slots[i] : InterfaceSlot()) }
      unsafe slots.deallocate()
      unsafe (slots, slotCount) = (bigger, count)
    }
    unsafe slots[Int(index.index)] = slot
    if slot.bits & InterfaceSlot.loopback != 0 {
      loopback = index
    } else if loopback.index == index.index {
      loopback = .none
    }
  }

  /// Whether some interface has this address: on the loopback interface scopes are lost.
  func isOwnAnywhere(_ address: IPv6Address) -> Bool {
    var i = 0
    while i <= own.mask {
      // SAFETY: the table has mask + 1 slots.
      let slot = unsafe own.slots[i]
      if slot.isUsed, slot.low == address.low, slot.high == address.high, slot.value.bits & OwnAddress.ready != 0 { return true }
      i &+= 1
    }
    return false
  }

  /// Whether a packet to `address` that came in on `link` is for this machine.
  @inline(__always) func isOwn(_ address: IPv6Address, on link: UInt32) -> Bool {
    guard let found = unsafe own.find(address, address.isLinkScoped || address.isMulticast ? link : 0) else { return false }
    return unsafe found.pointee.value.bits & (OwnAddress.ready | OwnAddress.group) != 0
  }
}

typealias WorkerPointer = UnsafeMutablePointer<Inet6Worker>

extension Packet {
  /// The first buffer's bytes, for as long as the packet is held.
  @inline(__always) var v6: IPv6Bytes {
    // SAFETY: drivers and editing keep offset + length inside the buffer.
    unsafe IPv6Bytes(unsafe: record.pointee.buffer + Int(record.pointee.offset), count: Int(record.pointee.length))
  }

  /// The unfolded ones' complement sum of `length` bytes from `offset`, over all buffers.
  func sum(from offset: Int, _ length: Int) -> UInt64 {
    var total: UInt64 = 0
    var skip = offset
    var left = length
    var isOdd = false
    var at: RawPacket? = unsafe record
    while let segment = unsafe at, left > 0 {
      let size = unsafe Int(segment.pointee.length)
      if skip >= size {
        skip -= size
      } else {
        let bytes = unsafe IPv6Bytes(unsafe: segment.pointee.buffer + Int(segment.pointee.offset), count: size)
        let n = min(left, size - skip)
        let part = UInt64(InternetChecksum.fold(bytes.sum(from: skip, n)))
        // A buffer that starts at an odd place in the packet has its words' bytes the other way round.
        total &+= isOdd ? UInt64(UInt16(part).byteSwapped) : part
        if n & 1 != 0 { isOdd.toggle() }
        left -= n
        skip = 0
      }
      unsafe at = segment.pointee.next
    }
    return total
  }

  /// Copies `target.count` bytes from `offset` on, over all buffers. Returns false when there are fewer.
  func copy(from offset: Int, to target: IPv6Bytes) -> Bool {
    var skip = offset
    var done = 0
    var at: RawPacket? = unsafe record
    while let segment = unsafe at, done < target.count {
      let size = unsafe Int(segment.pointee.length)
      if skip >= size {
        skip -= size
      } else {
        let n = min(target.count - done, size - skip)
        unsafe (target.base + done).copyMemory(from: segment.pointee.buffer + Int(segment.pointee.offset) + skip, byteCount: n)
        done += n
        skip = 0
      }
      unsafe at = segment.pointee.next
    }
    return done == target.count
  }
}
