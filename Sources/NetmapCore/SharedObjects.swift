// Interfaces, rings and owners: what the control path of netmap ports takes from the allocator.

/// A ring object that was given out.
public struct RingMemory: Sendable {
  /// The object's index in the ring pool.
  public let index: UInt32
  /// Bytes from the start of the shared region.
  public let offset: Int
  public let ring: NetmapRing
}

/// An interface object that was given out.
public struct InterfaceMemory: Sendable {
  public let index: UInt32
  /// Bytes from the start of the shared region: what the register reply says.
  public let offset: Int
  public let interface: NetmapInterface

  /// Lists a ring of the same region.
  @discardableResult public func list(_ ring: RingMemory, at place: Int) -> Bool {
    interface.setRingOffset(ring.offset - offset, at: place)
  }
}

extension NetmapAllocator {
  /// Makes a fresh ring. Its slots hold no buffers yet: index 0, length 0.
  /// - Parameters:
  ///   - slots: at least 2; `256 + 16 * slots` bytes must fit a ring object.
  ///   - id: the ring's number, with netmap's bits for host rings.
  public func allocateRing(
    slots: Int, id: UInt16, direction: RingDirection, owner: BufferOwner = .stack
  ) throws(NetmapAllocatorError) -> RingMemory {
    guard slots >= 2, slots <= (sizes.ringSize - RingOffset.slots) / RingOffset.slotSize else {
      let bytes = max(2, min(slots, 1 << 40)) * RingOffset.slotSize + RingOffset.slots
      throw .tooLarge(pool: "ring", wanted: bytes, objectSize: sizes.ringSize)
    }
    let index = try locked { () throws(NetmapAllocatorError) in try ringPool.allocate(1, owner: owner)[0] }
    let offset = layout.ringOffset + Int(index) * sizes.ringSize
    let base = unsafe zeroed(offset, sizes.ringSize)
    let ring = unsafe NetmapRing(unsafe: base, slotCount: UInt32(slots))
    ring.initialize(bufferOffset: layout.bufferOffset - offset, bufferSize: bufferSize, id: id, direction: direction)
    return RingMemory(index: index, offset: offset, ring: ring)
  }

  /// Takes a ring back. Its buffers are not touched: free them first.
  @discardableResult public func freeRing(_ index: UInt32, owner: BufferOwner? = nil) -> FreeOutcome {
    locked { ringPool.release(index, owner: owner) }
  }

  /// Makes an interface that lists no rings yet.
  /// - Parameters:
  ///   - name: the first 15 bytes are shown to the program.
  ///   - privateMemory: the region belongs to this port alone.
  public func allocateInterface(
    name: String, counts: RingCounts, privateMemory: Bool = false, owner: BufferOwner = .stack
  ) throws(NetmapAllocatorError) -> InterfaceMemory {
    let limit = (sizes.interfaceSize - InterfaceOffset.ringOffsets) / 8
    for count in [counts.transmit, counts.receive, counts.hostTransmit, counts.hostReceive] where count < 0 || count > limit {
      throw .tooLarge(
        pool: "interface", wanted: InterfaceOffset.ringOffsets + 8 * max(0, min(count, 1 << 40)), objectSize: sizes.interfaceSize)
    }
    guard counts.total <= limit else {
      throw .tooLarge(
        pool: "interface", wanted: InterfaceOffset.ringOffsets + 8 * counts.total, objectSize: sizes.interfaceSize)
    }
    let index = try locked { () throws(NetmapAllocatorError) in try interfacePool.allocate(1, owner: owner)[0] }
    let offset = Int(index) * sizes.interfaceSize
    let interface = unsafe NetmapInterface(unsafe: zeroed(offset, sizes.interfaceSize), counts: counts)
    interface.initialize(name: name, privateMemory: privateMemory)
    return InterfaceMemory(index: index, offset: offset, interface: interface)
  }

  @discardableResult public func freeInterface(_ index: UInt32, owner: BufferOwner? = nil) -> FreeOutcome {
    locked { interfacePool.release(index, owner: owner) }
  }

  /// An object's memory, without what its last holder left there.
  private func zeroed(_ offset: Int, _ count: Int) -> UnsafeMutableRawPointer {
    // SAFETY: `PoolSizes.check` and the pools keep offset + count inside the region.
    let base = unsafe sharedBase + offset
    _ = unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count)
    return unsafe base
  }

  // MARK: Owners

  /// Makes an owner: one for each program or port whose buffers are kept apart.
  /// - Parameter name: for reports.
  public func registerOwner(_ name: String) throws(NetmapAllocatorError) -> BufferOwner {
    try locked { () throws(NetmapAllocatorError) in
      guard ownerNames.count < 1 << 16, nextOwner < .max else { throw .tooManyOwners }
      let owner = BufferOwner(rawValue: nextOwner)
      nextOwner += 1
      ownerNames[owner] = name
      return owner
    }
  }

  /// Ends an owner, and takes back everything it still holds in the shared pools: what a program
  /// that was killed never gave back. Its rings must be quiet.
  /// - Returns: how many buffers, rings and interfaces were taken back.
  @discardableResult public func retireOwner(_ owner: BufferOwner) -> (buffers: Int, rings: Int, interfaces: Int) {
    locked {
      guard ownerNames.removeValue(forKey: owner) != nil else { return (0, 0, 0) }
      return (bufferPool.reclaim(owner), ringPool.reclaim(owner), interfacePool.reclaim(owner))
    }
  }

  /// The book of buffer owners, for the packet path. Valid for as long as the allocator lives.
  public var ledger: BufferLedger { unsafe BufferLedger(unsafe: bufferPool.owners, count: UInt32(bufferCount)) }
}
