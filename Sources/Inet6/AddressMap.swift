// A hash table from (address, link) to a plain value, for one worker: no allocation, no reference count a lookup.

internal import Wire

/// Open addressing with linear probing; at most half full. Owned and used by one worker.
@safe struct AddressMap<Value: BitwiseCopyable>: ~Copyable {
  struct Slot {
    var high: UInt64
    var low: UInt64
    /// Index and generation of the interface; 0 where the address means the same everywhere.
    var link: UInt32
    var isUsed: Bool
    var value: Value
  }
  private(set) var slots: UnsafeMutablePointer<Slot>
  private(set) var mask: Int
  private(set) var count = 0
  private let seed: UInt64
  private let empty: Value

  init(empty: Value, seed: UInt64, capacity: Int = 64) {
    self.empty = empty
    self.seed = seed
    mask = capacity - 1
    unsafe slots = Self.make(capacity, empty)
  }
  deinit { unsafe slots.deallocate() }

  private static func make(_ capacity: Int, _ empty: Value) -> UnsafeMutablePointer<Slot> {
    let slots = UnsafeMutablePointer<Slot>.allocate(capacity: capacity)
    unsafe slots.initialize(repeating: Slot(high: 0, low: 0, link: 0, isUsed: false, value: empty), count: capacity)
    return unsafe slots
  }

  @inline(__always) private func home(_ address: IPv6Address, _ link: UInt32) -> Int {
    var hash = (address.high ^ seed) &* 0x9e37_79b9_7f4a_7c15
    hash = (hash ^ hash >> 29 ^ address.low) &* 0xbf58_476d_1ce4_e5b9
    hash = (hash ^ hash >> 32 ^ UInt64(link)) &* 0x94d0_49bb_1331_11eb
    return Int(truncatingIfNeeded: hash >> 33) & mask
  }

  /// Where the entry lies, until the next change; nil when there is none.
  @inline(__always) func find(_ address: IPv6Address, _ link: UInt32) -> UnsafeMutablePointer<Slot>? {
    var at = home(address, link)
    // SAFETY: `at` is masked; the table is at most half full, so the probe ends at a free slot.
    while unsafe slots[at].isUsed {
      if unsafe slots[at].low == address.low && slots[at].high == address.high && slots[at].link == link {
        return unsafe slots + at
      }
      at = (at &+ 1) & mask
    }
    return nil
  }

  mutating func set(_ address: IPv6Address, _ link: UInt32, _ value: Value) {
    if let old = unsafe find(address, link) {
      unsafe old.pointee.value = value
      return
    }
    if (count + 1) * 2 > mask + 1 { grow() }
    insert(Slot(high: address.high, low: address.low, link: link, isUsed: true, value: value))
    count += 1
  }

  private mutating func insert(_ slot: Slot) {
    var at = home(IPv6Address(high: slot.high, low: slot.low), slot.link)
    while unsafe slots[at].isUsed { at = (at &+ 1) & mask }
    unsafe slots[at] = slot
  }

  private mutating func grow() {
    let (old, oldCount) = unsafe (slots, mask + 1)
    mask = oldCount * 2 - 1
    unsafe slots = Self.make(mask + 1, empty)
    for i in 0..<oldCount where unsafe old[i].isUsed { unsafe insert(old[i]) }
    unsafe old.deallocate()
  }

  @discardableResult mutating func remove(_ address: IPv6Address, _ link: UInt32) -> Bool {
    var at = home(address, link)
    while true {
      let slot = unsafe slots[at]
      guard slot.isUsed else { return false }
      if slot.low == address.low, slot.high == address.high, slot.link == link { break }
      at = (at &+ 1) & mask
    }
    unsafe slots[at].isUsed = false
    count -= 1
    // What follows in the same run is put in again, so that no probe ends too early.
    var next = (at &+ 1) & mask
    while unsafe slots[next].isUsed {
      let moved = unsafe slots[next]
      unsafe slots[next].isUsed = false
      insert(moved)
      next = (next &+ 1) & mask
    }
    return true
  }

  /// Lends each entry.
  func forEach(_ body: (IPv6Address, UInt32, Value) -> Void) {
    for i in 0...mask where unsafe slots[i].isUsed {
      unsafe body(IPv6Address(high: slots[i].high, low: slots[i].low), slots[i].link, slots[i].value)
    }
  }
}
