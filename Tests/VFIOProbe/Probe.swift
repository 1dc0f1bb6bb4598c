// vfio-probe: module VFIO against a kernel's VFIO and a card, in the testbed's guest.
//
//   vfio-probe ADDRESS            everything that needs nothing but the card; ends with "all well"
//   vfio-probe ADDRESS watch S    waits up to S seconds for events; closes when the card is wanted back
//   vfio-probe ADDRESS hold S     holds the card open for S seconds
//   vfio-probe ADDRESS beside B   opens B, which is in the same IOMMU group, as well
//
// A line for each fact that it found; status 1 and a line "wrong: ..." when one is not as it has to
// be, 2 when the card cannot be opened.

import CRingway
import DMAMemory
import DeviceIO
import PCI
import Platform
import VFIO

@main struct Probe {
  static func main() {
    let arguments = CommandLine.arguments
    guard arguments.count == 2 || arguments.count == 4 else {
      say("usage: vfio-probe ADDRESS [watch SECONDS | hold SECONDS | beside ADDRESS]")
      exit(64)
    }
    let last = arguments.count == 4 ? arguments[3] : ""
    let function: VFIOFunction
    do {
      function = try VFIOFunction.open(arguments[1])
    } catch {
      say("refused: \(error)")
      exit(2)
    }
    do {
      switch arguments.count == 4 ? arguments[2] : "" {
      case "": try examine(function)
      case "watch": try watch(function, seconds: Int(last) ?? 30)
      case "beside": try share(function, with: last)
      default:
        say("holding")
        MonotonicClock().sleep(nanoseconds: (UInt64(last) ?? 30) * 1_000_000_000)
      }
    } catch {
      say("wrong: \(error)")
      exit(1)
    }
    function.close()
  }

  static func examine(_ function: VFIOFunction) throws {
    let identity = function.identity
    say("identity \(hex(identity.vendor)):\(hex(identity.device)) class \(hex(identity.classCode))")
    say("vectors \(function.interruptVectors)")
    for range in function.iovaRanges { say("addresses \(hex(range.lowerBound))-\(hex(range.upperBound))") }
    say("pages of \(function.iovaPageSize)")
    let spaces = try bars(function)
    try memory(function)
    try interrupts(function)
    try faults(function, spaces)
    try closing(function, spaces)
    say("all well")
  }

  /// The BARs that are there, and which of them are stored to directly.
  static func bars(_ function: VFIOFunction) throws -> [(bar: Int, space: any RegisterSpace)] {
    var spaces: [(bar: Int, space: any RegisterSpace)] = []
    for bar in 0...5 {
      guard let space = try? function.registers(bar: bar) else { continue }
      say("bar \(bar): \(space.count) bytes, \(space.doorbell(at: 0) == nil ? "by message" : "mapped"), first \(hex(space.read32(at: 0)))")
      spaces.append((bar, space))
    }
    try expect(!spaces.isEmpty, "no BAR")
    try expect(throws: PCIFunctionError.noSuchBAR(function: function.name, bar: 6)) { _ = try function.registers(bar: 6) }
    return spaces
  }

  /// Hugepages mapped at a bus address of our own, and what the kernel refuses.
  static func memory(_ function: VFIOFunction) throws {
    let size = 4 << 20
    let file = try MemoryFile(name: "vfio-probe", bytes: size, backing: .memfd(pageSize: 2 << 20))
    let top = IOVA(rawValue: (function.iovaRanges.last!.upperBound - UInt64(size) + 1) & ~UInt64(size - 1))
    for iova in [IOVA(rawValue: 0x1000_0000), top] {
      try function.map(file.source, at: iova)
      say("mapped \(size) bytes at \(hex(iova.rawValue))")
      try expect(throws: DMAError.map(errno: EEXIST, count: size, iova: iova)) { try function.map(file.source, at: iova) }
    }
    let beyond = IOVA(rawValue: function.iovaRanges.last!.upperBound - UInt64(size) + 2)
    try expect(throws: DMAError.outOfRange(iova: beyond, count: size)) { try function.map(file.source, at: beyond) }
    let odd = IOVA(rawValue: 0x2000_0800)
    try expect(throws: DMAError.map(errno: EINVAL, count: size, iova: odd)) { try function.map(file.source, at: odd) }
    try function.unmap(IOVA(rawValue: 0x1000_0000), count: size)
    // Gone from the kernel's books too: the address is free again.
    try function.map(file.source, at: IOVA(rawValue: 0x1000_0000))
    try function.unmap(IOVA(rawValue: 0x1000_0000), count: size)
    try function.unmap(top, count: size)
  }

  /// Each vector reaches its own eventfd, through the kernel, without the card's help.
  static func interrupts(_ function: VFIOFunction) throws {
    final class Event {
      let event: EventFD
      init() throws { event = try EventFD() }
    }
    let events = try (0..<function.interruptVectors).map { _ in try Event() }
    for used in [1, events.count] {
      try function.enableInterrupts(events[..<used].map { $0.event.descriptor })
      for vector in 0..<used { try function.raiseInterrupt(vector) }
      for (vector, event) in events.enumerated() {
        let seen = event.event.drain()
        try expect(seen == (vector < used ? 1 : 0), "vector \(vector) of \(used) was seen \(seen) times")
      }
    }
    function.disableInterrupts()
    try expect(throws: PCIFunctionError.interrupts(function: function.name, errno: EINVAL)) { try function.raiseInterrupt(0) }
    try expect(
      throws: PCIFunctionError.tooFewVectors(function: function.name, wanted: events.count + 1, available: events.count)
    ) { try function.enableInterrupts([Int32](repeating: -1, count: events.count + 1)) }
    say("interrupts 1 and \(events.count) of \(events.count)")
  }

  /// A BAR faults for real while memory decoding is off, and comes back with a reset.
  static func faults(_ function: VFIOFunction, _ spaces: [(bar: Int, space: any RegisterSpace)]) throws {
    guard let (bar, space) = spaces.first(where: { $0.space.doorbell(at: 0) != nil }) else { return }
    let before = space.read32(at: 8)
    function.writeConfig16(function.readConfig16(at: 4) & ~2, at: 4)
    let value = space.read32(at: 8)
    try expect(value == .max, "bar \(bar) gives \(hex(value)) while memory decoding is off")
    try expect(function.registersHaveFaulted && function.isGone, "the fault was not noticed")
    let events = function.takeEvents()
    try expect(events == .registerFault, "events \(events)")
    try function.reset()
    try expect(!function.isGone, "gone after a reset")
    try expect(space.read32(at: 8) != .max, "still all ones after a reset")
    say("fault in bar \(bar): \(hex(before)), \(hex(value)), after reset \(hex(space.read32(at: 8)))")
  }

  /// Closed means that somebody else can open it, and that what we kept answers all ones.
  static func closing(_ function: VFIOFunction, _ spaces: [(bar: Int, space: any RegisterSpace)]) throws {
    try expect(throws: VFIOError.alreadyOpen(address: function.name)) { _ = try VFIOFunction.open(function.name) }
    function.setBusMaster(true)
    function.close()
    function.close()
    for (bar, space) in spaces { try expect(space.read32(at: 0) == .max, "bar \(bar) still answers") }
    var again: VFIOFunction? = try VFIOFunction.open(function.name)
    try expect(again!.readConfig16(at: 4) & 4 == 0, "bus mastering is on after opening")
    again = nil
    // Dropped is closed as well.
    try VFIOFunction.open(function.name).close()
    say("closed and opened again")
  }

  /// Two cards in one group: opened both, memory mapped for both, closed one after the other.
  static func share(_ one: VFIOFunction, with address: String) throws {
    let two = try VFIOFunction.open(address)
    let size = 2 << 20
    let file = try MemoryFile(name: "vfio-probe", bytes: size, backing: .memfd(pageSize: size))
    let iova = IOVA(rawValue: 0x1000_0000)
    try one.map(file.source, at: iova)
    try two.map(file.source, at: iova)
    try one.unmap(iova, count: size)
    let event = try EventFD()
    try two.enableInterrupts([event.descriptor])
    one.close()
    try two.raiseInterrupt(0)
    try expect(event.drain() == 1, "the second card's vector is lost with the first card")
    try expect(!two.isGone, "the second card is gone with the first")
    // The mapping is still there: what lies across it is refused by the kernel.
    let across = IOVA(rawValue: iova.rawValue - 4096)
    try expect(throws: DMAError.map(errno: EEXIST, count: size, iova: across)) { try two.map(file.source, at: across) }
    two.close()
    try VFIOFunction.open(address).close()
    try VFIOFunction.open(one.name).close()
    say("all well")
  }

  static func watch(_ function: VFIOFunction, seconds: Int) throws {
    let space = try? function.registers(bar: 0)
    let epoll = try Epoll()
    try epoll.add(function.eventDescriptor, token: 0)
    say("watching")
    guard try !epoll.wait(milliseconds: Int32(seconds) * 1000).isEmpty else { throw Wrong("nothing happened") }
    let events = function.takeEvents()
    say("events \(events.contains(.removalRequested) ? "removal " : "")\(events.contains(.deviceError) ? "error " : "")")
    let vendor = function.readConfig16(at: 0)
    say("config \(hex(vendor)) register \(hex(space?.read32(at: 8) ?? 0)) gone \(function.isGone)")
    function.close()
    say("closed")
    // The kernel takes it away as soon as we let go.
    let clock = MonotonicClock()
    let end = clock.now() + 10_000_000_000
    while clock.now() < end {
      do {
        try VFIOFunction.open(function.name).close()
      } catch .noSuchFunction {
        say("away")
        return
      } catch {
        say("meanwhile: \(error)")
      }
      clock.sleep(nanoseconds: 200_000_000)
    }
    throw Wrong("the card is still there")
  }
}

struct Wrong: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A line that is out at once: who waits for it may be watching.
func say(_ text: String) {
  let line = Array((text + "\n").utf8)
  _ = unsafe line.withUnsafeBytes { unsafe write(1, $0.baseAddress, $0.count) }
}

func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

func expect(_ condition: Bool, _ message: @autoclosure () -> String) throws {
  if !condition { throw Wrong(message()) }
}

func expect<Expected: Error & Equatable>(throws expected: Expected, _ body: () throws -> Void) throws {
  do {
    try body()
  } catch let error as Expected where error == expected {
    return
  }
  throw Wrong("not refused with \"\(expected)\"")
}
