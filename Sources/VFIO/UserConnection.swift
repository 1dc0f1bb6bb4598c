// One connection to a vfio-user server: requests and their answers.

internal import Platform
internal import Synchronization
internal import SystemPackage

/// Commands of vfio-user (QEMU, docs/interop/vfio-user, "Commands"). Those that a client sends.
enum UserCommand: UInt16 {
  case version = 1
  case mapMemory = 2
  case unmapMemory = 3
  case deviceInfo = 4
  case regionInfo = 5
  case interruptInfo = 7
  case setInterrupts = 8
  case regionRead = 9
  case regionWrite = 10
  case reset = 13

  /// What is being done, for messages.
  var verb: String {
    switch self {
    case .version: "agree on a version with"
    case .mapMemory: "map memory for"
    case .unmapMemory: "unmap memory of"
    case .deviceInfo: "ask for device information of"
    case .regionInfo: "ask for a region of"
    case .interruptInfo: "ask for the interrupts of"
    case .setInterrupts: "set interrupts of"
    case .regionRead: "read registers of"
    case .regionWrite: "write registers of"
    case .reset: "reset"
    }
  }
}

/// The header of every message: 16 bytes.
struct UserHeader: Equatable {
  static let size = 16
  static let isReply: UInt32 = 1
  static let noReply: UInt32 = 0x10
  static let isError: UInt32 = 0x20

  var id: UInt16
  var command: UInt16
  /// Bytes of the message, header included.
  var size: UInt32
  var flags: UInt32
  var errno: UInt32 = 0

  init(id: UInt16, command: UInt16, payload: Int, flags: UInt32, errno: UInt32 = 0) {
    self.id = id
    self.command = command
    size = UInt32(UserHeader.size + payload)
    self.flags = flags
    self.errno = errno
  }

  /// nil when there are fewer than 16 bytes.
  init?(_ bytes: [UInt8]) {
    guard let id = bytes.field(UInt16.self, at: 0), let command = bytes.field(UInt16.self, at: 2),
      let size = bytes.field(UInt32.self, at: 4), let flags = bytes.field(UInt32.self, at: 8),
      let errno = bytes.field(UInt32.self, at: 12)
    else { return nil }
    (self.id, self.command, self.size, self.flags, self.errno) = (id, command, size, flags, errno)
  }

  var bytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: UserHeader.size)
    bytes.set(id, at: 0)
    bytes.set(command, at: 2)
    bytes.set(size, at: 4)
    bytes.set(flags, at: 8)
    bytes.set(errno, at: 12)
    return bytes
  }
}

/// Why a request has no answer.
enum UserFailure: Error, Equatable {
  /// The server refused it: the connection goes on.
  case refused(Errno)
  /// The connection is over, or was before.
  case gone
  /// No answer in time: the connection is given up.
  case silent(milliseconds: Int)
  /// An answer that breaks the protocol: the connection is given up.
  case broken(VFIOMalformed)

  /// As a kernel device would say it.
  var errno: Errno {
    switch self {
    case .refused(let errno): errno
    case .gone, .silent, .broken: .noDevice
    }
  }
}

/// What came back.
struct UserReply {
  var payload: [UInt8]
  var descriptors: ReceivedDescriptors
}

/// Requests one after another, from any thread.
///
/// A server that is too slow, or whose answer does not fit the question, is given up: the socket is
/// shut both ways, every later request fails at once, and whoever watches the socket sees it end.
/// What arrives afterwards can therefore never be taken for the answer to something else.
final class UserConnection: Sendable {
  private let socket: UserSocket
  private let state = Mutex(State())
  /// Milliseconds for a request and its answer together.
  private let patience: Int
  /// A reset, and the first message, may have to wait for other work of the server.
  private let longPatience: Int

  private struct State {
    var isOver = false
    var isClosed = false
    var nextID: UInt16 = 1
  }

  /// Answers to nobody's question, and commands of the server, that are passed over while one waits.
  private static let strayLimit = 256
  /// Bytes of the longest answer: information on a region with 4000 sparse areas.
  static let payloadLimit = 1 << 16

  init(_ socket: consuming UserSocket, patience: Int, longPatience: Int) {
    self.socket = socket
    self.patience = patience
    self.longPatience = longPatience
  }

  /// For epoll, with `peerClosed`.
  var descriptor: Int32 { socket.descriptor }

  /// Whether the server is gone or was given up; not after `close`, which is our own doing.
  var hasHungUp: Bool {
    state.withLock { state in
      if state.isClosed { return false }
      if socket.hasHungUp { state.isOver = true }
      return state.isOver
    }
  }

  func close() {
    state.withLock { state in
      state.isClosed = true
      state.isOver = true
      socket.shut()
    }
  }

  private func deadline(_ command: UserCommand) -> (at: UInt64, milliseconds: Int) {
    let milliseconds = command == .reset || command == .version ? longPatience : patience
    return (MonotonicClock().now() &+ UInt64(milliseconds) &* 1_000_000, milliseconds)
  }

  /// Sends a command and waits for its answer.
  func request(_ command: UserCommand, _ payload: [UInt8] = [], descriptors: [Int32] = []) throws(UserFailure) -> UserReply {
    try state.withLock { (state: inout State) throws(UserFailure) -> UserReply in
      let limit = deadline(command)
      let id = try send(command, payload, descriptors, flags: 0, limit, &state)
      for _ in 0..<UserConnection.strayLimit {
        let (header, reply) = try receive(limit, &state)
        if header.flags & 0xF == UserHeader.isReply, header.id == id {
          guard header.command == command.rawValue else {
            throw give(up: VFIOMalformed("an answer to command \(header.command) instead of \(command.rawValue)"), &state)
          }
          if header.flags & UserHeader.isError == 0 { return reply }
          // The number is optional.
          throw .refused(1...4095 ~= header.errno ? Errno(rawValue: CInt(header.errno)) : .ioError)
        }
        try answer(header, limit, &state)
      }
      throw give(up: VFIOMalformed("more than \(UserConnection.strayLimit) messages that answer nothing"), &state)
    }
  }

  /// Sends a command that asks for no answer.
  func post(_ command: UserCommand, _ payload: [UInt8]) throws(UserFailure) {
    try state.withLock { (state: inout State) throws(UserFailure) in
      _ = try send(command, payload, [], flags: UserHeader.noReply, deadline(command), &state)
    }
  }

  private func send(
    _ command: UserCommand, _ payload: [UInt8], _ descriptors: [Int32], flags: UInt32,
    _ limit: (at: UInt64, milliseconds: Int), _ state: inout State
  ) throws(UserFailure) -> UInt16 {
    guard !state.isOver else { throw .gone }
    let id = state.nextID
    state.nextID = id &+ 1
    let header = UserHeader(id: id, command: command.rawValue, payload: payload.count, flags: flags)
    do throws(Errno) {
      try socket.send(header.bytes + payload, descriptors: descriptors, deadline: limit.at)
    } catch {
      throw failure(error, limit, &state)
    }
    return id
  }

  private func receive(_ limit: (at: UInt64, milliseconds: Int), _ state: inout State) throws(UserFailure) -> (UserHeader, UserReply) {
    let descriptors = ReceivedDescriptors()
    var head = [UInt8](repeating: 0, count: UserHeader.size)
    do throws(Errno) { try socket.receive(&head, descriptors, deadline: limit.at) } catch {
      throw failure(error, limit, &state)
    }
    guard let header = UserHeader(head), header.size >= UInt32(UserHeader.size),
      header.size <= UInt32(UserHeader.size + UserConnection.payloadLimit)
    else { throw give(up: VFIOMalformed("a message of \(head.field(UInt32.self, at: 4) ?? 0) bytes"), &state) }
    var payload = [UInt8](repeating: 0, count: Int(header.size) - UserHeader.size)
    do throws(Errno) { try socket.receive(&payload, descriptors, deadline: limit.at) } catch {
      throw failure(error, limit, &state)
    }
    return (header, UserReply(payload: payload, descriptors: descriptors))
  }

  /// A message that is no answer to ours. A command of the server (DMA by message, for memory that it
  /// cannot map) is refused: all our memory can be mapped. Answers to nobody's question go nowhere.
  private func answer(_ header: UserHeader, _ limit: (at: UInt64, milliseconds: Int), _ state: inout State) throws(UserFailure) {
    guard header.flags & 0xF == 0, header.flags & UserHeader.noReply == 0 else { return }
    let refusal = UserHeader(
      id: header.id, command: header.command, payload: 0, flags: UserHeader.isReply | UserHeader.isError,
      errno: UInt32(Errno.notSupported.rawValue))
    do throws(Errno) { try socket.send(refusal.bytes, deadline: limit.at) } catch {
      throw failure(error, limit, &state)
    }
  }

  private func failure(_ errno: Errno, _ limit: (at: UInt64, milliseconds: Int), _ state: inout State) -> UserFailure {
    switch errno {
    case .timedOut:
      end(&state)
      return .silent(milliseconds: limit.milliseconds)
    case .protocolError:
      return give(up: VFIOMalformed("more than \(ReceivedDescriptors.limit) descriptors in one message"), &state)
    default:
      end(&state)
      return .gone
    }
  }

  /// The server breaks the protocol: for those who check what is inside an answer, too.
  func give(up what: VFIOMalformed) -> UserFailure { state.withLock { give(up: what, &$0) } }

  private func give(up what: VFIOMalformed, _ state: inout State) -> UserFailure {
    end(&state)
    return .broken(what)
  }

  private func end(_ state: inout State) {
    state.isOver = true
    socket.shut()
  }
}
