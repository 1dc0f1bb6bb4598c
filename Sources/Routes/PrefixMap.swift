// Exactly this prefix: an open-addressing hash from prefixes to leaves.

/// A leaf of a trie as one word: a prefix's length, and its value. 0 is no leaf.
///
/// Bits 0 to 23 are the value (1 and up), bits 24 to 30 the length less one (1 to 128). The trie's nodes use bit 31.
/// A prefix of length 0 never becomes a leaf: the table keeps it apart.
@frozen @usableFromInline struct Leaf {
  @usableFromInline static var valueMask: UInt32 { 0xff_ffff }
  @inline(__always) static func make(length: Int, value: UInt32) -> UInt32 {
    UInt32(truncatingIfNeeded: length &- 1) << 24 | value
  }
  /// The prefix's length; 0 for no leaf.
  @inline(__always) static func length(_ leaf: UInt32) -> Int { leaf == 0 ? 0 : Int(leaf >> 24) &+ 1 }
  @inline(__always) static func value(_ leaf: UInt32) -> UInt32 { leaf & valueMask }
}

/// Prefixes of a length of at least 1 and their leaves. Linear probing, at most three quarters full.
@safe struct PrefixMap<Key: TrieKey>: ~Copyable {
  private struct Slot: BitwiseCopyable {
    var key: Key
    /// 0: free.
    var leaf: UInt32
  }
  private var memory: TableMemory
  private var slots: UnsafeMutablePointer<Slot>
  private var mask: Int
  private(set) var count = 0

  init() {
    let capacity = 128
    let memory = TableMemory(necessary: capacity * MemoryLayout<Slot>.stride)
    // SAFETY: zeroed memory is an array of free slots.
    unsafe slots = memory.base.bindMemory(to: Slot.self, capacity: capacity)
    self.memory = memory
    mask = capacity - 1
  }

  /// Bytes.
  var size: Int { memory.count }

  @inline(__always) private func home(_ key: Key, _ length: Int) -> Int {
    let hash = key.scrambled ^ UInt64(truncatingIfNeeded: length) &* 0xd6e8_feb8_6659_fd93
    return Int(truncatingIfNeeded: (hash ^ hash >> 29) >> 7) & mask
  }

  /// The slot of this prefix, or the free one where it would go.
  @inline(__always) private func position(_ key: Key, _ length: Int) -> Int {
    var at = home(key, length)
    // SAFETY: masked indexes; a free slot exists, so the loop ends.
    while true {
      let slot = unsafe slots[at]
      if slot.leaf == 0 || (slot.key == key && Leaf.length(slot.leaf) == length) { return at }
      at = (at &+ 1) & mask
    }
  }

  /// The leaf of exactly this prefix, or 0. `key` has no bits behind `length`.
  @inline(__always) func find(_ key: Key, _ length: Int) -> UInt32 { unsafe slots[position(key, length)].leaf }

  /// Makes room for one more. Returns false when there is no memory.
  mutating func reserve() -> Bool {
    guard (count + 1) * 4 > (mask + 1) * 3 else { return true }
    let capacity = (mask + 1) * 2
    guard let larger = TableMemory(capacity * MemoryLayout<Slot>.stride) else { return false }
    let (old, oldMask) = unsafe (slots, mask)
    unsafe slots = larger.base.bindMemory(to: Slot.self, capacity: capacity)
    mask = capacity - 1
    for at in 0...oldMask where unsafe old[at].leaf != 0 {
      let slot = unsafe old[at]
      unsafe slots[position(slot.key, Leaf.length(slot.leaf))] = slot
    }
    memory = larger
    return true
  }

  /// Stores a leaf; there is room for it (`reserve`). Returns the former one, or 0.
  mutating func set(_ key: Key, _ leaf: UInt32) -> UInt32 {
    let at = position(key, Leaf.length(leaf))
    let old = unsafe slots[at].leaf
    unsafe slots[at] = Slot(key: key, leaf: leaf)
    if old == 0 { count += 1 }
    return old
  }

  /// Takes a prefix out. Returns its leaf, or 0.
  mutating func remove(_ key: Key, _ length: Int) -> UInt32 {
    var hole = position(key, length)
    let old = unsafe slots[hole].leaf
    guard old != 0 else { return 0 }
    count -= 1
    // Moves up what probed past the hole, so that no tombstones are needed.
    var at = (hole &+ 1) & mask
    while unsafe slots[at].leaf != 0 {
      let slot = unsafe slots[at]
      let home = home(slot.key, Leaf.length(slot.leaf))
      if (at &- home) & mask >= (at &- hole) & mask {
        unsafe slots[hole] = slot
        hole = at
      }
      at = (at &+ 1) & mask
    }
    unsafe slots[hole].leaf = 0
    return old
  }
}
