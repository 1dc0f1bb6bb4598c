// Ports over vfio-user: our drivers, the client, the server and our models, each card a socket away.

import DriverKit
import Glibc
import ModelKit
import ModelServer
import Models
import Platform
import Synchronization
import Testing
import Wire

@testable import Ringway

enum ModelCard: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case intel82599 = "82599"
  case intel82574 = "82574"
  case virtio = "virtio-net"
  var testDescription: String { rawValue }

  func make(_ last: UInt8) throws -> any DeviceModel {
    let address = MACAddress(0x52, 0x54, 0, 0, 0, last)
    switch self {
    case .intel82599: return try Intel82599Model(address: address)
    case .intel82574: return try E1000eModel(address: address)
    case .virtio:
      var options = VirtioNetModelOptions()
      options.address = address
      return try VirtioNetModel(options)
    }
  }
}

/// Two models joined by a cable, served by a thread of their own until this object goes.
final class ServedPair {
  let addresses: [String]
  private let directory: String
  private let stage = Stage()
  private let stopper: Stopper
  private let thread: JoinedThread

  private final class Stopper: Sendable {
    let event: EventFD
    init() throws { event = try EventFD() }
  }

  /// How far the thread is.
  private final class Stage: Sendable {
    private let state = Mutex<(isReady: Bool, isOver: Bool, problem: String?)>((false, false, nil))
    func ready() { state.withLock { $0.isReady = true } }
    func over(_ problem: String?) { state.withLock { $0 = (true, true, problem) } }
    func waitUntilReady() -> String? {
      while !state.withLock({ $0.isReady }) { usleep(1000) }
      return state.withLock { $0.problem }
    }
    func waitUntilOver() { while !state.withLock({ $0.isOver }) { usleep(1000) } }
  }

  init(_ card: ModelCard, _ mode: AccessMode) throws {
    var template = Array("/tmp/ringway-pair-XXXXXX".utf8CString)
    let made = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) != nil }
    try #require(made, "mkdtemp")
    let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    self.directory = directory
    addresses = ["a", "b"].map { "vfio-user:\(directory)/\($0)" }
    let stopper = try Stopper()
    self.stopper = stopper
    let stage = self.stage
    thread = try JoinedThread(name: "models") {
      do {
        try Self.serve(card, mode, directory, until: stopper.event.descriptor) { stage.ready() }
        stage.over(nil)
      } catch { stage.over("\(error)") }
    }
    let problem = stage.waitUntilReady()
    try #require(problem == nil, "the models started")
  }

  private static func serve(
    _ card: ModelCard, _ mode: AccessMode, _ directory: String, until stop: Int32, ready: () -> Void
  ) throws {
    let (one, other) = PairWire.make()
    var servers: [ModelServer] = []
    for (name, wire, last) in [("a", one, UInt8(1)), ("b", other, 2)] {
      let model = try card.make(last)
      model.wire = wire
      WireRoom.connect(model)
      servers.append(try ModelServer(model, path: "\(directory)/\(name)", options: ModelServer.Options(mode: mode)))
    }
    ready()
    try ServerLoop(servers).run(until: stop)
    for server in servers { server.close() }
  }

  /// The servers end, as if their process had.
  func stop() {
    stopper.event.signal()
    stage.waitUntilOver()
  }

  /// Both cards, opened as any program opens them.
  func open() throws -> [Port] {
    var memory = MemoryOptions()
    memory.kind = .normal
    memory.buffers = 8192
    let ports = try Port.open(addresses, memoryOptions: memory)
    for port in ports { try port.waitForLink(seconds: 10) }
    return ports
  }

  // The thread is joined after this, with the field that holds it.
  deinit {
    stopper.event.signal()
    stage.waitUntilOver()
    for name in ["a", "b"] { _ = unsafe unlink("\(directory)/\(name)") }
    _ = unsafe rmdir(directory)
  }
}

@Suite(.serialized) struct SocketCardTests {
  /// Sends from the first card to the second until everything has arrived.
  struct OneWay: ~Copyable, PortWork {
    var generator: PacketGenerator
    var receiver: PacketReceiver
    let count: UInt64
    mutating func round(now: UInt64) -> Int { generator.round(now: now) + receiver.round(now: now) }
    func isDone(now: UInt64) -> Bool { receiver.counts.packets >= count }
    func rest(now: UInt64) -> UInt64? { generator.rest(now: now) }
  }

  func work(_ ports: [Port], count: UInt64?, size: Int) throws -> OneWay {
    var options = GeneratorOptions()
    options.count = count
    options.rate = 5000
    options.size = size
    let stream = TestStream(destination: ports[1].macAddress, source: ports[0].macAddress, run: 9)
    return OneWay(
      generator: try PacketGenerator(ports[0], stream: stream, options: options), receiver: PacketReceiver(ports[1]),
      count: count ?? .max)
  }

  @Test(arguments: ModelCard.allCases, [AccessMode.shared, .trapped])
  func everyFrameArrivesWholeAndOnce(card: ModelCard, mode: AccessMode) throws {
    let pair = try ServedPair(card, mode)
    // The second opening is another client of the same servers.
    for (size, wait) in [(60, WaitMode.interrupt), (1514, .poll)] {
      let ports = try pair.open()
      #expect(ports.map(\.name) == pair.addresses)
      var work = try work(ports, count: 600, size: size)
      let loop = try PortLoop(ports, mode: wait)
      #expect(try loop.run(&work, limit: 20_000_000_000) == .done)
      let counts = work.receiver.counts
      #expect(counts.packets == 600 && counts.lost == 0 && counts.duplicates == 0 && counts.reordered == 0 && counts.corrupted == 0)
      #expect(Port.drain(ports, within: 2_000_000))
      for port in ports { port.close() }
    }
  }

  @Test(arguments: ModelCard.allCases, [AccessMode.shared, .trapped])
  func aFrameWakesItsReceiver(card: ModelCard, mode: AccessMode) throws {
    let pair = try ServedPair(card, mode)
    let ports = try pair.open()
    var work = try work(ports, count: 1, size: 100)
    #expect(try !ports[1].wait(milliseconds: 50))
    for round in 0..<3 where work.generator.counts.sent == 0 { _ = work.generator.round(now: UInt64(round + 1) << 40) }
    #expect(try ports[1].wait(milliseconds: 10_000), "by an interrupt")
    #expect(work.receiver.round(now: 0) == 1 && work.receiver.counts.packets == 1)
    for port in ports { port.close() }
  }

  @Test(arguments: ModelCard.allCases)
  func aServerThatEndsInMidTrafficEndsTheLoop(card: ModelCard) throws {
    let pair = try ServedPair(card, .shared)
    let ports = try pair.open()
    var work = try work(ports, count: nil, size: 60)
    let loop = try PortLoop(ports)
    #expect(try loop.run(&work, limit: 100_000_000) == .timeout)
    pair.stop()
    do {
      _ = try loop.run(&work, limit: 20_000_000_000)
      Issue.record("the loop went on")
    } catch {
      #expect(error.category == .deviceMissing && "\(error)".contains("its server ended"))
    }
    for port in ports { port.close() }
  }

  @Test func aServerThatIsNotThereIsSaid() {
    do {
      _ = try Port.open("vfio-user:/tmp/ringway-there-is-no.sock")
      Issue.record("it opened")
    } catch {
      #expect(error.category == .deviceMissing && "\(error)".contains("ringway-model"))
    }
  }
}
