// One client of the control socket.

internal import CRingway
internal import Control
internal import Platform

/// A client's connection: bytes in, lines out. Used by the control thread alone.
final class ControlConnection {
  let token: UInt64
  let peer: ControlPeer?
  let isPrivileged: Bool
  /// Who it said it is.
  var client = ""
  var version: Int?
  var streams: [UInt64: ControlStream] = [:]

  private let owned: OwnedDescriptor
  var descriptor: Int32 { owned.raw }
  private var lines = ControlLines(limit: Control.requestLimit)
  private var outgoing: [UInt8] = []
  private var sent = 0
  /// Lists of which parts are still to be sent: the call's id, the elements, how many are gone.
  private var lists: [(id: UInt64, elements: [ControlValue], at: Int)] = []
  private(set) var isBroken = false
  /// Ends when what waits is sent.
  var isClosing = false

  /// Bytes that may wait before nothing more is read from this client, and no event is taken for it.
  static let highWater = 1 << 20

  init(_ descriptor: consuming OwnedDescriptor, token: UInt64, peer: ControlPeer?, group: UInt32?) {
    owned = descriptor
    self.token = token
    self.peer = peer
    isPrivileged = peer?.mayChange(group: group) ?? false
    _ = rw_fcntl(owned.raw, F_SETFL, O_NONBLOCK)
  }

  var waiting: Int { outgoing.count - sent }
  /// A client that does not read its answers is not read either.
  var isBlocked: Bool { waiting > Self.highWater || !lists.isEmpty }
  var isDone: Bool { isBroken || isClosing && waiting == 0 && lists.isEmpty }

  /// Reads what is there, at most `budget` bytes. EMSGSIZE ends the connection.
  func receive(budget: Int = 1 << 18) {
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    var left = budget
    while left > 0 {
      // SAFETY: the kernel writes at most the array's bytes and says how many.
      let count = unsafe chunk.withUnsafeMutableBytes { unsafe recv(owned.raw, $0.baseAddress!, $0.count, 0) }
      if count > 0 {
        lines.append(chunk[..<count])
        left -= count
      } else if count == 0 {
        return isBroken = true
      } else if rw_errno() != EINTR {
        if rw_errno() != EAGAIN { isBroken = true }
        return
      }
    }
  }

  /// The next request's line; nil when there is none, or when the client must first read its answers.
  func nextLine() throws(ControlError) -> [UInt8]? { isBlocked || isClosing ? nil : try lines.next() }

  func send(_ message: ControlMessage) {
    guard !isBroken else { return }
    if case .result(let id, .array(let elements), false) = message, elements.count > Control.listPart {
      lists.append((id, elements, 0))
    } else {
      outgoing += message.line
    }
    flush()
  }

  /// Events of its subscriptions, as far as there is room.
  func sendEvents() {
    for (id, stream) in streams {
      while waiting < Self.highWater, !isBroken, stream.hasEvents {
        let (events, isOver) = stream.take(256)
        for event in events {
          guard let value = try? ControlCoder.value(event) else { continue }
          outgoing += ControlMessage.event(subscription: id, value).line
        }
        if isOver {
          streams[id] = nil
          stream.end()
          break
        }
      }
    }
    flush()
  }

  /// Sends what the socket takes.
  func flush() {
    while !isBroken {
      while waiting < Self.highWater, let list = lists.first {
        let end = min(list.at + Control.listPart, list.elements.count)
        let part = ControlValue.array(Array(list.elements[list.at..<end]))
        outgoing += ControlMessage.result(id: list.id, part, more: end < list.elements.count).line
        if end == list.elements.count { lists.removeFirst() } else { lists[0].at = end }
      }
      guard waiting > 0 else { return }
      let from = sent
      // SAFETY: the kernel reads the array's own bytes behind `from`.
      let count = unsafe outgoing.withUnsafeBytes {
        unsafe CRingway.send(owned.raw, $0.baseAddress! + from, $0.count - from, Int32(MSG_NOSIGNAL))
      }
      if count >= 0 {
        sent += count
        if sent == outgoing.count || sent > 1 << 18 {
          outgoing.removeFirst(sent)
          sent = 0
        }
      } else if rw_errno() != EINTR {
        if rw_errno() != EAGAIN { isBroken = true }
        return
      }
    }
  }

  func endStreams() {
    for stream in streams.values { stream.end() }
    streams = [:]
  }
}
