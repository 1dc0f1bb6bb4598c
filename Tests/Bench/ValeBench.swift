// VALE, both ends in this process and on one core: what the switch costs a packet.

import ArgumentParser
import DMAMemory
import Foundation
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Platform

/// VALE at two sizes.
struct ValeBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vale", abstract: "Copies of a VALE switch from one port to another, and to several.")
  @OptionGroup var options: CommonOptions
  @Option(help: "Sends this many frames of 64 bytes once and ends: for callgrind, the slope of two numbers.") var count: Int?
  @Option(help: "With --count: bytes a frame.") var length = 64

  func run() throws {
    if let count {
      let rig = try ValeRig(length: length, receivers: 1, stations: 1)
      let sent = try rig.send(count)
      print("packets \(sent)")
      return
    }
    var report = Report(title: "VALE", note: Self.note)
    try Self.measure(packets: options.quick ? 100_000 : 5_000_000, options.roundCount, &report)
    try options.finish(report)
  }

  static func measure(packets: Int, _ rounds: Int, _ report: inout Report) throws {
    for (length, receivers, stations) in [(64, 1, 1), (64, 1, 512), (1500, 1, 1), (64, 3, 1)] {
      var times: [Double] = []
      for _ in 0..<rounds {
        let rig = try ValeRig(length: length, receivers: receivers, stations: stations), clock = MonotonicClock()
        _ = try rig.send(20_000)
        let start = clock.now(), sent = try rig.send(packets / (length > 1000 ? 4 : 1) / receivers)
        times.append(Double(clock.now() - start) / Double(sent))
      }
      let what = receivers > 1 ? "to \(receivers) ports at a time, a frame sent" : stations > 1 ? "\(stations) stations" : "one station"
      report.add("VALE, one port to another on one core", "\(length) bytes, \(what)", times)
    }
  }

  static let note = """
    Written by `tools/bench vale`. A transmit sync of up to 256 frames, then a receive sync, in turn; nothing reads or writes the frames but the
    switch, which copies them. Nanoseconds are the median of the rounds, with the lowest and the highest.
    """
}

/// A switch with one sender.
private struct ValeRig {
  let system: NetmapSystem
  let sender: NetmapPort
  let receivers: [NetmapPort]
  let batch: UInt32 = 256

  init(length: Int, receivers count: Int, stations: Int) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    let netisr = try Netisr(configuration)
    let system = NetmapSystem(netisr, memory: NetmapMemory(NetmapMemoryOptions()))
    system.add(ValePorts(netisr))
    self.system = system
    func open(_ name: String) throws -> NetmapPort { try system.register(PortRequest("vale0:\(name)", RingSelection(.allNIC))) }
    sender = try open("sender")
    receivers = try (0..<count).map { try open("r\($0)") }
    // The first receiver's stations say who they are; with several receivers frames go to everybody.
    func address(_ n: Int) -> [UInt8] { [2, 0, 0, 0, UInt8(n >> 8), UInt8(n & 255)] }
    let broadcast = [UInt8](repeating: 0xff, count: 6)
    for n in 0..<stations {
      fill(receivers[0], slot: receivers[0].transmitRings[0].head, broadcast + address(n + 1), length: 60)
      receivers[0].transmitRings[0].advance()
      receivers[0].sync(.transmit)
      drain(sender)
      for port in receivers { drain(port) }
    }
    for n in 0..<sender.transmitRings[0].count {
      fill(sender, slot: n, (count > 1 ? broadcast : address(Int(n) % stations + 1)) + address(0xfff0), length: length)
    }
  }

  private func fill(_ port: NetmapPort, slot i: UInt32, _ addresses: [UInt8], length: Int) {
    let ring = port.transmitRings[0]
    var slot = ring.slot(i)
    unsafe ring.withBuffer(slot.bufferIndex) { buffer in
      for (n, byte) in addresses.enumerated() { unsafe buffer[n] = byte }
      for n in addresses.count..<length { unsafe buffer[n] = UInt8(truncatingIfNeeded: n) }
    }
    slot.length = UInt16(length)
    ring.setSlot(i, slot)
  }

  private func drain(_ port: NetmapPort) {
    let ring = port.receiveRings[0]
    port.sync(ring)
    ring.setHead(ring.tail)
    port.sync(ring)
  }

  /// Sends `count` frames at least, and sees that all arrive.
  func send(_ count: Int) throws -> Int {
    let out = sender.transmitRings[0], kring = sender.krings[0]
    let ins = receivers.map { port in (port: port, ring: port.receiveRings[0], kring: port.krings[1]) }
    var sent = 0
    var arrived = 0
    while sent < count {
      out.setHead(kring.advance(out.head, by: batch))
      sender.synchronise(kring)
      sent += Int(batch)
      for each in ins {
        each.port.synchronise(each.kring)
        arrived += Int(each.ring.space)
        each.ring.setHead(each.ring.tail)
      }
    }
    for port in receivers { drain(port) }
    guard arrived == sent * receivers.count else { throw BenchError("of \(sent * receivers.count) frames \(arrived) arrived") }
    return sent
  }
}
