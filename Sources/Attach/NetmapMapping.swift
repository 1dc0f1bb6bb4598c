// Which memory of programs a card reaches, and until when.
//
//    prepare ─> first ring of the card: map ─> … ─> last ring closed ─> card still holds buffers? ──no──> unmap
//                                                                          │ yes
//                                               traffic brings them home ──┤
//                     another region is asked for, or this one must go: ───┘ the card is stopped and started
//
// The card's IOMMU is the only thing that keeps it from memory it has no business with. So a region is mapped for a card
// while the card's rings may name it, and no longer.

public import NetmapCore
public import NetmapAPI
internal import NetmapPorts
internal import Netisr
internal import Packet

extension NetmapCard {
  /// Nanoseconds that a region which nobody uses waits for traffic to bring its buffers home.
  static let patience: UInt64 = 1_000_000_000

  /// Refuses a region whose buffers are smaller than what the card writes, and has the card let go of another region.
  public func prepare(_ region: NetmapRegion) throws(NetmapError) {
    guard !isGone, !queues.isEmpty else { throw NetmapError(.ENXIO, "\(name) is gone") }
    let needed = unsafe host.stackPool(ofQueue: 0).state.pointee.bufferSize, size = region.allocator.bufferSize
    guard size >= needed else {
      throw NetmapError(
        .EINVAL,
        "\(name) writes up to \(needed) bytes into a buffer; those of memory region \(region.id) have \(size). Use a region with larger buffers.")
    }
    guard let own = krings.region, own !== region, krings.openPorts == 0 else { return }
    bringHome()
    guard krings.region == nil else {
      throw NetmapError(.EBUSY, "\(name) still has buffers of memory region \(own.id); try again in a second")
    }
  }

  /// Makes a region reachable for the card. On worker 0.
  func map(_ allocator: NetmapAllocator) throws(NetmapError) {
    recall?.cancel()
    recall = nil
    if let mapping, mapping.allocator === allocator { return }
    unmap()
    let mapper = host.mapper
    if let mapper {
      do { try allocator.attach(mapper) } catch { throw NetmapError(.EIO, "\(name): \(error)") }
    }
    mapping = (allocator, mapper)
  }

  /// Takes the region away from the card, which holds nothing of it. On worker 0.
  func unmap() {
    guard let (allocator, mapper) = mapping else { return }
    mapping = nil
    // What the IOMMU refuses to unmap stays pinned, and its bus address is never used again: the region sees to that.
    if let mapper { try? allocator.detach(mapper) }
  }

  /// The last program has gone. The global region may wait for traffic; one that is to end does not wait for ever.
  public func idle() {
    setHostRings(transmit: 1, receive: 1)
    guard let region = krings.region, region.kind != .global, recall == nil else { return }
    recall = netisr.worker(0).schedule(after: Self.patience) { [self] in
      recall = nil
      if !isGone, krings.openPorts == 0, let region = krings.region, region.kind != .global { bringHome() }
    }
  }

  /// Has the card give back every buffer of programs that have gone. On worker 0.
  private func bringHome() {
    host.recallBuffers()
    for (queue, worker) in zip(queues, workers) { worker.perform { queue.settle() } }
    absorb()
  }

  /// From a queue's owner: sides of programs that have gone have no buffer with the card any more.
  func finished(_ sides: Int) {
    homecomings.wrappingAdd(sides, ordering: .acquiringAndReleasing)
    netisr.worker(0).post { [self] in absorb() }
  }

  /// Tells the rings of what has come home. On worker 0.
  func absorb() {
    let sides = homecomings.exchange(0, ordering: .acquiringAndReleasing)
    if sides > 0 { krings.finished(sides) }
  }
}
