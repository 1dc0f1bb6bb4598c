// A server with a copy engine behind it, on a thread of its own.

import CRingway
import ModelKit
import Platform
import Synchronization
import SystemPackage
import Testing

@testable import ModelServer

/// `#expect` for what it cannot look into.
func check(_ condition: Bool, _ comment: Comment? = nil, at location: SourceLocation = #_sourceLocation) {
  #expect(condition, comment, sourceLocation: location)
}

/// A memory file.
func memoryFile(_ size: Int, name: String = "client") throws -> OwnedDescriptor {
  let raw = unsafe rw_memfd_create(name, RW_MFD_CLOEXEC)
  try #require(raw >= 0)
  let file = OwnedDescriptor(taking: raw)
  try #require(ftruncate(raw, off_t(size)) == 0)
  return file
}

func put(_ bytes: [UInt8], in file: borrowing OwnedDescriptor, at offset: Int) {
  let raw = file.raw
  let count = unsafe bytes.withUnsafeBytes { unsafe pwrite(raw, $0.baseAddress, $0.count, off_t(offset)) }
  #expect(count == bytes.count)
}
func get(_ count: Int, from file: borrowing OwnedDescriptor, at offset: Int) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: count)
  let raw = file.raw
  let got = unsafe bytes.withUnsafeMutableBytes { unsafe pread(raw, $0.baseAddress, $0.count, off_t(offset)) }
  #expect(got == count)
  return bytes
}

/// Descriptors of this process that are the memory file of this name. Other tests run beside, also with other arguments:
/// who counts has a name of its own.
func descriptors(named name: String) -> Int {
  let all = (try? Files.list("/proc/self/fd")) ?? []
  return all.count { (try? Files.linkTarget("/proc/self/fd/\($0)"))?.contains("memfd:\(name) ") ?? false }
}
/// The same of an eventfd, which the kernel numbers.
func descriptors(of event: borrowing EventFD) throws -> Int {
  func number(_ descriptor: String) -> String? {
    let text = (try? Files.read("/proc/self/fdinfo/\(descriptor)")) ?? ""
    return text.split(separator: "\n").first { $0.hasPrefix("eventfd-id") }.map(String.init)
  }
  let wanted = try #require(number("\(event.descriptor)"))
  return try Files.list("/proc/self/fd").count { number($0) == wanted }
}
/// Mappings of this process of the memory file of this name.
func mappings(named name: String) throws -> Int {
  try Files.read("/proc/self/maps").split(separator: "\n").count { $0.contains("memfd:\(name) ") }
}

/// Waits until something is so: half a minute at most, as other programs may want the processors too.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
  let clock = MonotonicClock(), end = clock.now() + 30_000_000_000
  while try !condition() {
    if clock.now() > end { return false }
    clock.sleep(nanoseconds: 1_000_000)
  }
  return true
}

/// What the serving thread tells.
final class Record: Sendable {
  struct State {
    var connected = 0
    var left: [(reason: String, counts: SessionCounts)] = []
    var failure: String?
    /// Of the model, after its last client: windows, resets, whether interrupts are on.
    var windows = -1
    var resets = 0
    var interruptKind: String?
    var sent = 0
  }
  let state = Mutex(State())
  var left: Int { state.withLock { $0.left.count } }
  var lastReason: String { state.withLock { $0.left.last?.reason ?? "" } }
}

final class ServerBench {
  let path: String
  let record = Record()
  private let stop: EventFD
  private var thread: JoinedThread?

  init(mode: AccessMode = .shared, path: String? = nil, longestSleep: UInt64 = 500_000) throws {
    let path = path ?? "/tmp/ringway-model-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    self.path = path
    stop = try EventFD()
    let ready = try EventFD()
    let (wake, told, record) = (stop.descriptor, ready.descriptor, record)
    thread = try JoinedThread(name: "model-server") {
      do {
        let model = try CopyEngine()
        let server = try ModelServer(model, path: path, options: ModelServer.Options(mode: mode))
        server.onEvent = { event in
          record.state.withLock { state in
            switch event {
            case .connected: state.connected += 1
            case .left(_, let reason, let counts):
              state.left.append((reason, counts))
              state.windows = model.bus.memory.windowCount
              state.resets = model.resets
              state.interruptKind = model.bus.interruptKind.map { "\($0)" }
              state.sent = (model.wire as? TestWire)?.sent.count ?? -1
            }
          }
        }
        EventFD.signal(told)
        var loop = ServerLoop([server])
        loop.longestSleep = longestSleep
        try loop.run(until: wake)
        server.disconnect()
      } catch {
        record.state.withLock { $0.failure = "\(error)" }
        EventFD.signal(told)
      }
    }
    try #require(eventually { ready.drain() > 0 })
  }

  deinit {
    stop.signal()
    _ = thread.take()
  }

  func connect() throws -> RawClient {
    let client = try RawClient(path: path)
    try client.greet()
    return client
  }
}
