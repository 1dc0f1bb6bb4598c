// Sizes of a region: checked for a program's request, made to hold a port's rings, and as netmap tells them.

public import NetmapAPI

extension PoolSizes {
  /// The sizes as they are, or EINVAL with the field that cannot work.
  public func checked() throws(NetmapError) -> PoolSizes {
    do { try check() } catch { throw error.netmapError }
    return self
  }

  /// These sizes, enlarged to hold a port's rings beside each other: what netmap computes for a private region.
  /// - Parameters:
  ///   - slots: of each ring of the direction; host rings have the larger number of both.
  ///   - ports: how many such ports share the region: a pipe's two ends, a port and its pipes.
  /// - Throws: EINVAL for numbers that no region holds.
  public func holding(
    _ counts: RingCounts, transmitSlots: Int, receiveSlots: Int, extraBuffers: Int = 0, ports: Int = 1
  ) throws(NetmapError) -> PoolSizes {
    let rings = [counts.transmit, counts.receive, counts.hostTransmit, counts.hostReceive]
    guard rings.allSatisfy({ (0...65536).contains($0) }), (0...(1 << 20)).contains(max(transmitSlots, receiveSlots)),
      min(transmitSlots, receiveSlots) >= 0, (0...(1 << 28)).contains(extraBuffers), (1...65536).contains(ports)
    else {
      throw NetmapError(
        .EINVAL,
        "A port of \(counts.total) rings of \(transmitSlots) and \(receiveSlots) slots with \(extraBuffers) extra buffers fits no memory region. Ask for less.")
    }
    func round(_ bytes: Int) -> Int { (bytes + 63) & ~63 }
    let slots = max(transmitSlots, receiveSlots)
    let inRings =
      counts.transmit * transmitSlots + counts.receive * receiveSlots + (counts.hostTransmit + counts.hostReceive) * slots
    var sizes = self
    sizes.interfaces = max(interfaces, ports)
    sizes.interfaceSize = max(interfaceSize, round(InterfaceOffset.ringOffsets + 8 * counts.total))
    sizes.rings = max(self.rings, ports * counts.total)
    sizes.ringSize = max(ringSize, round(RingOffset.slots + slots * RingOffset.slotSize))
    sizes.buffers = max(buffers, ports * (inRings + extraBuffers) + 2)
    // A region that does not hold its own port is of no use.
    sizes.minimumBuffers = max(minimumBuffers, ports * inRings + 2)
    return try sizes.checked()
  }
}

extension NetmapRegion {
  /// What POOLS_INFO answers.
  public var pools: PoolsInfo {
    let sizes = allocator.sizes, layout = allocator.layout
    func pool(_ offset: Int, _ objects: Int, _ size: Int) -> PoolsInfo.Pool {
      PoolsInfo.Pool(
        offset: UInt64(offset), objects: UInt32(truncatingIfNeeded: objects), objectSize: UInt32(truncatingIfNeeded: size))
    }
    var info = PoolsInfo()
    info.memorySize = UInt64(allocator.sharedBytes)
    info.memoryID = id
    info.interfaces = pool(0, sizes.interfaces, sizes.interfaceSize)
    info.rings = pool(layout.ringOffset, sizes.rings, sizes.ringSize)
    info.buffers = pool(layout.bufferOffset, sizes.buffers, sizes.bufferSize)
    return info
  }
}

extension NetmapAllocatorError {
  /// The errno that netmap has for it.
  public var netmapError: NetmapError {
    let code: NetmapError.Code =
      switch self {
      case .badSize, .badAlignment, .notAttached: .EINVAL
      case .memory, .exhausted, .tooLarge, .noDescriptorSpace, .tooManyOwners: .ENOMEM
      case .stillInUse: .EBUSY
      case .mapping, .export: .EIO
      }
    return NetmapError(code, "\(self)")
  }
}
