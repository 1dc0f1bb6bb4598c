// Servers that die, hang, or lie: typed errors, all ones, an event, and no descriptor kept.

import CRingway
import DMAMemory
import DeviceIO
import Glibc
import PCI
import Platform
import Synchronization
import SystemPackage
import Testing

@testable import VFIO

@Suite struct UserFaultTests {
  let server: FakeServer

  init() throws { server = try FakeServer() }

  /// The function is gone, says so once for all, and closing it goes through.
  private func expectGone(_ function: VFIOFunction, _ comment: Comment? = nil) throws {
    let epoll = try Epoll()
    try epoll.add(function.eventDescriptor, token: 1)
    #expect(try epoll.wait(milliseconds: 2000).count == 1, comment)
    #expect(function.takeEvents().contains(.removalRequested), comment)
    #expect(function.isGone && function.readConfig32(at: 0) == .max, comment)
    let page = try Page()
    #expect(throws: DMAError.gone) { try function.map(page.source, at: IOVA(rawValue: 0x20_0000)) }
    #expect(throws: PCIFunctionError.gone(function: function.name)) { try function.reset() }
    #expect(throws: PCIFunctionError.gone(function: function.name)) { try function.enableInterrupts([-1]) }
    function.close()
  }

  @Test func aServerThatDiesIsACardPulledOut() throws {
    let function = try server.open()
    let space = try function.registers(bar: 0)
    let tail = try #require(space.doorbell(at: 0x1018))
    let page = try Page()
    try function.map(page.source, at: IOVA(rawValue: 0x1000))
    #expect(function.takeEvents() == [])
    server.die()
    tail.ring(1)
    try expectGone(function)
    #expect(space.read32(at: 0) == .max && space.read32(at: 0x1018) == .max, "mapped or not")
    tail.ring(2)
    #expect(throws: DMAError.gone) { try function.unmap(IOVA(rawValue: 0x1000), count: 4096) }
  }

  @Test func aServerThatHangsIsGivenUpInTime() throws {
    let function = try server.open(patience: 100)
    let space = try function.registers(bar: 2)
    server.set { $0.tamper = { _, _ in [] } }
    let start = MonotonicClock().now()
    #expect(space.read32(at: 0) == .max)
    for _ in 0..<50 { #expect(space.read32(at: 4) == .max) }
    let waited = MonotonicClock().now() - start
    #expect(waited >= 100_000_000 && waited < 1_500_000_000, "once, not each time")
    try expectGone(function)
  }

  @Test func aServerThatNeverReadsIsGivenUpToo() throws {
    server.set { $0.areas = [] }
    let function = try server.open(patience: 100)
    let space = try function.registers(bar: 0)
    let tail = try #require(space.doorbell(at: 0x1018))
    // It is stuck in the answer to a read, and posted writes pile up.
    let shared = Gate()
    server.set { $0.tamper = { _, answer in shared.wait(); return [answer] } }
    #expect(space.read32(at: 0) == .max)
    for value in 0..<100_000 { tail.ring(UInt32(value)) }
    shared.open()
    try expectGone(function)
  }

  @Test func silenceAtTheStartIsTyped() throws {
    server.set { $0.tamper = { _, _ in [] } }
    #expect(throws: VFIOError.silent(server: "vfio-user:test", milliseconds: 50)) { try server.open(patience: 50) }
  }

  @Test func aVersionOfAnotherKindIsTyped() throws {
    server.set { $0.version = [1, 0] }
    #expect(
      throws: VFIOError.malformed(function: "vfio-user:test", what: "version 1.0 of vfio-user; 0.1 is what Ringway speaks")
    ) { try server.open() }
  }

  @Test func aDeviceThatIsNoPCIFunctionIsRefused() throws {
    server.set { script in
      script.tamper = { request, answer in
        var answer = answer
        if request.command == 4 { answer.payload[4] = 1 }
        return [answer]
      }
    }
    #expect(throws: VFIOError.unsupported(function: "vfio-user:test", what: "VFIO does not offer it as a PCI function")) {
      try server.open()
    }
  }

  @Test func refusalsAreNoEnd() throws {
    server.set { $0.refuse = [13: 0] }
    let function = try server.open()
    #expect(throws: PCIFunctionError.reset(function: "vfio-user:test", errno: EIO)) { try function.reset() }
    server.set { $0.refuse = [9: UInt32(EINVAL)] }
    #expect(function.readConfig32(at: 0) == .max)
    server.set { $0.refuse = [:] }
    #expect(function.readConfig32(at: 0) == 0x10FB_8086 && !function.isGone)
  }

  // MARK: lies

  /// What is wrong with an answer to a read of four bytes.
  static let lies: [(String, @Sendable (Message) -> [Message])] = [
    ("an answer to another command", { var a = $0; a.command = 4; return [a] }),
    ("a header of fewer bytes than a header", { var a = $0; a.size = 15; return [a] }),
    ("4 GiB of payload", { var a = $0; a.size = .max; return [a] }),
    ("too few bytes", { var a = $0; a.payload.removeLast(); return [a] }),
    ("too many bytes", { var a = $0; a.payload.append(0); return [a] }),
    ("no payload", { var a = $0; a.payload = []; return [a] }),
    ("another offset", { var a = $0; a.payload[0] ^= 4; return [a] }),
    ("another region", { var a = $0; a.payload[8] ^= 1; return [a] }),
    ("another count", { var a = $0; a.payload[12] = 8; return [a] }),
    ("cut short in the middle", { var a = $0; a.size = 100; return [a] }),
    ("answers to others without end", { a in (0..<400).map { var b = a; b.id = a.id &+ 1000 &+ UInt16($0); return b } }),
    ("an answer to nobody", { var a = $0; a.id &+= 1; return [a] }),
  ]

  @Test(arguments: lies.indices)
  func aServerThatLiesIsGivenUp(index: Int) throws {
    let function = try server.open(patience: 300)
    let space = try function.registers(bar: 2)
    let (name, lie) = UserFaultTests.lies[index]
    server.set { $0.tamper = { _, answer in lie(answer) } }
    #expect(space.read32(at: 0) == .max, "\(name)")
    server.set { $0.tamper = nil }
    try expectGone(function, "\(name)")
  }

  @Test func descriptorsThatNobodyAskedForAreClosed() throws {
    var ends: [Int32] = [-1, -1]
    let made = unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
    try #require(made == 0, "socketpair")
    let readEnd = OwnedDescriptor(taking: ends[0])
    let writeEnd = ends[1]
    let function = try server.open(patience: 300)
    // Three with each answer are more than any answer has; twenty are more than is believed.
    server.set { script in
      script.tamper = { _, answer in
        var answer = answer
        answer.descriptors = (0..<3).map { _ in dup(writeEnd) }
        return [answer]
      }
    }
    _ = try? function.registers(bar: 0)
    #expect(function.readConfig32(at: 0) == 0x10FB_8086)
    server.set { script in
      script.tamper = { _, answer in
        var answer = answer
        answer.descriptors = (0..<20).map { _ in dup(writeEnd) }
        return [answer]
      }
    }
    #expect(function.readConfig32(at: 0) == .max)
    server.set { $0.tamper = nil }
    try expectGone(function)
    _ = close(writeEnd)
    // Once nobody holds the other end any more, this one ends.
    var watched = pollfd(fd: readEnd.raw, events: Int16(POLLIN), revents: 0)
    #expect(unsafe poll(&watched, 1, 2000) == 1 && watched.revents & Int16(POLLHUP) != 0)
  }

  @Test(arguments: [
    [(0x1000, 0x2000), (0x2000, 0x1000)], [(0x1F000, 0x2000)], [(0x1800, 0x1000)], [(0xFFFF_FFFF_FFFF_F000, 0x2000)],
  ] as [[(UInt64, UInt64)]])
  func areasThatCannotBeAreNotMapped(areas: [(UInt64, UInt64)]) throws {
    server.set { $0.areas = areas }
    let function = try server.open(patience: 300)
    #expect(throws: PCIFunctionError.noSuchBAR(function: "vfio-user:test", bar: 0)) { try function.registers(bar: 0) }
    try expectGone(function)
  }

  @Test(arguments: [1 << 53, UInt64.max, UInt64(Int64.max)])
  func regionsThatCannotBeAreNotMapped(size: UInt64) throws {
    server.set { $0.barSize = size; $0.areas = [] }
    let function = try server.open(patience: 300)
    #expect(throws: PCIFunctionError.noSuchBAR(function: "vfio-user:test", bar: 0)) { try function.registers(bar: 0) }
  }

  @Test func aFileThatIsShorterThanItsAreasFaultsGently() throws {
    let function = try server.open()
    let space = try function.registers(bar: 0)
    let tail = try #require(space.doorbell(at: 0x7018))
    #expect(ftruncate(server.file.raw, 0x6000) == 0)
    tail.ring(1)
    #expect(space.read32(at: 0x7000) == .max && function.takeEvents() == .registerFault)
    #expect(function.isGone)
    #expect(throws: PCIFunctionError.gone(function: "vfio-user:test")) { try function.reset() }
    function.close()
  }

  @Test func commandsOfTheServerAreRefusedInBetween() throws {
    let function = try server.open()
    server.set { script in
      script.tamper = { _, answer in
        [Message(id: 7, command: 11, flags: 0, payload: [UInt8](repeating: 1, count: 16)), Message(id: 8, command: 12, flags: 0x10), answer]
      }
    }
    #expect(function.readConfig32(at: 0) == 0x10FB_8086)
    server.set { $0.tamper = nil }
    #expect(function.readConfig32(at: 0) == 0x10FB_8086)
    #expect(server.log.filter { $0.hasPrefix("answer") } == ["answer 11 error \(ENOTSUP)"])
  }

  // MARK: anything at all

  /// A server whose answers are damaged at random: whatever happens, every call comes back.
  @Test(arguments: 0..<8) func damagedAnswersNeverTrap(batch: Int) throws {
    var opened = 0
    for seed in 0..<40 {
      let server = try FakeServer()
      let dice = Mutex(Dice(seed: UInt64(batch * 1000 + seed)))
      let honest = seed % 4
      let asked = Mutex(0)
      server.set { script in
        script.tamper = { _, answer in
          // Some get through the opening first.
          let count = asked.withLock { $0 += 1; return $0 }
          if count < honest * 30 { return [answer] }
          return dice.withLock { $0.damage(answer) }
        }
      }
      guard let function = try? server.open(patience: 15) else { continue }
      opened += 1
      let page = try Page()
      for bar in 0..<6 {
        guard let space = try? function.registers(bar: bar) else { continue }
        space.doorbell(at: 0x18)?.ring(1)
        space.write32(1, at: 0)
        _ = space.read32(at: 0x10)
      }
      try? function.map(page.source, at: IOVA(rawValue: 0x1000))
      try? function.enableInterrupts([-1, -1])
      try? function.unmap(IOVA(rawValue: 0x1000), count: 4096)
      try? function.reset()
      _ = function.takeEvents()
      function.close()
      #expect(function.isGone)
    }
    #expect(opened > 0, "some get past the opening")
  }
}

/// Lets nobody through until it is opened.
private final class Gate: Sendable {
  private let isOpen = Mutex(false)
  func wait() { while !isOpen.withLock({ $0 }) { usleep(1000) } }
  func open() { isOpen.withLock { $0 = true } }
}

/// Damage from a seed (xorshift64*).
private struct Dice {
  private var state: UInt64
  init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

  mutating func roll(_ sides: Int) -> Int {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return Int((state &* 0x2545_F491_4F6C_DD1D) >> 33) % sides
  }

  mutating func damage(_ answer: Message) -> [Message] {
    var answer = answer
    switch roll(24) {
    case 0: answer.id ^= UInt16(1 << roll(16))
    case 1: answer.command ^= UInt16(1 << roll(5))
    case 2: answer.flags ^= UInt32(1 << roll(6))
    case 3: answer.size = UInt32(roll(1 << 20))
    case 4: answer.payload = []
    case 5: answer.payload = Array(answer.payload.prefix(roll(answer.payload.count + 1)))
    case 6: answer.payload += (0..<roll(64)).map { UInt8(truncatingIfNeeded: $0) }
    case 7...14 where !answer.payload.isEmpty:
      for _ in 0...roll(4) { answer.payload[roll(answer.payload.count)] ^= UInt8(1 << roll(8)) }
    case 15: answer.errno = UInt32(roll(1 << 30)); answer.flags = 0x21
    case 16: return []
    case 17: return [answer, answer]
    case 18: answer.descriptors = (0..<roll(24)).map { _ in dup(0) }
    default: break
    }
    return [answer]
  }
}
