// The server's side of vfio-user, scripted: a network card with one BAR in parts, one that is messages
// alone, and one that is memory. It knows the messages by its own numbers.

import CRingway
import Glibc
import Platform
import Synchronization
import SystemPackage
import Testing

@testable import VFIO

/// One message as it lies on the socket.
struct Message {
  var id: UInt16 = 0
  var command: UInt16 = 0
  var flags: UInt32 = 1
  var errno: UInt32 = 0
  /// What the header says; nil says the truth.
  var size: UInt32?
  var payload: [UInt8] = []
  var descriptors: [Int32] = []

  var bytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 16)
    bytes.set(id, at: 0)
    bytes.set(command, at: 2)
    bytes.set(size ?? UInt32(16 + payload.count), at: 4)
    bytes.set(flags, at: 8)
    bytes.set(errno, at: 12)
    return bytes + payload
  }
}

/// Runs `body` on a thread of its own, which nobody waits for.
func detached(_ body: @escaping @Sendable () -> Void) {
  final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  var thread = pthread_t()
  let box = unsafe Unmanaged.passRetained(Box(body)).toOpaque()
  let made = unsafe pthread_create(
    &thread, nil,
    { context in
      unsafe Unmanaged<Box>.fromOpaque(context!).takeRetainedValue().body()
      return nil
    }, box)
  if made == 0 { pthread_detach(thread) }
}

final class FakeServer: Sendable {
  /// What it was asked, what it has, and how it answers.
  struct Script {
    var log: [String] = []
    var capabilities: String? = #"{"capabilities":{"max_msg_fds":2,"pgsizes":2101248}}"#
    var version: [UInt16] = [0, 1]
    var config = [UInt8](repeating: 0, count: 256)
    /// BAR 2.
    var ports = [UInt8](repeating: 0, count: 4096)
    /// What BAR 0 was written where it is not mapped, and reads there.
    var registers: [UInt64: UInt32] = [:]
    var areas: [(UInt64, UInt64)] = [(0x6000, 0x2000), (0x1000, 0x1000)]
    var barSize: UInt64 = 0x20000
    var eventfds: [Int: Int32] = [:]
    var memory: [UInt64: (count: UInt64, file: Int32)] = [:]
    var refuse: [UInt16: UInt32] = [:]
    /// Changes the answers to a command, or gives none: for servers that lie.
    var tamper: (@Sendable (_ request: Message, _ answer: Message) -> [Message])?
  }
  let script = Mutex(Script())
  let file: OwnedDescriptor
  private let serverEnd: Int32
  private let clientEnd = Mutex<Int32>(-1)

  init() throws {
    var ends: [Int32] = [-1, -1]
    let made = unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
    try #require(made == 0, "socketpair")
    serverEnd = ends[0]
    file = try memoryFile(0x40000)
    clientEnd.withLock { $0 = ends[1] }
    script.withLock { script in
      for (offset, byte) in [(0, 0x86), (1, 0x80), (2, 0xFB), (3, 0x10), (10, 0x00), (11, 0x02), (0x2C, 0x86), (0x2D, 0x80)] {
        script.config[offset] = UInt8(byte)
      }
    }
    let end = ends[0]
    // The thread ends with the connection.
    detached { [self] in serve(UserSocket(taking: OwnedDescriptor(taking: end))) }
  }

  func set(_ change: (inout Script) -> Void) { script.withLock { change(&$0) } }
  var log: [String] { script.withLock { $0.log } }

  /// The client's end, once.
  func connect() -> UserSocket {
    UserSocket(taking: OwnedDescriptor(taking: clientEnd.withLock { raw in
      defer { raw = -1 }
      return raw
    }))
  }

  func open(patience: Int = 2000) throws(VFIOError) -> VFIOFunction {
    try VFIOFunction.open(connect(), name: "vfio-user:test", patience: patience, longPatience: patience)
  }

  /// The process ends.
  func die() { _ = shutdown(serverEnd, Int32(SHUT_RDWR)) }

  func peek32(at offset: Int) -> UInt32 {
    var value: UInt32 = 0
    _ = unsafe pread(file.raw, &value, 4, off_t(offset))
    return value
  }

  // MARK: The server's thread

  private func serve(_ socket: borrowing UserSocket) {
    while true {
      let descriptors = ReceivedDescriptors()
      var head = [UInt8](repeating: 0, count: 16)
      let far = MonotonicClock().now() + 20_000_000_000
      guard (try? socket.receive(&head, descriptors, deadline: far)) != nil else { return }
      var request = Message(
        id: head.field(UInt16.self, at: 0)!, command: head.field(UInt16.self, at: 2)!, flags: head.field(UInt32.self, at: 8)!)
      request.payload = [UInt8](repeating: 0, count: Int(head.field(UInt32.self, at: 4)!) - 16)
      guard (try? socket.receive(&request.payload, descriptors, deadline: far)) != nil else { return }
      if request.flags & 0xF != 0 {
        set { $0.log.append("answer \(request.command) error \(head.field(UInt32.self, at: 12)!)") }
        continue
      }
      var answer = script.withLock { FakeServer.answer(request, descriptors, &$0, file.raw) }
      answer.id = request.id
      answer.command = request.command
      guard request.flags & 0x10 == 0 else { continue }
      let answers = script.withLock { $0.tamper }?(request, answer) ?? [answer]
      for answer in answers {
        try? socket.send(answer.bytes, descriptors: answer.descriptors, deadline: MonotonicClock().now() + 1_000_000_000)
        if answer.descriptors.first != file.raw { for descriptor in answer.descriptors { _ = close(descriptor) } }
      }
    }
  }

  private static func answer(_ request: Message, _ descriptors: ReceivedDescriptors, _ script: inout Script, _ file: Int32) -> Message {
    var answer = Message()
    if let errno = script.refuse[request.command] { return Message(flags: 0x21, errno: errno) }
    let data = request.payload
    switch request.command {
    case 1:
      script.log.append("version")
      answer.payload = [0, 0, 0, 0]
      for (index, part) in script.version.enumerated() { answer.payload.set(part, at: index * 2) }
      if let text = script.capabilities { answer.payload += Array(text.utf8) + [0] }
    case 2:
      let (offset, address) = (data.field(UInt64.self, at: 8)!, data.field(UInt64.self, at: 16)!)
      script.log.append("map \(address) \(data.field(UInt64.self, at: 24)!) offset \(offset) flags \(data[4]) with \(descriptors.count)")
      if script.memory[address] != nil { return Message(flags: 0x21, errno: UInt32(EEXIST)) }
      script.memory[address] = (data.field(UInt64.self, at: 24)!, descriptors.takeFirst()?.release() ?? -1)
    case 3:
      let address = data.field(UInt64.self, at: 8)!
      script.log.append("unmap \(address)")
      if let gone = script.memory.removeValue(forKey: address) { _ = close(gone.file) }
      answer.payload = data
    case 4: answer.payload = [16, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0]
    case 5: return region(data, script, file)
    case 7:
      answer.payload = [16, 0, 0, 0, 1, 0, 0, 0] + Array(data[8..<12]) + [data[8] == 2 ? 64 : 0, 0, 0, 0]
    case 8:
      let (flags, kind, start, count) = (data[4], data[8], Int(data[12]), Int(data[16]))
      script.log.append("interrupts \(kind) flags \(flags) \(start)+\(count) with \(descriptors.count)")
      if flags == 0x21, count == 1, let event = script.eventfds[start] { EventFD.signal(event) }
      if flags == 0x24 {
        for vector in start..<start + count { script.eventfds[vector] = descriptors.takeFirst()?.release() }
      }
    case 9, 10: return access(request, &script)
    case 13: script.log.append("reset")
    default: return Message(flags: 0x21, errno: UInt32(ENOTSUP))
    }
    return answer
  }

  private static func region(_ data: [UInt8], _ script: Script, _ file: Int32) -> Message {
    let index = data[8]
    var (flags, size, offset): (UInt32, UInt64, UInt64) = (3, 0, 0)
    var tail: [UInt8] = []
    var descriptors: [Int32] = []
    switch index {
    case 0:
      (flags, size) = (15, script.barSize)
      tail = [UInt8](repeating: 0, count: 16 + 16 * script.areas.count)
      tail.set(UInt16(1), at: 0)
      tail.set(UInt16(1), at: 2)
      tail.set(UInt32(script.areas.count), at: 8)
      for (place, area) in script.areas.enumerated() {
        tail.set(area.0, at: 16 + 16 * place)
        tail.set(area.1, at: 24 + 16 * place)
      }
      descriptors = [file]
    case 2: size = 4096
    case 4: (flags, size, offset, descriptors) = (7, 0x4000, 0x20000, [file])
    case 7: size = 256
    default: flags = 0
    }
    var answer = [UInt8](repeating: 0, count: 32)
    answer.set(UInt32(32 + tail.count), at: 0)
    answer.set(flags, at: 4)
    answer.set(UInt32(index), at: 8)
    answer.set(UInt32(tail.isEmpty ? 0 : 32), at: 12)
    answer.set(size, at: 16)
    answer.set(offset, at: 24)
    // Without room for the tail, there is none.
    let room = Int(data.field(UInt32.self, at: 0)!)
    return Message(payload: room >= 32 + tail.count ? answer + tail : answer, descriptors: descriptors)
  }

  private static func access(_ request: Message, _ script: inout Script) -> Message {
    let data = request.payload
    let (offset, region, count) = (data.field(UInt64.self, at: 0)!, data[8], Int(data[12]))
    let at = Int(offset)
    var answer = Message(payload: Array(data[..<16]))
    if request.command == 10 {
      var value: UInt32 = 0
      for index in 0..<count { value |= UInt32(data[16 + index]) << UInt32(8 * index) }
      let wait = request.flags & 0x10 == 0 ? "" : " posted"
      script.log.append("write \(region) 0x\(String(at, radix: 16)) \(value)\(wait)")
      for index in 0..<count where region == 7 { script.config[at + index] = data[16 + index] }
      for index in 0..<count where region == 2 { script.ports[at + index] = data[16 + index] }
      if region == 0 { script.registers[offset] = value }
      return answer
    }
    switch region {
    case 7: answer.payload += script.config[at..<at + count]
    case 2: answer.payload += script.ports[at..<at + count]
    default:
      var bytes = [UInt8](repeating: 0, count: 4)
      bytes.set(script.registers[offset] ?? 0, at: 0)
      answer.payload += bytes[..<count]
    }
    return answer
  }
}
