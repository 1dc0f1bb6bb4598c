// A send queue of an interface: one for each transmit ring.

public import Packet
internal import Synchronization

/// A send queue: the classic queue of the BSDs, with its start interlock, its stages and its watchdog.
public final class Subqueue: @unchecked Sendable {
  public unowned let interface: Interface
  public let index: Int
  private struct State { var packets: [UInt] = [] }
  private let state = Mutex(State())
  private let active = Atomic(false)

  init(interface: Interface, index: Int) {
    self.interface = interface
    self.index = index
  }

  /// oactive: the ring is full, `if_start` is not called.
  public var isActive: Bool {
    get { active.load(ordering: .acquiring) }
    set { active.store(newValue, ordering: .releasing) }
  }

  /// Packets that wait.
  public var count: Int { state.withLock { $0.packets.count } }

  /// For `if_start`: moves packets into the batch until it is full or the queue is empty. Returns how many.
  @discardableResult public func dequeue(into batch: inout PacketBatch) -> Int {
    var moved = 0
    while batch.room > 0, let address = state.withLock({ $0.packets.isEmpty ? nil : $0.packets.removeFirst() }) {
      _ = unsafe batch.append(Packet(unsafe: RawPacket(bitPattern: address)!))
      moved += 1
    }
    return moved
  }

  /// For `if_start`: puts back in front what the ring did not take; the batch is empty then.
  public func prepend(_ batch: inout PacketBatch) {
    while let packet = batch.popLast() {
      let address = UInt(bitPattern: unsafe packet.intoRaw())
      state.withLock { $0.packets.insert(address, at: 0) }
    }
  }

  /// From transmit completion (ifsq_devstart): the ring has room again.
  public func ready() {
    isActive = false
    interface.driver.start(self)
  }

  /// ifq_dispatch: queues a frame and sees to it that `if_start` runs, now, when more have come, or in the rollup.
  @discardableResult public func send(_ packet: consuming Packet, priority: Bool = false) -> Bool {
    let address = UInt(bitPattern: unsafe packet.intoRaw())
    state.withLock { $0.packets.append(address) }
    if !isActive { interface.driver.start(self) }
    return true
  }

  /// Sets the owner: the worker whose ring this is.
  public func setOwner(_ worker: Int) {}
}
