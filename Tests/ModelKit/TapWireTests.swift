// A real TAP in a network namespace, when this process may make one.

import CRingway
import Glibc
import ModelKit
import Platform
import SystemPackage
import Testing

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
  let name = "rw-wires-\(getpid())"
  init?() {
    guard getuid() == 0 else {
      print("TAP tests skipped: not root")
      return nil
    }
    guard Files.exists("/dev/net/tun"), run(["ip", "netns", "add", name]) == 0 else {
      print("TAP tests skipped: no /dev/net/tun, or 'ip netns add' is refused")
      return nil
    }
  }
  deinit { _ = run(["ip", "netns", "del", name]) }
  func ip(_ words: String...) -> Bool { run(["ip", "-n", name] + words) == 0 }
}

@Suite(.serialized) struct TapWireTests {
  @Test func theKernelAnswers() throws {
    guard let namespace = Namespace() else { return }
    let wire = try TapWire(name: "rwtap%d", namespace: namespace.name)
    #expect(wire.name == "rwtap0" && !wire.isUp && wire.descriptor >= 0)
    send(wire, numbered(1))
    #expect(wire.refused == 1 && wire.sent == 0, "the interface is down")
    #expect(namespace.ip("addr", "add", "198.18.0.1/24", "dev", "rwtap0"))
    #expect(namespace.ip("link", "set", "rwtap0", "up"))
    usleep(20_000)
    #expect(wire.isUp)
    // An ARP request for the kernel's address; it answers, padded to 60 bytes.
    let station: [UInt8] = [2, 0, 0, 0, 0, 9]
    let request = [UInt8](repeating: 0xff, count: 6) + station + hex("0806 0001 0800 06 04 0001") + station
      + [198, 18, 0, 9] + hex("00 00 00 00 00 00") + [198, 18, 0, 1]
    send(wire, request)
    #expect(wire.sent == 1)
    var reply: [UInt8]?
    for _ in 0..<200 where reply == nil {
      reply = drain(wire).first { $0[12] == 8 && $0[13] == 6 && $0[21] == 2 }
      if reply == nil { usleep(5000) }
    }
    let answer = try #require(reply, "the kernel did not answer")
    #expect(answer.count == 60 && Array(answer[0..<6]) == station && Array(answer[28..<32]) == [198, 18, 0, 1])
    #expect(Array(answer[42...]).allSatisfy { $0 == 0 })
    // Not in this process's own namespace.
    #expect(!Files.exists("/sys/class/net/rwtap0"))
    #expect(namespace.ip("link", "set", "rwtap0", "down"))
    usleep(20_000)
    #expect(!wire.isUp)
  }

  @Test func whatCannotBe() {
    for name in ["", "a name", "x/y", "sixteen-bytes-xx"] {
      #expect(throws: WireError.self) { try TapWire(name: name) }
    }
    let error = #expect(throws: WireError.self) { try TapWire(name: "rwtap", namespace: "no-such-namespace") }
    #expect(error?.description.contains("/run/netns/no-such-namespace") == true)
    #expect(error?.description.contains("ip netns add") == true)
  }
}
