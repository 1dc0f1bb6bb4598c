import CRingway
import DMAMemory
import DeviceIO
import Models
import PCI
import Testing

@testable import VirtioTransport

/// Time that passes only by sleeping; `onSleep` is where a device may act.
final class ManualClock: TimeSource, @unchecked Sendable {
  private var time: UInt64 = 1
  var onSleep: () -> Void = {}
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) {
    time += nanoseconds
    onSleep()
  }
}

@Suite struct LayoutTests {
  @Test(arguments: [1, 2, 4, 64, 256, 1024, 32768])
  func `parts are aligned, apart, and inside`(size: Int) throws {
    let layout = try #require(SplitLayout(size: size))
    // Virtio 1.2, clause 2.7: sizes 16n, 6 + 2n, 6 + 8n; alignments 16, 2, 4.
    #expect(layout.availableOffset >= 16 * size)
    #expect(layout.availableOffset % 2 == 0)
    #expect(layout.usedOffset >= layout.availableOffset + 6 + 2 * size)
    #expect(layout.usedOffset % 4 == 0)
    // Elements of the used ring are read as one word each.
    #expect((layout.usedOffset + 4) % 8 == 0)
    #expect(layout.count >= layout.usedOffset + 6 + 8 * size)
    let addresses = layout.addresses(at: IOVA(rawValue: 0x10_0000))
    #expect(addresses.descriptors.rawValue == 0x10_0000)
    #expect(addresses.driver.rawValue == 0x10_0000 + UInt64(layout.availableOffset))
    #expect(addresses.device.rawValue == 0x10_0000 + UInt64(layout.usedOffset))
  }

  @Test(arguments: [0, -1, 3, 100, 65536]) func `other sizes are refused`(size: Int) {
    #expect(SplitLayout(size: size) == nil)
  }

  @Test func `descriptors and rings lie as the kernel's headers say`() throws {
    #expect(MemoryLayout<vring_desc>.size == 16)
    #expect(MemoryLayout<vring_used_elem>.size == 8)
    let layout = try #require(SplitLayout(size: 8))
    let memory = UnsafeMutableRawPointer.allocate(byteCount: layout.count, alignment: 64)
    defer { unsafe memory.deallocate() }
    let ring = unsafe SplitRing(unsafe: memory, layout: layout)
    ring.clear(layout)
    ring.setDescriptor(3, address: 0x1122_3344_5566_7788, length: 0x99, flags: 3, next: 5)
    let descriptor = unsafe memory.load(fromByteOffset: 48, as: vring_desc.self)
    #expect(descriptor.addr == 0x1122_3344_5566_7788)
    #expect(descriptor.len == 0x99)
    #expect(descriptor.flags == UInt16(VRING_DESC_F_NEXT | VRING_DESC_F_WRITE))
    #expect(descriptor.next == 5)
    ring.setAddress(3, 42)
    #expect(unsafe memory.load(fromByteOffset: 48, as: UInt64.self) == 42)
    #expect(unsafe memory.load(fromByteOffset: 56, as: UInt32.self) == 0x99)
    // Index 10 of a ring of 8 is entry 2.
    ring.setAvailable(10, id: 7)
    #expect(unsafe memory.load(fromByteOffset: layout.availableOffset + 4 + 2 * 2, as: UInt16.self) == 7)
    unsafe (memory + layout.usedOffset + 4 + 8 * 2).storeBytes(of: vring_used_elem(id: 6, len: 99), as: vring_used_elem.self)
    #expect(ring.usedElement(10) == 99 << 32 | 6)
  }
}

@Suite struct IndexTests {
  /// Clause 2.7.10.1, by counting: does moving the index pass the event?
  @Test(arguments: [1, 2, 3]) func `an event is passed when the index moves over it`(seed: UInt64) {
    var random = SplitMix(seed)
    for _ in 0..<20_000 {
      let old = UInt16(truncatingIfNeeded: random.next())
      let steps = UInt16(truncatingIfNeeded: random.next() % 600)
      let event = old &+ UInt16(truncatingIfNeeded: random.next() % 1200) &- 300
      var passed = false
      for i in 0..<steps where old &+ i == event { passed = true }
      #expect(SplitQueue.passes(event, from: old, to: old &+ steps) == passed)
    }
  }

  @Test func `the wrap from 65535 to 0 is like any other step`() {
    #expect(SplitQueue.passes(65535, from: 65535, to: 0))
    #expect(SplitQueue.passes(0, from: 65535, to: 1))
    #expect(!SplitQueue.passes(1, from: 65535, to: 1))
    #expect(!SplitQueue.passes(65534, from: 65535, to: 1))
  }

  @Test func `free descriptors come in order, and every one once`() {
    var ids = DescriptorIDs(count: 8)
    #expect(ids.count == 8)
    for i in 0..<8 {
      let id = ids.take()
      #expect(id == UInt32(i))
    }
    #expect(ids.count == 0)
    var random = SplitMix(9)
    var held: [UInt32] = Array(0..<8)
    for _ in 0..<100_000 {
      if !held.isEmpty && (random.next() & 1 == 0 || ids.count == 0) {
        ids.put(held.remove(at: Int(random.next() % UInt64(held.count))))
      } else {
        held.append(ids.take())
      }
      #expect(Set(held).count == held.count)
      #expect(ids.count + held.count == 8)
    }
  }
}

/// A split queue and the device's half of its memory.
@safe final class QueueBench {
  let layout: SplitLayout
  let memory: UnsafeMutableRawPointer
  var usedIndex: UInt16 = 0

  init(size: Int) throws {
    layout = try #require(SplitLayout(size: size))
    unsafe memory = .allocate(byteCount: layout.count, alignment: 64)
  }
  deinit { unsafe memory.deallocate() }

  func queue(eventIndex: Bool) -> SplitQueue {
    var queue = unsafe SplitQueue(unsafe: memory, layout: layout)
    queue.reset(eventIndex: eventIndex)
    return queue
  }
  var availableIndex: UInt16 { unsafe memory.load(fromByteOffset: layout.availableOffset + 2, as: UInt16.self) }
  var availableFlags: UInt16 { unsafe memory.load(fromByteOffset: layout.availableOffset, as: UInt16.self) }
  var usedEvent: UInt16 {
    unsafe memory.load(fromByteOffset: layout.availableOffset + 4 + 2 * layout.size, as: UInt16.self)
  }
  func setAvailableEvent(_ index: UInt16) {
    unsafe memory.storeBytes(of: index, toByteOffset: layout.usedOffset + 4 + 8 * layout.size, as: UInt16.self)
  }
  func setUsedFlags(_ flags: UInt16) { unsafe memory.storeBytes(of: flags, toByteOffset: layout.usedOffset, as: UInt16.self) }
  func use(_ n: UInt16) {
    usedIndex &+= n
    unsafe memory.storeBytes(of: usedIndex, toByteOffset: layout.usedOffset + 2, as: UInt16.self)
  }
}

@Suite struct SplitQueueTests {
  @Test func `the index runs past 65535, and nothing is lost`() throws {
    let bench = try QueueBench(size: 64)
    var queue = bench.queue(eventIndex: true)
    var random = SplitMix(4)
    var posted = 0
    var taken = 0
    while posted < 200_000 {
      let n = Int(random.next() % UInt64(64 - queue.outstanding + 1))
      for _ in 0..<n {
        queue.ring.setAvailable(queue.next, id: 0)
        queue.next &+= 1
      }
      posted += n
      queue.publish()
      #expect(bench.availableIndex == UInt16(truncatingIfNeeded: posted))
      bench.use(UInt16(random.next() % UInt64(queue.outstanding + 1)))
      let waiting = queue.look()
      queue.taken &+= UInt16(waiting)
      taken += waiting
      #expect(queue.fault == .none)
      #expect(queue.outstanding == posted - taken)
    }
  }

  @Test func `an index that moves past what was posted is a fault`() throws {
    let bench = try QueueBench(size: 8)
    var queue = bench.queue(eventIndex: false)
    queue.next &+= 3
    queue.publish()
    bench.use(4)
    let found = queue.look()
    #expect(found == 0)
    #expect(queue.fault == .usedIndex)
    var other = bench.queue(eventIndex: false)
    bench.usedIndex = 0
    bench.use(UInt16.max)
    let foundOther = other.look()
    #expect(foundOther == 0)
    #expect(other.fault == .usedIndex)
  }

  @Test func `one notification a batch, and only when it is wanted`() throws {
    let bench = try QueueBench(size: 64)
    var queue = bench.queue(eventIndex: true)
    // The device waits for index 4.
    bench.setAvailableEvent(4)
    queue.next &+= 4
    queue.publish()
    #expect(queue.notifications == 0)
    queue.next &+= 8
    queue.publish()
    #expect(queue.notifications == 1)
    queue.publish()
    #expect(queue.notifications == 1)
    var plain = bench.queue(eventIndex: false)
    bench.setUsedFlags(1)
    plain.next &+= 1
    plain.publish()
    #expect(plain.notifications == 0)
    bench.setUsedFlags(0)
    plain.next &+= 1
    plain.publish()
    #expect(plain.notifications == 1)
  }

  @Test func `arming names the next buffer, and sees what came before`() throws {
    let bench = try QueueBench(size: 64)
    var queue = bench.queue(eventIndex: true)
    queue.next &+= 10
    queue.publish()
    let first = queue.requestInterrupt()
    #expect(!first)
    #expect(bench.usedEvent == 0)
    let third = queue.requestInterrupt(after: 3)
    #expect(!third)
    #expect(bench.usedEvent == 2)
    bench.use(2)
    let missed = queue.requestInterrupt()
    let early = queue.requestInterrupt(after: 3)
    #expect(missed && !early)
    queue.taken &+= UInt16(queue.look())
    queue.suppressInterrupts()
    // The wish lies behind: moving from 2 on never passes it before 65,535 buffers.
    #expect(bench.usedEvent == 1)
    let plain = bench.queue(eventIndex: false)
    plain.suppressInterrupts()
    #expect(bench.availableFlags == 1)
    let waiting = plain.requestInterrupt()
    #expect(!waiting)
    #expect(bench.availableFlags == 0)
  }

  @Test func `a notifier with a descriptor signals an eventfd`() throws {
    let descriptor = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(descriptor) }
    VirtioNotifier(eventDescriptor: descriptor, queue: 1).notify()
    VirtioNotifier(eventDescriptor: descriptor, queue: 1).notify()
    VirtioNotifier.none.notify()
    var value: UInt64 = 0
    #expect(unsafe read(descriptor, &value, 8) == 8)
    #expect(value == 2)
  }
}

/// SplitMix64: small, seeded, the same everywhere.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}
