// The cards of one process: models, wires, sockets.

import ArgumentParser
import ModelKit
import ModelServer
import Models
import Platform
import Wire

/// Which card.
enum CardKind: String, ExpressibleByArgument, CaseIterable {
  case intel82599 = "82599"
  case intel82574 = "82574"
  case virtioNet = "virtio-net"

  /// - Parameter pairs: queue pairs, where the card leaves a choice.
  func make(address: MACAddress, pairs: Int) throws -> any DeviceModel {
    switch self {
    case .intel82599: return try Intel82599Model(address: address)
    case .intel82574: return try E1000eModel(address: address, negotiationTime: 50_000_000)
    case .virtioNet:
      var options = VirtioNetModelOptions()
      options.address = address
      options.pairs = pairs
      return try VirtioNetModel(options)
    }
  }
}

/// One card and what it has moved.
final class Card {
  let kind: CardKind
  let address: MACAddress
  let wireText: String
  let server: ModelServer
  let traffic: CountingWire
  var isPlugged: Bool
  var wasUp: Bool?
  var last = Traffic()

  init(_ kind: CardKind, _ address: MACAddress, _ wireText: String, _ server: ModelServer, _ traffic: CountingWire, isPlugged: Bool) {
    self.kind = kind
    self.address = address
    self.wireText = wireText
    self.server = server
    self.traffic = traffic
    self.isPlugged = isPlugged
  }

  var isUp: Bool { isPlugged && traffic.isUp }
}

/// All of them.
final class Cards {
  private(set) var list: [Card] = []
  private let reporter: Reporter
  var servers: [ModelServer] { list.map(\.server) }

  init(_ command: RingwayModel, _ reporter: Reporter) throws {
    self.reporter = reporter
    let room = WireRoom()
    let faults = try command.wireFault.map { try WireFault(parsing: $0) }
    for (index, path) in command.socket.enumerated() {
      let kind = command.models[command.models.count == 1 ? 0 : index]
      let address = try Cards.address(command.mac, index)
      let model = try kind.make(address: address, pairs: command.queues)
      let text = command.wire.isEmpty ? "null" : command.wire[command.wire.count == 1 ? 0 : index]
      model.wire = try room.open(try WireSpec(parsing: text), faults: faults, seed: command.seed)
      WireRoom.connect(model)
      let traffic = CountingWire(model.wire)
      model.wire = traffic
      if command.linkDown { model.setLink(up: false) }
      var options = ModelServer.Options(mode: command.trapped || command.mode == .trapped ? .trapped : .shared)
      options.nanosecondsAnAccess = command.accessTime
      let server = try ModelServer(model, path: path, options: options)
      let card = Card(kind, address, text, server, traffic, isPlugged: !command.linkDown)
      list.append(card)
      server.onEvent = { [unowned card] event in reporter.show(event, card) }
      reporter.started(card)
    }
  }

  private static func address(_ given: [String], _ index: Int) throws -> MACAddress {
    guard index < given.count else { return MACAddress(0x52, 0x54, 0x00, 0x82, 0x59, UInt8(truncatingIfNeeded: index + 1)) }
    guard let address = MACAddress(given[index]), address.isUnicast else {
      throw ValidationError("\"\(given[index])\" is no address of a station; write one as 52:54:00:12:34:56.")
    }
    return address
  }

  func watchLinks() {
    for card in list where card.isUp != card.wasUp {
      card.wasUp = card.isUp
      reporter.link(card)
    }
  }

  func toggleLinks() {
    for card in list {
      card.isPlugged.toggle()
      card.server.model.setLink(up: card.isPlugged)
    }
    watchLinks()
  }

  func showFigures(_ seconds: Double) {
    for card in list {
      reporter.figures(card, seconds)
      card.last = card.traffic.traffic
    }
  }

  /// The last words.
  func finish(seconds: Double) {
    for card in list { card.server.disconnect() }
    for card in list { reporter.summary(card, seconds) }
  }

  func close() {
    for card in list { card.server.close() }
    list = []
  }
}

/// Frames and bytes in both directions, as the card sees them.
struct Traffic: Equatable {
  var sentFrames: UInt64 = 0
  var sentBytes: UInt64 = 0
  var receivedFrames: UInt64 = 0
  var receivedBytes: UInt64 = 0
  /// Interrupts that have reached a driver.
  var interrupts: UInt64 = 0
}

/// A wire that is counted.
final class CountingWire: ModelWire {
  private let inner: any ModelWire
  private(set) var traffic = Traffic()

  init(_ inner: any ModelWire) { self.inner = inner }

  var isUp: Bool { inner.isUp }
  var nextArrival: UInt64? { inner.nextArrival }
  var descriptor: Int32 { inner.descriptor }

  func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    traffic.sentFrames &+= 1
    traffic.sentBytes &+= UInt64(frame.count)
    unsafe inner.transmit(frame, queue: queue, at: now)
  }

  func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    unsafe inner.receive(at: now) { frame, marks in
      traffic.receivedFrames &+= 1
      traffic.receivedBytes &+= UInt64(frame.count)
      unsafe body(frame, marks)
    }
  }
}
