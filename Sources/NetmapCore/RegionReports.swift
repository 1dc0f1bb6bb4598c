// What regions have to tell: netmap's counters at any time, and what was not given back.

/// A region's figures. netmap calls the last three `total_buffers`, `free_buffers` and `buf_size`.
public struct RegionStatistics: Equatable, Sendable {
  public let id: UInt16
  public let kind: NetmapRegionKind
  public let name: String
  /// Ports that are open.
  public let users: Int
  /// Bytes of the shared region.
  public let bytes: Int
  /// Set when there are fewer buffers than were asked for.
  public let shortage: PoolShortage?
  /// The interface, ring and buffer pools, in this order.
  public let pools: [PoolStatistics]
  /// Buffers that can be given out: those there are, without the two reserved ones.
  public let totalBuffers: Int
  public let freeBuffers: Int
  /// Bytes a buffer.
  public let bufferSize: Int
  /// Memory was taken away: its ports fail.
  public let isQuarantined: Bool
}

extension NetmapRegion {
  /// The region's figures.
  public var statistics: RegionStatistics {
    let pools = Array(allocator.statistics.prefix(3))
    return RegionStatistics(
      id: id, kind: kind, name: name, users: users, bytes: allocator.sharedBytes, shortage: allocator.shortage, pools: pools,
      totalBuffers: pools[2].total, freeBuffers: pools[2].free, bufferSize: allocator.bufferSize, isQuarantined: isQuarantined)
  }
}

extension NetmapMemory {
  /// Figures of all regions, by number.
  public var statistics: [RegionStatistics] { regions.map(\.statistics) }

  /// What is given out at present, by region. Without open ports it is empty.
  public func leakReport() -> [(region: String, report: LeakReport)] {
    regions.compactMap { region in
      let report = region.allocator.leakReport()
      return report.isEmpty ? nil : ("\(region.id) (\(region.name))", report)
    }
  }
}
