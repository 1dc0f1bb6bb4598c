// A netmap port of the daemon's in a card's place: `ringway pktgen tx netmap:ix0`.
//
//    PacketGenerator, PacketReceiver, captures ── Port ── NetmapDriver ── rings of the daemon's ── its worker
//
// Frames are copied between packets of this process and the rings' buffers: a packet may be kept for as long as its holder
// likes, a slot may not. Whoever wants no copy works on the rings themselves, as `NetmapForwarder` does.

internal import CRingway
internal import DMAMemory
internal import DeviceIO
internal import DriverKit
internal import NetmapClient
internal import NetmapCore
internal import PCI
internal import Packet
internal import Wire

/// Queue i is the port's i-th transmit and receive ring, card before host. Used on one thread.
final class NetmapDriver: NetDriver {
  static let driverName = "netmap"
  static let interfacePrefix = "netmap"
  static let matches: [PCIMatch] = []
  /// Slots of a frame at most (netmap's limit).
  private static let mostSlots = 64

  let port: NetmapClient.NetmapPort
  let options: PortOptions
  let macAddress: MACAddress
  let queueCount: Int
  private var pools: [PacketPool] = []
  private var counts: [Counts]
  private(set) var health = PortHealth.stopped

  private struct Counts {
    var received: UInt64 = 0, receivedBytes: UInt64 = 0
    var sent: UInt64 = 0, sentBytes: UInt64 = 0
    /// Received frames that made no sense, and frames that no ring could ever take.
    var errors: UInt64 = 0
    /// Times that a frame found no slot, and a received one no packet.
    var full: UInt64 = 0, noPacket: UInt64 = 0
  }

  /// - Parameters:
  ///   - port: registered; closed by `stop`.
  ///   - address: the interface's, or any for ports that have none.
  init(_ port: NetmapClient.NetmapPort, address: MACAddress, options: PortOptions) {
    self.port = port
    macAddress = address
    queueCount = max(1, port.transmitRings.count, port.receiveRings.count)
    var own = options
    own.queues = queueCount
    self.options = own
    counts = Array(repeating: Counts(), count: queueCount)
  }

  init(_ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource) throws(DriverError) {
    throw .unsupported(card: function.name, what: "it is a card, and no netmap port")
  }

  var capabilities: DriverCapabilities { .jumboFrames }
  var link: LinkState { LinkState(status: health == .running ? .up : .down) }
  /// A frame may take many slots; the MTU decides.
  var maximumFrame: Int { options.mtu + 14 }

  func start(pools: [PacketPool]) throws(DriverError) {
    self.pools = pools.count == queueCount ? pools : pools.first.map { Array(repeating: $0, count: queueCount) } ?? []
    guard self.pools.count == queueCount else { throw .pool(card: port.name, wanted: 1, available: 0) }
    health = .running
  }

  func stop() {
    if health == .running { health = .stopped }
    port.close()
    pools = []
  }

  // MARK: Receive

  func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int {
    guard health == .running, queue < port.receiveRings.count else { return 0 }
    let ring = port.receiveRings[queue]
    if ring.available == 0 {
      guard sync(receive: true) else { return 0 }
    }
    let tail = ring.tail, room = min(max, batch.room), pool = pools[queue]
    var head = ring.head, taken = 0
    while taken < room, head != tail, tail < ring.slotCount {
      guard let end = Self.end(ofFrameAt: head, tail, ring) else { break }
      switch take(ring, head, end, pool) {
      case .packet(let record):
        unsafe (batch.freeSlots).initialize(to: record)
        batch.commit(1)
        counts[queue].received &+= 1
        unsafe counts[queue].receivedBytes &+= UInt64(record.pointee.frameLength)
        taken += 1
      case .nonsense: counts[queue].errors &+= 1
      case .noPacket:
        // It waits in the ring until the program has given packets back.
        counts[queue].noPacket &+= 1
        ring.setHead(head)
        return taken
      }
      head = end
    }
    ring.setHead(head)
    return taken
  }

  /// The slot behind a frame; nil when its last slot has not come yet.
  private static func end(ofFrameAt head: UInt32, _ tail: UInt32, _ ring: NetmapRingView) -> UInt32? {
    var at = head
    while at != tail {
      let more = ring.slot(at).flags & NetmapSlotView.moreFragments != 0
      at = ring.next(at)
      if !more { return at }
    }
    return nil
  }

  @safe private enum Taken {
    case packet(RawPacket)
    case nonsense, noPacket
  }

  /// Copies the slots `head ..< end` into a packet.
  private func take(_ ring: NetmapRingView, _ head: UInt32, _ end: UInt32, _ pool: PacketPool) -> Taken {
    var first: RawPacket?, last: RawPacket?
    var at = head, total = 0
    while at != end {
      var rest = unsafe ring.packet(at)
      while unsafe !rest.isEmpty {
        guard let record = unsafe PoolState.get(pool.state) else {
          if let first = unsafe first { unsafe PoolState.put(first) }
          return .noPacket
        }
        let count = unsafe min(rest.count, pool.state.pointee.bufferSize)
        // SAFETY: `count` is at most what either buffer holds.
        unsafe record.pointee.buffer.copyMemory(from: rest.baseAddress.unsafelyUnwrapped, byteCount: count)
        unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: count), offset: 0)
        unsafe record.pointee.next = nil
        unsafe record.pointee.flags = []
        unsafe record.pointee.timestamp = 0
        unsafe record.pointee.generation &+= 1
        if let last = unsafe last { unsafe last.pointee.next = record } else { unsafe first = record }
        unsafe last = record
        total += count
        unsafe rest = UnsafeMutableRawBufferPointer(rebasing: rest[count...])
      }
      at = ring.next(at)
    }
    guard let first = unsafe first else { return .nonsense }
    unsafe first.pointee.frameLength = UInt32(truncatingIfNeeded: total)
    return unsafe .packet(first)
  }

  // MARK: Send

  func send(queue: Int, _ batch: inout PacketBatch) -> Int {
    guard health == .running, queue < port.transmitRings.count, !batch.isEmpty else { return 0 }
    let ring = port.transmitRings[queue]
    if ring.available < UInt32(batch.count) { _ = sync(receive: false) }
    var head = ring.head, sent = 0, free = ring.available
    let full = unsafe batch.fullSlots, count = batch.count
    while sent < count {
      let record = unsafe full[sent], length = unsafe Int(record.pointee.frameLength)
      let slots = UInt32((length + Int(ring.bufferSize) - 1) / Int(ring.bufferSize))
      guard slots > 0, slots <= Self.mostSlots, slots < ring.slotCount else {
        counts[queue].errors &+= 1
        unsafe PoolState.put(record)
        sent += 1
        continue
      }
      guard slots <= free else {
        counts[queue].full &+= 1
        break
      }
      unsafe put(record, ring, &head, slots)
      free -= slots
      counts[queue].sent &+= 1
      counts[queue].sentBytes &+= UInt64(length)
      unsafe PoolState.put(record)
      sent += 1
    }
    batch.removePrefix(sent)
    ring.setHead(head)
    if sent > 0 { _ = sync(receive: false) }
    return sent
  }

  /// Copies a frame into slots that are there.
  private func put(_ record: RawPacket, _ ring: NetmapRingView, _ head: inout UInt32, _ slots: UInt32) {
    var part: RawPacket? = unsafe record, offset = 0, left = unsafe Int(record.pointee.frameLength)
    var slot: UInt32 = 0
    while slot < slots {
      let index = ring.slot(head).buffer, target = unsafe ring.bytes(index), wanted = min(left, target.count)
      var filled = 0
      while filled < wanted, let here = unsafe part {
        let count = unsafe min(wanted - filled, Int(here.pointee.length) - offset)
        if count > 0 {
          // SAFETY: inside the record's bytes, and inside the slot's buffer.
          unsafe (target.baseAddress.unsafelyUnwrapped + filled).copyMemory(
            from: here.pointee.buffer + Int(here.pointee.offset) + offset, byteCount: count)
        }
        filled += max(0, count)
        offset += max(0, count)
        if unsafe offset >= Int(here.pointee.length) {
          unsafe part = here.pointee.next
          offset = 0
        }
      }
      left -= filled
      slot += 1
      ring.setSlot(
        head, NetmapSlotView(buffer: index, length: UInt16(filled), flags: slot < slots ? NetmapSlotView.moreFragments : 0))
      head = ring.next(head)
    }
  }

  func reclaim(queue: Int) {
    guard health == .running, queue < port.transmitRings.count else { return }
    if port.transmitRings[queue].available < port.transmitRings[queue].slotCount - 1 { _ = sync(receive: false) }
  }

  /// False when the port is gone.
  private func sync(receive: Bool) -> Bool {
    do throws(NetmapClientError) {
      if receive { try port.syncReceive() } else { try port.syncTransmit() }
      return true
    } catch {
      health = .gone
      return false
    }
  }

  // MARK: Events

  /// All rings wake the same descriptor; it is queue 0's.
  func eventDescriptor(queue: Int) -> Int32 { queue == 0 ? port.descriptor : -1 }
  var controlDescriptor: Int32 { -1 }

  func armInterrupt(queue: Int) -> Bool {
    guard queue == 0, health == .running else { return health != .running }
    port.arm(for: .receive)
    do throws(NetmapClientError) { return try !port.look(for: .receive).isEmpty } catch {
      // A ring that was reset is the next sync's; a port that is gone is the next tick's.
      return true
    }
  }

  func maskInterrupt(queue: Int) {
    if queue == 0, health == .running { port.drain() }
  }

  func serviceControl() -> DriverEvents { tick() }

  func tick() -> DriverEvents {
    if health == .running, !port.isOpen { health = .gone }
    return health == .gone ? .lost : []
  }

  func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError) {
    // What a port receives is decided where it is: programs see everything that comes.
  }

  func setMACAddress(_ address: MACAddress) throws(DriverError) {
    throw .unsupported(card: port.name, what: "change the interface's address: use `ringway ifconfig`")
  }

  func statistics() -> [Statistic] {
    var all: [Statistic] = []
    for (queue, count) in counts.enumerated() {
      all += [
        Statistic("rx_queue_\(queue)_packets", count.received), Statistic("rx_queue_\(queue)_bytes", count.receivedBytes),
        Statistic("rx_queue_\(queue)_errors", count.errors), Statistic("rx_queue_\(queue)_no_packet", count.noPacket),
        Statistic("tx_queue_\(queue)_packets", count.sent), Statistic("tx_queue_\(queue)_bytes", count.sentBytes),
        Statistic("tx_queue_\(queue)_full", count.full),
      ]
    }
    return all
  }
}
