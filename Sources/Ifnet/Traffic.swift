// An interface's data path: frames up, frames down, and who looks at them in passing.

internal import Netisr
public import Packet
internal import Synchronization

extension Interface {
  /// For drivers: received frames go up. Marks them with this interface, counts them, shows them to taps. The batch
  /// is empty afterwards. On a worker.
  public func input(_ batch: inout PacketBatch, queue: Int = 0) {
    let index = self.index
    var bytes: UInt64 = 0, groups: UInt64 = 0
    batch.forEach {
      $0.interface = index
      bytes &+= UInt64(truncatingIfNeeded: $0.count)
      // The group bit is the first that was on the wire.
      if let first = $0.byte(at: 0), first & 1 != 0 { groups &+= 1 }
    }
    blocks.add(.ipackets, UInt64(truncatingIfNeeded: batch.count))
    blocks.add(.ibytes, bytes)
    if groups != 0, type.hasEthernetFrames { blocks.add(.imcasts, groups) }
    if tapCount.load(ordering: .acquiring) != 0 {
      for tap in state.withLock({ $0.taps }) { batch.forEach { tap.passed($0, .input, on: self) } }
    }
    if let link, !isDying { return link.input(&batch, on: self) }
    let drops = table.drops
    while let packet = batch.popLast() { drops.drop(packet, .interfaceGone, interface: index, queue: UInt8(clamping: queue)) }
  }

  /// For link layers: a finished frame goes out, through the worker's subqueue, which counts it. Shows it to taps.
  /// - Returns: false when it was dropped (the send queue was full, or the interface is gone).
  @discardableResult public func transmit(_ packet: consuming Packet, priority: Bool = false) -> Bool {
    if isDying {
      table.drops.drop(packet, .sendInterfaceGone, interface: index)
      return false
    }
    if tapCount.load(ordering: .acquiring) != 0 {
      for tap in state.withLock({ $0.taps }) { tap.passed(packet, .output, on: self) }
    }
    return currentSubqueue.send(packet, priority: priority)
  }

  /// Shows every packet that passes to `tap`, until it is removed. From any thread.
  public func add(_ tap: any InterfaceTap) {
    let count = state.withLock { state in
      state.taps.append(tap)
      return state.taps.count
    }
    tapCount.store(count, ordering: .releasing)
  }
  public func remove(_ tap: any InterfaceTap) {
    let count = state.withLock { state in
      state.taps.removeAll { $0 === tap }
      return state.taps.count
    }
    tapCount.store(count, ordering: .releasing)
  }
}
