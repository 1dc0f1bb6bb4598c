// Memory that programs can take away again: holes punched, files cut short.
//
//   access to what is gone ──> SIGBUS ──> zeros in its place, the region's flag is up ──> its ports fail (EIO)
//                                                                                     └─> nobody else notices
//   last port gone ──> next port comes ──> the file's pages are put back ──> the flag is down
//
// With the zeros this process and the programs no longer see the same memory, so the whole region is of
// no use until it is mended; what the cards had mapped stays theirs until their rings are quiet.

public import NetmapAPI
public import Platform
internal import DMAMemory

/// The guard over a region's shared memory. Goes before the memory does.
final class RegionGuard: Sendable {
  let flag: FaultFlag
  private let window: FaultGuard.Window

  /// - Parameter event: an eventfd that is signalled when something is taken away, or -1.
  init(_ shared: DMARegion, event: Int32) throws(NetmapError) {
    do {
      let flag = try FaultGuard.openFlag()
      do {
        window = try unsafe FaultGuard.add(
          base: shared.base, count: shared.count, pageSize: shared.backing.pageSize, kind: .zeros, flag: flag, event: event)
      } catch {
        FaultGuard.close(flag)
        throw error
      }
      self.flag = flag
    } catch {
      throw NetmapError(
        .ENOMEM, "Shared memory cannot be guarded against being taken away: \(error). Close ports with memory of their own.")
    }
  }

  deinit {
    FaultGuard.remove(window)
    FaultGuard.close(flag)
  }
}

extension NetmapAllocator {
  /// Guards the shared memory from now on, once. Before anybody else maps it.
  func guardShared(event: Int32) throws(NetmapError) -> FaultFlag {
    try locked { () throws(NetmapError) in
      if let guardian { return guardian.flag }
      let made = try RegionGuard(shared, event: event)
      guardian = made
      return made.flag
    }
  }

  /// Puts the file's pages back where zeros are, when nothing is given out and so nobody uses any.
  /// - Returns: whether the memory is whole again.
  func mend() -> Bool {
    locked {
      guard let guardian else { return false }
      guard [interfacePool.statistics, ringPool.statistics, bufferPool.statistics].allSatisfy({ $0.inUse == 0 }) else { return false }
      // What cards have mapped are the pages from before.
      let cards = attachments.map(\.mapper)
      var isWhole = true
      for mapper in cards where shared.isAttached(mapper) && (try? shared.detach(mapper)) == nil { isWhole = false }
      if isWhole {
        guardian.flag.clear()
        isWhole = (try? shared.restore()) != nil
      }
      for mapper in cards where !shared.isAttached(mapper) && (try? shared.attach(mapper)) == nil { isWhole = false }
      if !isWhole { guardian.flag.raise() }
      return isWhole && !guardian.flag.isRaised
    }
  }

  /// Where the shared region starts in the file of `exportDescriptor`, in bytes: not 0 for external memory alone.
  public var sharedFileOffset: Int { shared.fileOffset }
}

extension NetmapRegion {
  /// Whether somebody took the region's memory away: its ports are of no use, and answer EIO. Cheap: for every sync.
  @inlinable @inline(__always) public var isQuarantined: Bool { fault?.isRaised ?? false }

  /// EIO for a region that is quarantined.
  public func checkWhole() throws(NetmapError) {
    guard isQuarantined else { return }
    throw NetmapError(
      .EIO,
      "Memory region \(id) (\(name)) has lost pages: a program punched a hole into it or cut its file short. Close all its ports, then open them again.")
  }
}
