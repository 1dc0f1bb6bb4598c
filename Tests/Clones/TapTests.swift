// TAP interfaces: over a pair of sockets, and over a real one in a network namespace.

import CRingway
import Glibc
import Ifnet
import Netisr
import Packet
import Platform
import Testing
import Wire

@testable import Clones

/// Opens one end of a pair of sockets, as a privileged helper would hand over a descriptor.
private final class PairOpener: TapOpener {
  let far = Guarded<Int32>(-1)
  let asked = Guarded<[String]>([])
  func open(name: String, namespace: String?) throws(InterfaceError) -> TapHandle {
    asked.withLock { $0.append("\(name) \(namespace ?? "-")") }
    if name == "refused" { throw InterfaceError(.EPERM, "nobody may") }
    var ends: [Int32] = [-1, -1]
    let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard unsafe ends.withUnsafeMutableBufferPointer({ unsafe socketpair(AF_UNIX, kind, 0, $0.baseAddress!) }) == 0 else {
      throw InterfaceError(.EIO, "no sockets")
    }
    let end = ends[1]
    far.withLock { $0 = end }
    let control = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
    return TapHandle(file: OwnedDescriptor(taking: ends[0]), control: OwnedDescriptor(taking: control), name: name)
  }
  deinit { close(far.withLock { $0 }) }
  func send(_ bytes: [UInt8]) -> Int { unsafe bytes.withUnsafeBytes { unsafe write(far.withLock { $0 }, $0.baseAddress, $0.count) } }
  func receive() -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 70000)
    let got = unsafe bytes.withUnsafeMutableBytes { unsafe read(far.withLock { $0 }, $0.baseAddress, $0.count) }
    return got > 0 ? Array(bytes.prefix(got)) : nil
  }
}

private let station = MACAddress(2, 0, 0, 0, 0, 9)

@Suite(.serialized) struct TapTests {
  @Test("frames are read on the TAP's worker and written whole, jumbo frames over several buffers")
  func frames() throws {
    let opener = PairOpener()
    let stack = try Stack(workers: 3, opener: opener)
    let tap = try stack.make("tap", ["worker": "2", "peer": "rw7", "namespace": "lab"])
    #expect(opener.asked.withLock { $0 } == ["rw7 lab"])
    let own = try #require(tap.linkAddress)
    for n in 0..<50 as Range<UInt8> { #expect(opener.send(frame(to: own, from: station, [0x45, n])) == 60) }
    let got = stack.take()
    #expect(got.map { $0.bytes[1] } == Array(0..<50) && got.allSatisfy { $0.worker == 2 && $0.interface == tap.index.index })
    for n in 0..<50 as Range<UInt8> { stack.send(frame(to: station, from: own, [0x45, n]), on: tap) }
    for n in 0..<50 as Range<UInt8> { #expect(opener.receive() == frame(to: station, from: own, [0x45, n])) }
    #expect(opener.receive() == nil && tap.counters.opackets == 50)
    // Longer than a buffer.
    _ = try stack.table.perform(.on("tap0", .setMTU(9000)), by: .system)
    let jumbo = frame(to: own, from: station, (0..<8000).map { UInt8(truncatingIfNeeded: $0) })
    #expect(opener.send(jumbo) == jumbo.count)
    #expect(stack.take().map(\.bytes) == [Array(jumbo[14...])])
    check(stack.isConserved(tap))
    #expect(stack.buffers.pool.available == stack.buffers.pool.capacity)
  }

  @Test("a frame without a buffer is read and counted as dropped: the worker does not spin")
  func noBuffers() throws {
    let opener = PairOpener()
    let stack = try Stack(opener: opener)
    let tap = try stack.make("tap")
    var kept = PacketBatch(capacity: 4096)
    while let packet = stack.buffers.pool.allocate() { _ = kept.append(packet) }
    for _ in 0..<5 { _ = opener.send(frame(to: try #require(tap.linkAddress), from: station)) }
    #expect(stack.take().isEmpty)
    #expect(stack.drops(.noBuffer, tap) == 5 && tap.counters.ipackets == 5)
    check(stack.isConserved(tap))
    kept.removeAll()
  }

  @Test("down, nothing is read; what the opener refuses is refused; a detached TAP closes its descriptors")
  func life() throws {
    let opener = PairOpener()
    let stack = try Stack(opener: opener)
    #expect(refusal { () throws(InterfaceError) in try stack.table.create("tap", parameters: ["peer": "refused"]) } == .EPERM)
    let tap = try stack.make("tap")
    try tap.takeDown()
    _ = opener.send(frame(to: try #require(tap.linkAddress), from: station))
    #expect(stack.take().isEmpty && tap.linkStatus == .down)
    try tap.bringUp()
    #expect(stack.take().count == 1)
    try stack.table.destroy("tap0")
    stack.netisr.settle()
    #expect(stack.table.interface(named: "tap0") == nil)
    #expect(opener.send([1]) < 0, "the other end is closed")
  }

  @Test("Linux at the other end, in a network namespace: carrier, link, ARP both ways")
  func linux() throws {
    guard let namespace = Namespace() else { return }
    let stack = try Stack()
    let tap = try stack.make("tap", ["peer": "rwclone0", "namespace": namespace.name])
    #expect(tap.linkStatus == .down && tap.flags.contains(.running))
    // The other end is down: the frame is dropped with a reason.
    let own = try #require(tap.linkAddress)
    stack.send(frame(to: .broadcast, from: own), on: tap)
    #expect(stack.drops(.peerGone, tap) == 1)
    #expect(namespace.ip("addr", "add", "198.18.0.1/24", "dev", "rwclone0"))
    #expect(namespace.ip("link", "set", "rwclone0", "up"))
    stack.clock.advance(250_000_000)
    stack.netisr.settle()
    #expect(tap.linkStatus == .up)
    let question: [UInt8] = [0, 1, 8, 0, 6, 4, 0, 1] + own.bytes + [198, 18, 0, 9, 0, 0, 0, 0, 0, 0, 198, 18, 0, 1]
    stack.send(frame(to: .broadcast, from: own, type: Ethernet.typeARP, question), on: tap)
    var answer: [UInt8]?
    // Twenty seconds at most: Linux answers when it gets round to it.
    for _ in 0..<4000 where answer == nil {
      answer = stack.take().first { $0.proto == .arp && $0.bytes.count >= 28 && $0.bytes[7] == 2 }?.bytes
      if answer == nil { usleep(5000) }
    }
    let reply = try #require(answer, "the kernel did not answer")
    #expect(Array(reply[14..<18]) == [198, 18, 0, 1] && Array(reply[18..<24]) == own.bytes)
    // Taking our end down takes Linux's carrier away.
    try tap.takeDown()
    #expect(namespace.hasCarrier("rwclone0") == false)
    try stack.table.destroy("tap0")
    stack.netisr.settle()
    #expect(!namespace.ip("link", "show", "rwclone0"))
  }

  @Test("names that Linux does not take, and namespaces that are not there, are errors that say so")
  func refusals() throws {
    let opener = LinuxTapOpener()
    for name in ["", "a name", "x/y", "sixteen-bytes-xx"] {
      #expect(refusal { () throws(InterfaceError) in try opener.open(name: name, namespace: nil).name } == .EINVAL)
    }
    #expect(refusal { () throws(InterfaceError) in try opener.open(name: "rwx", namespace: "no-such-namespace").name } == .ENOENT)
  }
}

/// Runs a command; its exit status.
private func run(_ words: [String]) -> Int32 {
  var arguments: [UnsafeMutablePointer<CChar>?] = unsafe words.map { unsafe strdup($0) } + [nil]
  defer { for unsafe argument in unsafe arguments { unsafe free(argument) } }
  var child: pid_t = 0
  guard unsafe posix_spawnp(&child, words[0], nil, nil, &arguments, environ) == 0 else { return -1 }
  var status: Int32 = 0
  while unsafe waitpid(child, &status, 0) < 0, rw_errno() == EINTR {}
  return status >> 8 & 0xff
}

/// A network namespace that goes away with its owner.
private final class Namespace {
  let name = "rw-clones-\(getpid())"
  init?() {
    guard getuid() == 0 else {
      print("TAP tests skipped: not root")
      return nil
    }
    guard unsafe access("/dev/net/tun", F_OK) == 0, run(["ip", "netns", "add", name]) == 0 else {
      print("TAP tests skipped: no /dev/net/tun, or 'ip netns add' is refused")
      return nil
    }
  }
  deinit { _ = run(["ip", "netns", "del", name]) }
  func ip(_ words: String...) -> Bool { run(["ip", "-n", name] + words) == 0 }
  func hasCarrier(_ device: String) -> Bool {
    run(["ip", "netns", "exec", name, "sh", "-c", "test \"$(cat /sys/class/net/\(device)/carrier)\" = 1"]) == 0
  }
}
