// What each worker knows of the interfaces: a view that never changes, in a slot that is the worker's own.
//
//     worker 0: change ─> new view ─message─> worker 0, 1 … N-1: slot = view, the old one is let go
//     data path on worker i: slot[i] ─> interface by index, own addresses, groups. No lock, no atomic.
//
// Looking up hands out what was found with a reference of its own: a view may go while it is still in use.

internal import Netisr
internal import Packet
internal import Wire

/// A slot a worker.
@safe final class WorkerSlots<Value: AnyObject & Sendable>: @unchecked Sendable {
  private let slots: UnsafeMutablePointer<Value>
  let numbers: WorkerNumbers

  init(_ numbers: WorkerNumbers, _ value: Value) {
    self.numbers = numbers
    unsafe slots = .allocate(capacity: numbers.count)
    unsafe slots.initialize(repeating: value, count: numbers.count)
  }
  deinit {
    unsafe slots.deinitialize(count: numbers.count)
    unsafe slots.deallocate()
  }

  /// The calling worker's; nil on other threads.
  @inline(__always) var current: Value? {
    let n = numbers.current
    // SAFETY: slot n is read and written by worker n alone.
    return n < numbers.count ? unsafe slots[n] : nil
  }

  /// Lends the calling worker's value without counting a reference; nil on other threads. Nothing in `body` may install
  /// another one.
  @inline(__always) func withCurrent<T>(_ body: (Value) -> T) -> T? {
    let n = numbers.current
    guard n < numbers.count else { return nil }
    // SAFETY: only this worker replaces the slot, and not within `body`.
    return unsafe Unmanaged.passUnretained(slots[n])._withUnsafeGuaranteedRef(body)
  }

  /// On worker `n`: from now on it sees `value`.
  func install(_ value: Value, worker n: Int) { unsafe slots[n] = value }
}

/// The addresses of an interface at one moment.
final class AddressList: Sendable {
  let addresses: [InterfaceAddress]
  init(_ addresses: [InterfaceAddress]) { self.addresses = addresses }
}

/// All interfaces at one moment, made for looking up.
@safe final class TableView: @unchecked Sendable {
  let interfaces: [Interface]
  /// By index; slot 0 is empty.
  private let entries: UnsafeMutablePointer<Interface?>
  private let limit: Int
  private let addresses4: LookupSet<Key4, InterfaceAddress>
  private let addresses6: LookupSet<Key6, InterfaceAddress>
  private let groups4: LookupSet<Key4, Interface>
  private let groups6: LookupSet<Key6, Interface>

  /// A stack instance or an interface, and an address.
  struct Key4: Hashable, BitwiseCopyable {
    var scope: UInt32
    var address: IPv4Address
    @inline(__always) var mixed: UInt64 { (UInt64(scope) << 32 | UInt64(address.rawValue)) &* 0x9e37_79b9_7f4a_7c15 }
  }
  struct Key6: Hashable, BitwiseCopyable {
    var scope: UInt32
    var address: IPv6Address
    @inline(__always) var mixed: UInt64 {
      let first = (address.high ^ UInt64(scope)) &* 0x9e37_79b9_7f4a_7c15
      return (first ^ first >> 29 ^ address.low) &* 0xbf58_476d_1ce4_e5b9
    }
  }

  init(_ interfaces: [Interface], limit: Int) {
    self.interfaces = interfaces
    self.limit = limit
    unsafe entries = .allocate(capacity: limit)
    unsafe entries.initialize(repeating: nil, count: limit)
    var all4: [(Key4, InterfaceAddress)] = []
    var all6: [(Key6, InterfaceAddress)] = []
    var joined4: [(Key4, Interface)] = []
    var joined6: [(Key6, Interface)] = []
    for interface in interfaces {
      let index = interface.index.index
      unsafe entries[Int(index)] = interface
      let (addresses, groups) = interface.state.withLock { ($0.addresses, $0.multicast.map(\.group)) }
      for entry in addresses {
        switch entry.address {
        case .ipv4(let address): all4.append((Key4(scope: UInt32(interface.vnet.rawValue), address: address), entry))
        case .ipv6(let address): all6.append((Key6(scope: Self.scope(address, interface), address: address), entry))
        default: break
        }
      }
      for group in groups {
        switch group {
        case .ipv4(let address): joined4.append((Key4(scope: UInt32(index), address: address), interface))
        case .ipv6(let address): joined6.append((Key6(scope: UInt32(index), address: address), interface))
        default: break
        }
      }
    }
    addresses4 = LookupSet(all4) { $0.mixed }
    addresses6 = LookupSet(all6) { $0.mixed }
    groups4 = LookupSet(joined4) { $0.mixed }
    groups6 = LookupSet(joined6) { $0.mixed }
  }

  deinit {
    unsafe entries.deinitialize(count: limit)
    unsafe entries.deallocate()
  }

  /// Link-local addresses mean something on their interface only; others in their stack instance.
  @inline(__always) static func scope(_ address: IPv6Address, _ interface: Interface) -> UInt32 {
    address.isLinkLocal ? 0x1_0000 | UInt32(interface.index.index) : UInt32(interface.vnet.rawValue)
  }

  @inline(__always) func interface(_ index: InterfaceIndex) -> Interface? {
    let i = Int(index.index)
    // SAFETY: i is below the number of entries.
    guard i < limit, let found = unsafe entries[i], found.index == index else { return nil }
    return found
  }
  @inline(__always) func interface(number: Int) -> Interface? {
    number >= 0 && number < limit ? unsafe entries[number] : nil
  }

  @inline(__always) func local(_ address: IPv4Address, _ vnet: Vnet) -> InterfaceAddress? {
    let key = Key4(scope: UInt32(vnet.rawValue), address: address)
    return addresses4.first(key, key.mixed)
  }
  @inline(__always) func local(_ address: IPv6Address, on interface: Interface) -> InterfaceAddress? {
    let key = Key6(scope: Self.scope(address, interface), address: address)
    return addresses6.first(key, key.mixed)
  }
  @inline(__always) func isLocal(_ address: IPv4Address, _ vnet: Vnet) -> Bool {
    let key = Key4(scope: UInt32(vnet.rawValue), address: address)
    return addresses4.contains(key, key.mixed)
  }
  @inline(__always) func isLocal(_ address: IPv6Address, _ interface: Interface) -> Bool {
    let key = Key6(scope: Self.scope(address, interface), address: address)
    return addresses6.contains(key, key.mixed)
  }
  @inline(__always) func isMember(_ group: IPv4Address, _ interface: Interface) -> Bool {
    let key = Key4(scope: UInt32(interface.index.index), address: group)
    return groups4.contains(key, key.mixed)
  }
  @inline(__always) func isMember(_ group: IPv6Address, _ interface: Interface) -> Bool {
    let key = Key6(scope: UInt32(interface.index.index), address: group)
    return groups6.contains(key, key.mixed)
  }
}

/// A hash table that is filled once: open addressing, at most half full.
@safe final class LookupSet<Key: Hashable & BitwiseCopyable, Value: AnyObject>: @unchecked Sendable {
  /// A key's hash with its lowest bit set; 0 is an empty slot.
  private let tags: UnsafeMutablePointer<UInt64>
  private let keys: UnsafeMutablePointer<Key>
  private let values: UnsafeMutablePointer<Value?>
  private let mask: Int

  /// Of equal keys the first is found.
  init(_ pairs: [(Key, Value)], hash: (Key) -> UInt64) {
    var capacity = 4
    while capacity < pairs.count * 2 { capacity *= 2 }
    mask = capacity - 1
    unsafe tags = .allocate(capacity: capacity)
    unsafe tags.initialize(repeating: 0, count: capacity)
    unsafe keys = .allocate(capacity: capacity)
    unsafe values = .allocate(capacity: capacity)
    unsafe values.initialize(repeating: nil, count: capacity)
    for (key, value) in pairs {
      let tag = hash(key) | 1
      var at = Self.start(tag, mask)
      while unsafe tags[at] != 0, unsafe tags[at] != tag || keys[at] != key { at = (at &+ 1) & mask }
      guard unsafe tags[at] == 0 else { continue }
      unsafe tags[at] = tag
      unsafe (keys + at).initialize(to: key)
      unsafe values[at] = value
    }
  }
  deinit {
    unsafe values.deinitialize(count: mask + 1)
    unsafe values.deallocate()
    unsafe keys.deallocate()
    unsafe tags.deallocate()
  }

  @inline(__always) private static func start(_ tag: UInt64, _ mask: Int) -> Int { Int(truncatingIfNeeded: tag >> 32) & mask }

  @inline(__always) private func index(_ key: Key, _ hash: UInt64) -> Int? {
    let tag = hash | 1
    var at = Self.start(tag, mask)
    // SAFETY: `at` is masked; at least half of the slots are empty, so the walk ends; a slot with a tag has a key.
    while unsafe tags[at] != 0 {
      if unsafe tags[at] == tag && keys[at] == key { return at }
      at = (at &+ 1) & mask
    }
    return nil
  }
  @inline(__always) func first(_ key: Key, _ hash: UInt64) -> Value? {
    guard let at = index(key, hash) else { return nil }
    return unsafe values[at]
  }
  @inline(__always) func contains(_ key: Key, _ hash: UInt64) -> Bool { index(key, hash) != nil }
}
