// One thread's drops: a hash table of fixed size that one thread writes and any may read.

internal import Synchronization

/// Where and why a packet was dropped, as a number that is never 0.
struct DropSite: Hashable {
  let key: UInt64

  init(interface: InterfaceIndex, queue: UInt8, proto: UInt8, reason: DropReason) {
    key =
      UInt64(interface.index) << 40 | UInt64(interface.generation) << 24 | UInt64(queue) << 16 | UInt64(proto) << 8
      | UInt64(reason.rawValue)
  }
  init(key: UInt64) { self.key = key }

  var interface: InterfaceIndex {
    InterfaceIndex(UInt16(truncatingIfNeeded: key >> 40), generation: UInt16(truncatingIfNeeded: key >> 24))
  }
  var queue: UInt8 { UInt8(truncatingIfNeeded: key >> 16) }
  var proto: UInt8 { UInt8(truncatingIfNeeded: key >> 8) }
  var reason: DropReason { DropReason(rawValue: UInt8(truncatingIfNeeded: key)) ?? .other }
}

/// A line of a table.
struct DropLine: ~Copyable {
  let key = Atomic<UInt64>(0)
  let packets = Atomic<UInt64>(0)
  let bytes = Atomic<UInt64>(0)

  /// The writer's alone: no read-modify-write is needed.
  func add(_ morePackets: UInt64, _ moreBytes: UInt64) {
    packets.store(packets.load(ordering: .relaxed) &+ morePackets, ordering: .relaxed)
    bytes.store(bytes.load(ordering: .relaxed) &+ moreBytes, ordering: .relaxed)
  }
}

@safe struct DropTable: ~Copyable {
  typealias Pointer = UnsafeMutablePointer<DropTable>
  /// Lines, a power of two; at most three quarters are used, so that looking stays short.
  static let capacity = 1024
  private static let most = capacity / 4 * 3
  /// For drops that found the table full: one a reason.
  private static let reasons = 256

  /// The worker that writes; 0: whoever holds the ledger's lock.
  let owner: UInt32
  private let lines: UnsafeMutablePointer<DropLine>
  private let used = Atomic<Int>(0)

  private init(owner: UInt32) {
    self.owner = owner
    unsafe lines = .allocate(capacity: Self.capacity + Self.reasons)
    for i in 0..<(Self.capacity + Self.reasons) { unsafe (lines + i).initialize(to: DropLine()) }
  }

  deinit {
    unsafe lines.deinitialize(count: Self.capacity + Self.reasons)
    unsafe lines.deallocate()
  }

  static func make(owner: UInt32) -> Pointer {
    let table = Pointer.allocate(capacity: 1)
    unsafe table.initialize(to: DropTable(owner: owner))
    return unsafe table
  }

  static func free(_ table: Pointer) {
    unsafe table.deinitialize(count: 1)
    unsafe table.deallocate()
  }

  /// The writer alone.
  borrowing func add(_ site: DropSite, _ packets: UInt64, _ bytes: UInt64) {
    var at = Int(truncatingIfNeeded: (site.key &* 0x9e37_79b9_7f4a_7c15) >> 54)
    // SAFETY: `at` stays below the capacity; a quarter of the lines is free, so the search ends.
    while true {
      let key = unsafe lines[at].key.load(ordering: .relaxed)
      if key == site.key { return unsafe lines[at].add(packets, bytes) }
      if key == 0 { break }
      at = (at &+ 1) & (Self.capacity &- 1)
    }
    let count = used.load(ordering: .relaxed)
    guard count < Self.most else {
      return unsafe lines[Self.capacity &+ Int(site.reason.rawValue)].add(packets, bytes)
    }
    used.store(count &+ 1, ordering: .relaxed)
    unsafe lines[at].add(packets, bytes)
    unsafe lines[at].key.store(site.key, ordering: .releasing)
  }

  /// Any thread.
  borrowing func forEach(_ body: (DropSite, _ packets: UInt64, _ bytes: UInt64) -> Void) {
    for i in 0..<Self.capacity {
      let key = unsafe lines[i].key.load(ordering: .acquiring)
      if key != 0 {
        unsafe body(DropSite(key: key), lines[i].packets.load(ordering: .relaxed), lines[i].bytes.load(ordering: .relaxed))
      }
    }
    for i in 0..<Self.reasons {
      let packets = unsafe lines[Self.capacity + i].packets.load(ordering: .relaxed)
      guard packets != 0, let reason = DropReason(rawValue: UInt8(i)) else { continue }
      let site = DropSite(interface: .none, queue: 0, proto: 0, reason: reason)
      unsafe body(site, packets, lines[Self.capacity + i].bytes.load(ordering: .relaxed))
    }
  }
}
