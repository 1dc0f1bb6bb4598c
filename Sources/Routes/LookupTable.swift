// The tables alone: prefixes to numbers.

public import Wire

/// A trie, and exactly which prefixes are in it.
@safe struct LookupCore<Key: TrieKey>: ~Copyable {
  private var trie: Trie<Key>
  private var exact: PrefixMap<Key>
  /// The prefix of length 0; 0: none.
  private var fallback: UInt32 = 0
  /// How many prefixes of each length there are: those of which there is none are not looked for.
  private var lengths: [Int]

  /// - Parameter nodeLimit: nodes that the trie may have.
  init(nodeLimit: Int) {
    trie = Trie<Key>(limit: nodeLimit)
    exact = PrefixMap<Key>()
    lengths = Array(repeating: 0, count: Key.width + 1)
  }

  var count: Int { exact.count + (fallback == 0 ? 0 : 1) }
  var size: Int { trie.size + exact.size }
  var nodeCount: Int { trie.nodeCount }

  mutating func set(_ key: Key, _ length: Int, to value: UInt32) throws(RouteError) -> UInt32 {
    guard value > 0, value <= Leaf.valueMask else { throw .invalid("\(value) is outside 1 to \(Leaf.valueMask)") }
    guard length > 0 else {
      defer { fallback = value }
      return fallback
    }
    guard exact.reserve() else { throw .full(what: "routes", limit: exact.count) }
    guard trie.reserve(length) else { throw .full(what: "trie nodes", limit: trie.limit) }
    let leaf = Leaf.make(length: length, value: value)
    let old = exact.set(key, leaf)
    if old == 0 { lengths[length] += 1 }
    trie.set(key, leaf)
    return Leaf.value(old)
  }

  mutating func remove(_ key: Key, _ length: Int) -> UInt32 {
    guard length > 0 else {
      defer { fallback = 0 }
      return fallback
    }
    let old = exact.remove(key, length)
    guard old != 0 else { return 0 }
    lengths[length] -= 1
    trie.remove(key, length, replacing: covering(key, length))
    return Leaf.value(old)
  }

  /// The leaf of the longest prefix over `key` that is shorter than `length`, or 0.
  private func covering(_ key: Key, _ length: Int) -> UInt32 {
    for shorter in stride(from: length - 1, to: 0, by: -1) where lengths[shorter] > 0 {
      let leaf = exact.find(key.prefix(shorter), shorter)
      if leaf != 0 { return leaf }
    }
    return 0
  }

  @inline(__always) func lookup(_ key: Key) -> UInt32 {
    let value = Leaf.value(trie.find(key))
    return value == 0 ? fallback : value
  }

  /// Value and length of the longest prefix over `key`; (0, 0): none.
  @inline(__always) func match(_ key: Key) -> (value: UInt32, length: Int) {
    let leaf = trie.find(key)
    return leaf == 0 ? (fallback, 0) : (Leaf.value(leaf), Leaf.length(leaf))
  }

  @inline(__always) func find(_ key: Key, _ length: Int) -> UInt32 {
    length == 0 ? fallback : Leaf.value(exact.find(key, length))
  }

  @inline(__always) func lookup(_ keys: UnsafePointer<Key>, _ count: Int, into values: UnsafeMutablePointer<UInt32>) {
    // Two passes over eight at a time: the roots' loads do not wait for one another, nor do those of the first level,
    // and neither has a branch that random addresses would make the processor guess wrong.
    var at = 0
    // SAFETY: at most `count` elements of each, which the caller vouches for.
    while at &+ 8 <= count {
      var i = 0
      while i < 8 {
        unsafe values[at &+ i] = trie.rootEntry(keys[at &+ i])
        i &+= 1
      }
      i = 0
      while i < 8 {
        let key = unsafe keys[at &+ i]
        var entry = unsafe values[at &+ i]
        var depth = Key.rootBits
        while entry & Trie<Key>.nodeFlag != 0 {
          entry = trie.below(entry, key, depth)
          depth &+= Key.stride
        }
        let value = Leaf.value(entry)
        unsafe values[at &+ i] = value == 0 ? fallback : value
        i &+= 1
      }
      at &+= 8
    }
    while at < count {
      unsafe values[at] = lookup(keys[at])
      at &+= 1
    }
  }
}

/// Longest-prefix match over IPv4: prefixes to numbers from 1 to 2^24 - 1; 0 is "no route".
///
/// One thread changes and looks up, or several look up and none changes.
@safe public final class LookupTable4 {
  private var core: LookupCore<IPv4Address>

  /// - Parameter nodeLimit: nodes (of 64 bytes) that the table may have beside its root.
  public init(nodeLimit: Int = 1 << 26) { core = LookupCore(nodeLimit: nodeLimit) }
  public var count: Int { core.count }
  var nodeCount: Int { core.nodeCount }
  /// Bytes that the table has reserved; of its root's 4 MiB, few routes touch little.
  public var size: Int { core.size }

  /// Adds or changes. Returns the former value, or 0.
  /// - Throws: `invalid` for a value of 0 or above 2^24 - 1, `full` when there is no room. Nothing has changed then.
  @discardableResult public func set(_ prefix: IPv4Prefix, to value: UInt32) throws(RouteError) -> UInt32 {
    try core.set(prefix.address, prefix.length, to: value)
  }

  /// Removes exactly this prefix. Returns its value, or 0.
  @discardableResult public func remove(_ prefix: IPv4Prefix) -> UInt32 { core.remove(prefix.address, prefix.length) }

  /// The value of the longest prefix over an address.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func lookup(_ address: IPv4Address) -> UInt32 { core.lookup(address) }

  /// Value and length of the longest prefix over an address; (0, 0): none.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func match(_ address: IPv4Address) -> (value: UInt32, length: Int) { core.match(address) }

  /// The value of exactly this prefix, or 0.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func find(_ prefix: IPv4Prefix) -> UInt32 { core.find(prefix.address, prefix.length) }

  /// Looks `addresses` up, as many as both sides hold.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func lookup(_ addresses: UnsafeBufferPointer<IPv4Address>, into values: UnsafeMutableBufferPointer<UInt32>) {
    guard let keys = addresses.baseAddress, let target = values.baseAddress else { return }
    // SAFETY: no more than either buffer has.
    unsafe core.lookup(keys, min(addresses.count, values.count), into: target)
  }
}

/// Longest-prefix match over IPv6: prefixes to numbers from 1 to 2^24 - 1; 0 is "no route".
///
/// One thread changes and looks up, or several look up and none changes.
@safe public final class LookupTable6 {
  private var core: LookupCore<IPv6Address>

  /// - Parameter nodeLimit: nodes (of 64 bytes) that the table may have beside its root.
  public init(nodeLimit: Int = 1 << 26) { core = LookupCore(nodeLimit: nodeLimit) }
  public var count: Int { core.count }
  var nodeCount: Int { core.nodeCount }
  /// Bytes that the table has reserved; of its root's 256 KiB, few routes touch little.
  public var size: Int { core.size }

  /// Adds or changes. Returns the former value, or 0.
  /// - Throws: `invalid` for a value of 0 or above 2^24 - 1, `full` when there is no room. Nothing has changed then.
  @discardableResult public func set(_ prefix: IPv6Prefix, to value: UInt32) throws(RouteError) -> UInt32 {
    try core.set(prefix.address, prefix.length, to: value)
  }

  /// Removes exactly this prefix. Returns its value, or 0.
  @discardableResult public func remove(_ prefix: IPv6Prefix) -> UInt32 { core.remove(prefix.address, prefix.length) }

  /// The value of the longest prefix over an address.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func lookup(_ address: IPv6Address) -> UInt32 { core.lookup(address) }

  /// Value and length of the longest prefix over an address; (0, 0): none.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func match(_ address: IPv6Address) -> (value: UInt32, length: Int) { core.match(address) }

  /// The value of exactly this prefix, or 0.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func find(_ prefix: IPv6Prefix) -> UInt32 { core.find(prefix.address, prefix.length) }

  /// Looks `addresses` up, as many as both sides hold.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func lookup(_ addresses: UnsafeBufferPointer<IPv6Address>, into values: UnsafeMutableBufferPointer<UInt32>) {
    guard let keys = addresses.baseAddress, let target = values.baseAddress else { return }
    // SAFETY: no more than either buffer has.
    unsafe core.lookup(keys, min(addresses.count, values.count), into: target)
  }
}
