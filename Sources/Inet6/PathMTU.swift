// The path MTU of destinations that this host sends to (RFC 8201).

internal import DeviceIO
internal import Platform
internal import Synchronization
internal import Wire

/// Destinations whose path carries less than its first link. Shared by the workers; looked at for local output alone.
final class PathMTUCache: Sendable {
  private struct Entry {
    var mtu: Int
    var until: UInt64
  }
  private let entries = Guarded<[IPv6Address: Entry]>([:])
  /// No lock while there is none.
  private let count = Atomic<Int>(0)
  static let limit = 1024

  func mtu(for destination: IPv6Address, now clock: any TimeSource) -> Int? {
    guard count.load(ordering: .relaxed) > 0 else { return nil }
    let now = clock.now()
    return entries.withLock { entries in
      guard let entry = entries[destination] else { return nil }
      if entry.until > now { return entry.mtu }
      entries[destination] = nil
      count.store(entries.count, ordering: .relaxed)
      return nil
    }
  }

  /// Takes a smaller MTU; a larger one than is known is not believed (section 4).
  /// - Returns: whether anything changed.
  func lower(_ destination: IPv6Address, to mtu: Int, until: UInt64, now: UInt64) -> Bool {
    entries.withLock { entries in
      if let old = entries[destination], old.until > now, old.mtu <= mtu { return false }
      if entries.count >= Self.limit, entries[destination] == nil {
        entries = entries.filter { $0.value.until > now }
        if entries.count >= Self.limit { return false }
      }
      entries[destination] = Entry(mtu: mtu, until: until)
      count.store(entries.count, ordering: .relaxed)
      return true
    }
  }

  /// Every path that is known: destination, bytes.
  var all: [(IPv6Address, Int)] { entries.withLock { $0.map { ($0.key, $0.value.mtu) } }.sorted { $0.0 < $1.0 } }
}
