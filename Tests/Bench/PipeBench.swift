// A pipe, both ends in this process and on one core: what a packet costs that changes hands without a copy.

import ArgumentParser
import DMAMemory
import Foundation
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Platform

/// A pipe at several batch sizes.
struct PipeBench: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "pipe", abstract: "Packets through a pipe, both ends on one core.")
  @OptionGroup var options: CommonOptions
  @Option(help: "Sends this many packets once and ends: for callgrind, the slope of two numbers.") var count: Int?
  @Option(help: "With --count: packets a sync.") var batch: UInt32 = 256

  func run() throws {
    if let count {
      print("packets \(try PipeRig(batch: batch).send(count))")
      return
    }
    var report = Report(title: "Pipes", note: Self.note)
    try Self.measure(packets: options.quick ? 200_000 : 20_000_000, options.roundCount, &report)
    try options.finish(report)
  }

  static func measure(packets: Int, _ rounds: Int, _ report: inout Report) throws {
    for batch: UInt32 in [16, 64, 256, 512] {
      var times: [Double] = []
      for _ in 0..<rounds {
        let rig = try PipeRig(batch: batch), clock = MonotonicClock()
        _ = try rig.send(100_000)
        let start = clock.now(), sent = try rig.send(packets)
        times.append(Double(clock.now() - start) / Double(sent))
      }
      report.add("Pipe, both ends on one core", "\(batch) packets a sync", times)
    }
  }

  static let note = """
    Written by `tools/bench pipe`. A transmit sync, then a receive sync, in turn; nothing reads or writes the packets, and the pipe copies
    none. Nanoseconds are the median of the rounds, with the lowest and the highest.
    """
}

/// Two ends.
private struct PipeRig {
  let system: NetmapSystem
  let sender: NetmapPort
  let reader: NetmapPort
  let batch: UInt32

  init(batch: UInt32) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    let netisr = try Netisr(configuration)
    system = NetmapSystem(netisr, memory: NetmapMemory(NetmapMemoryOptions()))
    system.addSoftwarePorts()
    sender = try system.register(PortRequest("bench{1", RingSelection(.allNIC)))
    reader = try system.register(PortRequest("bench}1", RingSelection(.allNIC)))
    self.batch = batch
    let ring = sender.transmitRings[0]
    for i in 0..<ring.count {
      var slot = ring.slot(i)
      slot.length = 60
      ring.setSlot(i, slot)
    }
    reader.sync(.receive)
  }

  /// Sends `count` packets at least, and sees that all arrive.
  func send(_ count: Int) throws -> Int {
    let out = sender.transmitRings[0], into = reader.receiveRings[0]
    guard let sending = sender.krings.first(where: { $0.id.direction == .transmit }),
      let receiving = reader.krings.first(where: { $0.id.direction == .receive })
    else { throw ExitCode(1) }
    var sent = 0, arrived = 0, head = out.head, at = into.head
    while sent < count {
      head = sending.advance(head, by: batch)
      out.setHead(head)
      sender.synchronise(sending)
      sent += Int(batch)
      reader.synchronise(receiving)
      let tail = into.tail
      arrived += Int(receiving.distance(at, tail))
      at = tail
      into.setHead(tail)
    }
    guard arrived == sent, sending.counters.drops == 0 else { throw ExitCode(2) }
    return sent
  }
}
