// Bus addresses: which ranges the cards reach, and which of them are taken.
//
//   0 ──[ never ]── 1 MiB ──────────[ 0xfee00000 interrupts ]────────── 2^39 or 2^48 ──>
//                     └ lowest free range that fits, in the intersection of the cards' ranges
//
// One allocator serves every region of a process, so that a card can be given several regions.

internal import Glibc

/// Hands out bus addresses, from the ranges that the cards report. May be used from any thread.
public final class IOVAAllocator: @unchecked Sendable {
  /// Ranges never handed out whatever a card says: the first MiB, where a forgotten or truncated
  /// address would land, and the window where x86 processors take message-signalled interrupts
  /// (Intel SDM volume 3, 11.11).
  public static let alwaysReserved: [ClosedRange<UInt64>] = [0...0xf_ffff, 0xfee0_0000...0xfeef_ffff]
  /// What is assumed before any card is open: 39 bits, the narrowest IOMMU in use.
  public static let narrowest: [ClosedRange<UInt64>] = [0...(1 << 39) - 1]

  private let lock = ControlLock()
  /// Sorted, disjoint. Protected by `lock`.
  private var taken: [ClosedRange<UInt64>] = []

  public init() {}

  /// Takes the lowest free range.
  /// - Parameters:
  ///   - count: bytes, above zero.
  ///   - alignment: bytes, a power of two.
  ///   - ranges: what the cards reach (`intersection(of:)`).
  public func allocate(count: Int, alignment: Int, within ranges: [ClosedRange<UInt64>]) throws(DMAError) -> IOVA {
    guard count > 0, alignment > 0, alignment & (alignment - 1) == 0 else { throw .noAddressSpace(count: count) }
    lock.lock()
    defer { lock.unlock() }
    let length = UInt64(count)
    let blocked = Self.normalized(taken + Self.alwaysReserved)
    for range in Self.normalized(ranges) {
      guard let start = Self.firstFit(range, length: length, alignment: UInt64(alignment), blocked: blocked) else { continue }
      taken.append(start...start + (length - 1))
      taken.sort { $0.lowerBound < $1.lowerBound }
      return IOVA(rawValue: start)
    }
    throw .noAddressSpace(count: count)
  }

  /// Gives a range back: exactly one that `allocate` returned.
  /// - Returns: false, and nothing changes, for any other.
  @discardableResult public func release(_ iova: IOVA, count: Int) -> Bool {
    guard count > 0 else { return false }
    lock.lock()
    defer { lock.unlock() }
    let (last, overflow) = iova.rawValue.addingReportingOverflow(UInt64(count) - 1)
    guard !overflow, let index = taken.firstIndex(of: iova.rawValue...last) else { return false }
    taken.remove(at: index)
    return true
  }

  /// Bytes handed out and not given back.
  public var bytesInUse: UInt64 {
    lock.lock()
    defer { lock.unlock() }
    return taken.reduce(0) { $0 + ($1.upperBound - $1.lowerBound + 1) }
  }

  /// The addresses that every card reaches. Without cards: `narrowest`.
  public static func intersection(of lists: [[ClosedRange<UInt64>]]) -> [ClosedRange<UInt64>] {
    guard var result = lists.first.map(normalized) else { return narrowest }
    for list in lists.dropFirst() {
      let other = normalized(list)
      result = result.flatMap { a in other.filter { $0.overlaps(a) }.map { $0.clamped(to: a) } }
    }
    return result
  }

  /// Whether `count` bytes at `iova` lie inside one of the ranges.
  public static func contains(_ ranges: [ClosedRange<UInt64>], _ iova: IOVA, count: Int) -> Bool {
    guard count > 0 else { return false }
    let (last, overflow) = iova.rawValue.addingReportingOverflow(UInt64(count) - 1)
    guard !overflow else { return false }
    return normalized(ranges).contains { $0.contains(iova.rawValue) && $0.contains(last) }
  }

  /// Sorted, with overlapping and touching ranges joined.
  static func normalized(_ ranges: [ClosedRange<UInt64>]) -> [ClosedRange<UInt64>] {
    var result: [ClosedRange<UInt64>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = result.last, last.upperBound == .max || range.lowerBound <= last.upperBound + 1 {
        result[result.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        result.append(range)
      }
    }
    return result
  }

  /// The lowest aligned start in `range` whose `length` bytes touch no blocked range.
  private static func firstFit(
    _ range: ClosedRange<UInt64>, length: UInt64, alignment: UInt64, blocked: [ClosedRange<UInt64>]
  ) -> UInt64? {
    func aligned(_ value: UInt64) -> UInt64? {
      let (sum, overflow) = value.addingReportingOverflow(alignment - 1)
      return overflow ? nil : sum & ~(alignment - 1)
    }
    guard var start = aligned(range.lowerBound) else { return nil }
    for hole in blocked where hole.upperBound >= start {
      let (last, overflow) = start.addingReportingOverflow(length - 1)
      guard !overflow, last <= range.upperBound else { return nil }
      if last < hole.lowerBound { return start }
      guard hole.upperBound < .max, let next = aligned(hole.upperBound + 1) else { return nil }
      start = next
    }
    let (last, overflow) = start.addingReportingOverflow(length - 1)
    return !overflow && last <= range.upperBound ? start : nil
  }
}

/// A mutex for control paths: registration, attach, allocation. Never taken a packet.
@safe public final class ControlLock: @unchecked Sendable {
  // SAFETY: the mutex has an address of its own for as long as this object lives, as POSIX wants.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>

  public init() {
    unsafe mutex = .allocate(capacity: 1)
    unsafe mutex.initialize(to: pthread_mutex_t())
    _ = unsafe pthread_mutex_init(mutex, nil)
  }

  deinit {
    _ = unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  public func lock() { _ = unsafe pthread_mutex_lock(mutex) }
  public func unlock() { _ = unsafe pthread_mutex_unlock(mutex) }
}
