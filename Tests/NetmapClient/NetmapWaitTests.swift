import CRingway
import NetmapAPI
import Testing

@testable import NetmapClient

/// A port of the fake daemon's with its attachment, as the preloaded library has them.
private final class Open {
  let descriptor: Int32
  let attachment: NetmapAttachment
  init(_ daemon: FakeDaemon) throws {
    descriptor = try NetmapChannel.connect(daemon.path)
    var register = RegisterRequest()
    register.mode = 1
    let answer = try NetmapChannel.ask(
      descriptor, NetmapRequestHead(.ioctl, number: NetmapIoctl.control), FlatRequest(.register, name: "fake0", body: register).encoded())
    #expect(answer.errno == 0)
    attachment = try NetmapAttachment(descriptor, staysWithProcess: true, doorbellsFrom: 700)
  }
  deinit { close(descriptor) }
}

private func poll(_ list: inout [pollfd], _ milliseconds: UInt64?, _ find: (Int32) -> NetmapFound) -> Int32 {
  let count = list.count
  return unsafe list.withUnsafeMutableBufferPointer { unsafe NetmapWait.poll($0.baseAddress!, count, limit: milliseconds.map { $0 * 1_000_000 }, find: find) }
}

@Suite("Waiting on several descriptors", .serialized)
struct NetmapWaitTests {
  @Test("A pipe and a port: each wakes the other's waiter")
  func mixed() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let open = try Open(daemon)
    let attachment = open.attachment
    let descriptor = open.descriptor
    var pipe: [Int32] = [0, 0]
    _ = unsafe CRingway.pipe(&pipe)
    defer { for end in pipe { close(end) } }
    var list = [
      pollfd(fd: pipe[0], events: Int16(POLLIN), revents: 0), pollfd(fd: descriptor, events: Int16(POLLIN | POLLOUT), revents: 0),
      pollfd(fd: -1, events: Int16(POLLIN), revents: 77),
    ]
    let find: (Int32) -> NetmapFound = { $0 == descriptor ? .attached(attachment) : .other }
    // Room to send: ready at once, the pipe is not.
    #expect(poll(&list, nil, find) == 1)
    #expect(list.map(\.revents) == [0, Int16(POLLOUT), 0])
    unsafe write(pipe[1], "x", 1)
    #expect(poll(&list, nil, find) == 2)
    #expect(list.map(\.revents) == [Int16(POLLIN), Int16(POLLOUT), 0])
    // Only the pipe, while the port sleeps.
    list[1].events = Int16(POLLIN)
    #expect(poll(&list, nil, find) == 1)
    #expect(list.map(\.revents) == [Int16(POLLIN), 0, 0])
    var byte: UInt8 = 0
    unsafe read(pipe[0], &byte, 1)
    #expect(poll(&list, 5, find) == 0)
  }

  @Test("POLLRDNORM and POLLWRNORM count as POLLIN and POLLOUT")
  func normal() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let open = try Open(daemon)
    let attachment = open.attachment
    var list = [pollfd(fd: open.descriptor, events: Int16(POLLWRNORM | POLLRDNORM), revents: 0)]
    #expect(poll(&list, 0) { _ in .attached(attachment) } == 1)
    #expect(list[0].revents == Int16(POLLWRNORM))
  }

  @Test("A descriptor with nothing registered is POLLERR")
  func bare() {
    var list = [pollfd(fd: 5, events: Int16(POLLIN), revents: 0)]
    #expect(poll(&list, nil) { _ in .bare } == 1)
    #expect(list[0].revents == Int16(POLLERR))
  }

  @Test("A signal ends a wait with EINTR")
  func signal() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let open = try Open(daemon)
    let attachment = open.attachment
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    var before = sigaction()
    unsafe sigaction(SIGUSR2, &action, &before)
    defer { unsafe sigaction(SIGUSR2, &before, nil) }
    // The test's thread may come from a pool that blocks all signals.
    var set = sigset_t()
    var blocked = sigset_t()
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, SIGUSR2)
    unsafe pthread_sigmask(SIG_UNBLOCK, &set, &blocked)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &blocked, nil) }
    let me = pthread_self()
    var thread = pthread_t()
    let box = UnsafeMutablePointer<pthread_t>.allocate(capacity: 1)
    unsafe box.pointee = me
    unsafe pthread_create(&thread, nil, { argument in
      let target = unsafe argument!.assumingMemoryBound(to: pthread_t.self)
      usleep(150_000)
      unsafe pthread_kill(target.pointee, SIGUSR2)
      unsafe target.deallocate()
      return nil
    }, unsafe box)
    var list = [pollfd(fd: open.descriptor, events: Int16(POLLIN), revents: 0)]
    let result = poll(&list, 10_000) { _ in .attached(attachment) }
    let errno = rw_errno()
    pthread_join(thread, nil)
    #expect(result == -1)
    #expect(errno == EINTR)
  }

  @Test("Doorbells lie above the numbers that programs use")
  func doorbells() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let open = try Open(daemon)
    #expect(open.attachment.ownDescriptors.count == 1)
    #expect(open.attachment.ownDescriptors.allSatisfy { $0 >= 700 })
  }

  @Test("Two threads sync and wait on one descriptor, and neither is lost")
  func threads() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let open = try Open(daemon)
    let shared = Shared(open.attachment, open.descriptor)
    var threads: [pthread_t] = []
    for _ in 0..<3 {
      var thread = pthread_t()
      unsafe pthread_create(&thread, nil, { argument in
        let shared = unsafe Unmanaged<Shared>.fromOpaque(argument!).takeUnretainedValue()
        for round in 0..<2000 {
          if shared.attachment.sync(receive: round % 2 == 0, on: shared.descriptor) != 0 { return unsafe argument }
          _ = shared.attachment.look(Int16(POLLIN), on: shared.descriptor)
        }
        return nil
      }, unsafe Unmanaged.passUnretained(shared).toOpaque())
      threads.append(thread)
    }
    for thread in threads {
      var result: UnsafeMutableRawPointer?
      unsafe pthread_join(thread, &result)
      unsafe #expect(result == nil)
    }
    withExtendedLifetime(shared) {}
  }

  final class Shared: @unchecked Sendable {
    let attachment: NetmapAttachment
    let descriptor: Int32
    init(_ attachment: NetmapAttachment, _ descriptor: Int32) {
      self.attachment = attachment
      self.descriptor = descriptor
    }
  }
}
