// Which station is behind which member: a table that every worker reads, and fills, without a lock.
//
// A slot is one 64-bit word: the address (48 bits), the member (8 bits), marks. Readers see a word whole, or not. New
// stations take the lock; a station that is heard again only moves its time on.

internal import Platform
internal import Synchronization
public import Wire

/// A station that a bridge knows.
public struct BridgeAddress: Hashable, Sendable {
  public var address: MACAddress
  /// The member's name.
  public var member: String
  /// Seconds until it is forgotten; nil: never.
  public var expires: Int?
  public var isStatic: Bool
}

@safe final class BridgeAddresses: @unchecked Sendable {
  private static let staticMark: UInt64 = 1
  private static let usedMark: UInt64 = 2
  private static let reach = 16
  private let slots: UnsafeMutablePointer<Atomic<UInt64>>
  /// Seconds at which each was heard last.
  private let times: UnsafeMutablePointer<Atomic<UInt32>>
  private let capacity: Int
  private let lock = Guarded(0)
  private let limitValue: Atomic<Int>
  private let timeoutValue = Atomic<UInt32>(1200)
  /// Stations that found no room.
  let refused = Atomic<UInt64>(0)

  /// - Parameter limit: stations that are learned.
  init(limit: Int) {
    let limit = max(1, min(65536, limit))
    limitValue = Atomic(limit)
    // Room for the largest limit that may be set, twice over: long runs of taken slots are rare then.
    var capacity = 64
    while capacity < max(limit, 8192) * 2 { capacity *= 2 }
    self.capacity = capacity
    unsafe slots = .allocate(capacity: capacity)
    unsafe times = .allocate(capacity: capacity)
    for i in 0..<capacity {
      unsafe (slots + i).initialize(to: Atomic(0))
      unsafe (times + i).initialize(to: Atomic(0))
    }
  }

  deinit {
    // SAFETY: this object's own memory; atomics need no destruction.
    unsafe slots.deallocate()
    unsafe times.deallocate()
  }

  var count: Int { lock.withLock { $0 } }
  var limit: Int {
    get { limitValue.load(ordering: .relaxed) }
    set { limitValue.store(max(1, min(capacity / 2, newValue)), ordering: .relaxed) }
  }
  var largestLimit: Int { capacity / 2 }
  /// Seconds; 0: stations are never forgotten.
  var timeout: UInt32 {
    get { timeoutValue.load(ordering: .relaxed) }
    set { timeoutValue.store(newValue, ordering: .relaxed) }
  }

  @inline(__always) private func home(_ address: UInt64) -> Int {
    Int(truncatingIfNeeded: (address &* 0x9e37_79b9_7f4a_7c15) >> 40) & (capacity &- 1)
  }

  @inline(__always) private func find(_ address: UInt64) -> Int? {
    var at = home(address)
    var tries = 0
    while tries < Self.reach {
      let word = unsafe slots[at].load(ordering: .acquiring)
      if word >> 16 == address, word & Self.usedMark != 0 { return at }
      at = (at &+ 1) & (capacity &- 1)
      tries &+= 1
    }
    return nil
  }

  /// The member behind which a station is; nil: not known.
  @inline(__always) func lookup(_ address: UInt64) -> UInt8? {
    guard let at = find(address) else { return nil }
    return UInt8(truncatingIfNeeded: unsafe slots[at].load(ordering: .relaxed) >> 8)
  }

  /// A station was heard behind a member. Returns false when it is static and elsewhere: the frame is not from there.
  @inline(__always) func learn(_ address: UInt64, member: UInt8, now: UInt32) -> Bool {
    if let at = find(address) {
      let word = unsafe slots[at].load(ordering: .relaxed)
      if UInt8(truncatingIfNeeded: word >> 8) == member {
        if unsafe times[at].load(ordering: .relaxed) != now { unsafe times[at].store(now, ordering: .relaxed) }
        return true
      }
      if word & Self.staticMark != 0 { return false }
    }
    insert(address, member: member, isStatic: false, now: now)
    return true
  }

  /// Writes a station down, or moves it. Returns false when there is no room.
  @discardableResult
  func insert(_ address: UInt64, member: UInt8, isStatic: Bool, now: UInt32) -> Bool {
    let word = address << 16 | UInt64(member) << 8 | Self.usedMark | (isStatic ? Self.staticMark : 0)
    let done = lock.withLock { count in
      if let at = find(address) {
        // SAFETY of the stores: slot numbers are below the capacity.
        unsafe times[at].store(now, ordering: .relaxed)
        unsafe slots[at].store(word, ordering: .releasing)
        return true
      }
      guard count < limit || isStatic else { return false }
      var at = home(address)
      for _ in 0..<Self.reach {
        if unsafe slots[at].load(ordering: .relaxed) == 0 {
          unsafe times[at].store(now, ordering: .relaxed)
          unsafe slots[at].store(word, ordering: .releasing)
          count += 1
          return true
        }
        at = (at + 1) & (capacity - 1)
      }
      return false
    }
    if !done { refused.wrappingAdd(1, ordering: .relaxed) }
    return done
  }

  /// Forgets every station that `condition` is true for. Returns how many.
  @discardableResult
  func remove(where condition: (_ address: UInt64, _ member: UInt8, _ isStatic: Bool, _ heard: UInt32) -> Bool) -> Int {
    lock.withLock { count in
      var removed = 0
      for at in 0..<capacity {
        let word = unsafe slots[at].load(ordering: .relaxed)
        guard word != 0 else { continue }
        let heard = unsafe times[at].load(ordering: .relaxed)
        if condition(word >> 16, UInt8(truncatingIfNeeded: word >> 8), word & Self.staticMark != 0, heard) {
          unsafe slots[at].store(0, ordering: .releasing)
          removed += 1
        }
      }
      count -= removed
      return removed
    }
  }

  /// Forgets who was not heard for the time-out.
  func expire(now: UInt32) {
    let timeout = self.timeout
    guard timeout > 0 else { return }
    remove { _, _, isStatic, heard in !isStatic && now >= heard && now - heard >= timeout }
  }

  /// Every station, by address.
  func all() -> [(address: MACAddress, member: UInt8, isStatic: Bool, heard: UInt32)] {
    (0..<capacity).compactMap { at in
      let word = unsafe slots[at].load(ordering: .acquiring)
      guard word != 0 else { return nil }
      return unsafe (
        MACAddress(rawValue: word >> 16), UInt8(truncatingIfNeeded: word >> 8), word & Self.staticMark != 0,
        times[at].load(ordering: .relaxed)
      )
    }.sorted { $0.address.rawValue < $1.address.rawValue }
  }
}
