// A device behind a vfio-user socket: what KernelChannel does by ioctl, by messages.
//
//     driver ──> BARSpace ──┬─ mapped part:  a load or a store, and the server polls its memory
//                           └─ the rest:     REGION_READ, REGION_WRITE ──> UserConnection ──> socket
//
// Order. A PCI function sees one writer's stores in the order in which they were made, and drivers
// rely on it: "enable the queue", then "ring its doorbell". A doorbell in a mapped page is seen by
// the server's polling, a register write by its reading the socket, and nothing orders the two. So
// once any part of the device is mapped, a write waits for its answer: when it returns, the
// server has acted on it, and a doorbell stored afterwards comes afterwards. While nothing is mapped,
// everything goes through the socket, which the server serves in order: then writes to BARs ask for no
// answer, and the next read waits for all of them, as posted writes do on a bus. Writes
// to configuration space always wait: bus mastering and power are switched there.
//
// Memory needs no message: the server is another processor on the same coherent memory, the store of a
// doorbell and the system call of a message both come after the descriptors that they announce.

internal import CRingway
internal import Glibc
internal import Platform
internal import Synchronization
internal import SystemPackage

/// The channel of a vfio-user client.
final class UserChannel: VFIOChannel {
  let name: String
  let connection: UserConnection
  let capabilities: UserCapabilities
  private let state = Mutex(State())

  private struct State {
    /// What the server said, by index.
    var regions: [Int: Region] = [:]
    var hasMapped = false
  }

  /// A region and, where parts of it may be mapped, the file that they are parts of.
  private final class Region: Sendable {
    let region: VFIORegion
    /// Open as long as this object lives; -1 when there is none.
    let file: Int32
    init(_ region: VFIORegion, file: consuming OwnedDescriptor?) {
      self.region = region
      if let file { self.file = file.release() } else { self.file = -1 }
    }
    deinit { if file >= 0 { _ = Glibc.close(file) } }
  }

  /// Agrees on a version. The socket is closed when that fails.
  init(name: String, _ connection: UserConnection) throws(VFIOError) {
    self.name = name
    self.connection = connection
    do throws(UserFailure) {
      let reply = try connection.request(.version, UserCapabilities.proposal)
      do { capabilities = try UserCapabilities(reply.payload) } catch { throw connection.give(up: error) }
    } catch {
      connection.close()
      throw UserChannel.error(error, .version, name)
    }
  }

  private static func error(_ failure: UserFailure, _ command: UserCommand, _ name: String) -> VFIOError {
    switch failure {
    case .refused(let errno): .system(operation: command.verb, subject: name, errno: errno)
    case .gone: .gone(address: name)
    case .silent(let milliseconds): .silent(server: name, milliseconds: milliseconds)
    case .broken(let malformed): .malformed(function: name, what: malformed.what)
    }
  }

  var hangUpDescriptor: Int32 { connection.descriptor }
  var hasHungUp: Bool { connection.hasHungUp }

  // MARK: What the device is

  /// Asks for a structure of at least `fixed` bytes; again, with more room, when it has a longer tail.
  private func information(_ command: UserCommand, fixed: Int, room: Int, index: Int? = nil) throws(UserFailure) -> UserReply {
    var room = room
    for _ in 0..<2 {
      var request = [UInt8](structure: fixed)
      request.set(UInt32(room), at: 0)
      if let index { request.set(UInt32(truncatingIfNeeded: index), at: 8) }
      let reply = try connection.request(command, request)
      guard let size = reply.payload.field(UInt32.self, at: 0), reply.payload.count >= fixed else {
        throw connection.give(up: VFIOMalformed("an answer of \(reply.payload.count) bytes where \(fixed) are the least"))
      }
      if Int(size) <= max(room, reply.payload.count) { return reply }
      guard Int(size) <= UserConnection.payloadLimit else { break }
      room = Int(size)
    }
    throw connection.give(up: VFIOMalformed("an answer that never fits the room it asks for"))
  }

  func deviceInfo() throws(VFIOError) -> VFIODeviceInfo {
    do throws(UserFailure) {
      let reply = try information(.deviceInfo, fixed: 16, room: 16)
      do { return try VFIODeviceInfo(reply.payload) } catch { throw connection.give(up: error) }
    } catch { throw UserChannel.error(error, .deviceInfo, name) }
  }

  func region(_ index: Int) throws(VFIOError) -> VFIORegion {
    do throws(UserFailure) {
      let reply = try information(.regionInfo, fixed: VFIORegion.size, room: VFIORegion.size, index: index)
      var region: VFIORegion
      do { region = try VFIORegion(reply.payload, index: index, pageSize: BARWindow.pageSize) } catch {
        throw connection.give(up: error)
      }
      // What comes without a file is reached by messages.
      if reply.descriptors.count == 0 { region.areas = [] }
      let made = Region(region, file: region.areas.isEmpty ? nil : reply.descriptors.takeFirst())
      state.withLock { $0.regions[index] = made }
      return region
    } catch { throw UserChannel.error(error, .regionInfo, name) }
  }

  func interrupt(_ index: Int) throws(VFIOError) -> VFIOInterrupt {
    do throws(UserFailure) {
      let reply = try information(.interruptInfo, fixed: VFIOInterrupt.size, room: VFIOInterrupt.size, index: index)
      do { return try VFIOInterrupt(reply.payload) } catch { throw connection.give(up: error) }
    } catch { throw UserChannel.error(error, .interruptInfo, name) }
  }

  // MARK: Interrupts

  /// struct vfio_irq_set, whose descriptors travel beside it.
  private func setInterrupts(_ flags: Int32, _ kind: Int, start: Int, count: Int, _ descriptors: [Int32] = []) throws(Errno) {
    var request = [UInt8](structure: 20)
    request.set(UInt32(bitPattern: flags), at: 4)
    request.set(UInt32(truncatingIfNeeded: kind), at: 8)
    request.set(UInt32(truncatingIfNeeded: start), at: 12)
    request.set(UInt32(truncatingIfNeeded: count), at: 16)
    do throws(UserFailure) { _ = try connection.request(.setInterrupts, request, descriptors: descriptors) } catch {
      throw error.errno
    }
  }

  /// In as many messages as the server's limit of descriptors wants. A vector without an eventfd is one
  /// that is taken away: a message carries no -1.
  func setInterrupts(_ kind: Int, to descriptors: [Int32]) throws(Errno) -> Int {
    guard !descriptors.isEmpty else {
      try setInterrupts(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, kind, start: 0, count: 0)
      return 0
    }
    let most = min(max(1, capabilities.descriptors), 64)
    var start = 0
    while start < descriptors.count {
      let isThere = descriptors[start] >= 0
      var end = start + 1
      while end < descriptors.count, (descriptors[end] >= 0) == isThere, !isThere || end - start < most { end += 1 }
      try setInterrupts(
        VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, kind, start: start, count: end - start,
        isThere ? Array(descriptors[start..<end]) : [])
      start = end
    }
    return 0
  }

  func trigger(_ kind: Int, vector: Int) throws(Errno) {
    try setInterrupts(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, kind, start: vector, count: 1)
  }

  // MARK: Registers

  /// offset, region, count: what reads and writes begin with, and their answers too.
  private func access(_ region: Int, _ offset: Int, _ width: Int, more: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 16 + more)
    bytes.set(UInt64(offset), at: 0)
    bytes.set(UInt32(region), at: 8)
    bytes.set(UInt32(width), at: 12)
    return bytes
  }

  private func holds(_ region: Int, _ offset: Int, _ width: Int) -> Bool {
    guard 1...4 ~= width, offset >= 0 else { return false }
    return state.withLock { ($0.regions[region]?.region.count ?? 0) - width >= offset }
  }

  func read(region: Int, offset: Int, width: Int) -> UInt32? {
    guard holds(region, offset, width) else { return nil }
    let request = access(region, offset, width, more: 0)
    guard let reply = try? connection.request(.regionRead, request) else { return nil }
    guard reply.payload.count == 16 + width, reply.payload[..<16] == request[...] else {
      _ = connection.give(up: VFIOMalformed("a read of \(width) bytes answered with \(reply.payload.count - 16), or with others"))
      return nil
    }
    var value: UInt32 = 0
    for index in 0..<width { value |= UInt32(reply.payload[16 + index]) << UInt32(index * 8) }
    return value
  }

  func write(_ value: UInt32, region: Int, offset: Int, width: Int) {
    guard holds(region, offset, width) else { return }
    var request = access(region, offset, width, more: width)
    for index in 0..<width { request[16 + index] = UInt8(truncatingIfNeeded: value >> UInt32(index * 8)) }
    let mayBePosted = region < Int(VFIO_PCI_ROM_REGION_INDEX) && state.withLock { !$0.hasMapped }
    // A device that is gone takes no writes, and one that refuses a write ignores it.
    if mayBePosted {
      try? connection.post(.regionWrite, request)
    } else {
      _ = try? connection.request(.regionWrite, request)
    }
  }

  func map(_ region: VFIORegion, _ area: Range<Int>, event: Int32) throws(Errno) -> BARWindow {
    let held = state.withLock { state in
      state.hasMapped = true
      return state.regions[region.index]
    }
    guard let held, held.file >= 0 else { throw .noDevice }
    return try BARWindow(
      descriptor: held.file, fileOffset: region.fileOffset + UInt64(area.lowerBound), count: area.count, event: event)
  }

  /// Not possible: what faulted is a file that the server cut short.
  func remap(_ window: BARWindow) throws(Errno) { throw .noDevice }

  // MARK: Reset and end

  func reset() throws(Errno) {
    do throws(UserFailure) { _ = try connection.request(.reset) } catch { throw error.errno }
  }

  func close() {
    state.withLock { $0.regions = [:] }
    connection.close()
  }
}
