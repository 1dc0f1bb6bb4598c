import DMAMemory
import DeviceIO
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Synchronization
import Testing

/// A clock that tests move.
final class HandClock: TimeSource {
  private let nanoseconds = Atomic<UInt64>(1_000_000_000)
  func now() -> UInt64 { nanoseconds.load(ordering: .relaxed) }
  func sleep(nanoseconds time: UInt64) { nanoseconds.wrappingAdd(time, ordering: .relaxed) }
  func advance(seconds: UInt64) { nanoseconds.wrappingAdd(seconds * 1_000_000_000, ordering: .relaxed) }
}

/// Switches whose control runs on the test's thread. Syncs run on any.
struct ValeLab {
  let netisr: Netisr
  let system: NetmapSystem
  let ports: ValePorts
  let provider = TestProvider()
  let clock = HandClock()

  init(_ options: ValeOptions = ValeOptions(), regions: Int = 600) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    netisr = try Netisr(configuration, clock: clock)
    var memory = NetmapMemoryOptions()
    memory.sizes = PoolSizes(
      interfaces: 16, interfaceSize: 1024, rings: 64, ringSize: 16640, buffers: 4096, minimumBuffers: 4096, descriptorBytes: 4096)
    memory.privateSizes = PoolSizes(interfaces: 4, rings: 4, ringSize: 320, buffers: 160, minimumBuffers: 16)
    memory.mostRegions = regions
    system = NetmapSystem(netisr, memory: NetmapMemory(memory))
    ports = ValePorts(netisr, options: options)
    provider.ports["t0"] = try TestAdapter("t0")
    system.add(ports)
    system.add(provider)
  }

  func open(
    _ name: String, slots: UInt32 = 64, rings: UInt16 = 1, _ mode: RegisterMode = .allNIC, _ flags: RegisterFlags = [],
    memory: UInt16 = 0
  ) throws(NetmapError) -> NetmapPort {
    var register = RegisterRequest()
    (register.transmitSlots, register.receiveSlots) = (slots, slots)
    (register.transmitRings, register.receiveRings) = (rings, rings)
    register.memoryID = memory
    return try system.register(PortRequest(name, RingSelection(mode, flags: flags), register: register))
  }

  /// The errno of a registration that fails.
  func error(_ name: String, _ mode: RegisterMode = .allNIC, _ flags: RegisterFlags = [], memory: UInt16 = 0) -> NetmapError.Code? {
    do {
      _ = try open(name, mode, flags, memory: memory)
      return nil
    } catch { return error.code }
  }

  /// Nothing is left: no port, and no region with anything in it.
  func isEmpty() -> Bool {
    netisr.settle()
    return ports.report.isEmpty
      && system.memory.regions.allSatisfy { $0.users == 0 && $0.allocator.statistics.prefix(3).allSatisfy { $0.inUse == 0 } }
  }
}

/// A station's address: locally administered, unicast.
func station(_ n: Int) -> [UInt8] { [0x02, 0, 0, UInt8(n >> 16 & 255), UInt8(n >> 8 & 255), UInt8(n & 255)] }
let everybody = [UInt8](repeating: 0xff, count: 6)

/// A frame with bytes that follow from its addresses, length and mark.
func frame(to: [UInt8], from: [UInt8], length: Int = 60, mark: UInt8 = 0) -> [UInt8] {
  var bytes = to + from + [0x88, 0xb5, mark]
  while bytes.count < length { bytes.append(UInt8(truncatingIfNeeded: bytes.count &* 7) ^ mark) }
  return Array(bytes.prefix(max(15, length)))
}

extension NetmapPort {
  /// Puts frames into a transmit ring, each into one slot, as far as there is room, and syncs. Returns how many.
  @discardableResult func send(_ frames: [[UInt8]], ring n: Int = 0, flags: SlotFlags = []) -> Int {
    let ring = transmitRings[n]
    var at = ring.head, sent = 0
    while sent < frames.count, at != ring.tail {
      ring.put(frames[sent], at: at, flags: flags)
      at = ring.next(at)
      sent += 1
    }
    ring.setHead(at)
    sync(ring)
    return sent
  }

  /// A frame over several slots.
  func send(fragments: [[UInt8]], ring n: Int = 0) {
    let ring = transmitRings[n]
    var at = ring.head
    for (i, part) in fragments.enumerated() {
      ring.put(part, at: at, flags: i + 1 < fragments.count ? .moreFragments : [])
      at = ring.next(at)
    }
    ring.setHead(at)
    sync(ring)
  }

  /// What has come since the last time, slot by slot; the slots are given back.
  func slots(ring n: Int = 0) -> [(slot: NetmapSlot, bytes: [UInt8])] {
    let ring = receiveRings[n]
    sync(ring)
    var at = ring.head, found: [(NetmapSlot, [UInt8])] = []
    while at != ring.tail {
      let slot = ring.slot(at)
      found.append((slot, ring.bytes(slot)))
      at = ring.next(at)
    }
    ring.setHead(at)
    sync(ring)
    return found
  }
  func receive(ring n: Int = 0) -> [[UInt8]] { slots(ring: n).map(\.bytes) }
}

extension NetmapProgramRing {
  func put(_ bytes: [UInt8], at i: UInt32, flags: SlotFlags = []) {
    let slot = self.slot(i)
    unsafe withBuffer(slot.bufferIndex) { buffer in
      for (k, byte) in bytes.enumerated().prefix(bufferSize) { unsafe buffer[k] = byte }
    }
    setSlot(i, NetmapSlot(bufferIndex: slot.bufferIndex, length: UInt16(bytes.count), flags: flags))
  }
  func bytes(_ slot: NetmapSlot) -> [UInt8] {
    unsafe withBuffer(slot.bufferIndex) { unsafe Array($0.prefix(Int(slot.length))) }
  }
}
