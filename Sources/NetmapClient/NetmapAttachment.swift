// A process's hold on a registered descriptor: its region, its sync page, its doorbells.

internal import CRingway
public import NetmapAPI
internal import Platform

/// One ring of a descriptor, with its line of the sync page. Plain numbers and addresses: copies are cheap.
@frozen @safe public struct AttachedRing: BitwiseCopyable, @unchecked Sendable {
  /// `struct netmap_ring`, in the region.
  public let header: UnsafeMutableRawPointer
  /// Its two lines of the sync page.
  let line: UnsafeMutableRawPointer
  /// Its doorbell: the word that says that the worker sleeps, and the eventfd.
  let sleeping: UnsafeMutableRawPointer
  let doorbell: Int32
  let doorbellNumber: UInt32
  /// As the daemon said at the attach; never read from shared memory.
  public let slots: UInt32
  public let isReceive: Bool
  public let isHost: Bool
  public let number: UInt16

  // SAFETY: the attachment that made the ring has checked that its header and slots lie in the region, and its lines in
  // the page. Fields that the other side writes are loaded once each.

  /// `head`, `cur` and `tail` of the shared ring: anything may stand there.
  @inline(__always) var head: UInt32 { unsafe rw_load_acquire32(header + 20) }
  @inline(__always) var cur: UInt32 { unsafe rw_load_acquire32(header + 24) }
  @inline(__always) var tail: UInt32 { unsafe rw_load_acquire32(header + 28) }
  func setHead(_ head: UInt32, cur: UInt32) {
    unsafe rw_store_release32(header + 24, cur)
    unsafe rw_store_release32(header + 20, head)
  }
  /// How far the daemon has come.
  @inline(__always) var hwcur: UInt32 { unsafe rw_load_acquire32(line + SyncPage.hwcur) }
  @inline(__always) var hwtail: UInt32 { unsafe rw_load_acquire32(line + SyncPage.hwtail) }
  @inline(__always) var isFaulted: Bool { unsafe rw_load_acquire32(line + SyncPage.status) & SyncPage.faulted != 0 }
  @inline(__always) var requested: UInt32 { unsafe rw_load_acquire32(line + SyncPage.request) }
  @inline(__always) var done: UInt32 { unsafe rw_load_acquire32(line + SyncPage.done) }
  @inline(__always) func ask() { _ = unsafe rw_add32(line + SyncPage.request, 1) }
  @inline(__always) var workerSleeps: Bool { unsafe rw_load_acquire32(sleeping) != 0 }
}

/// Where a program keeps its control blocks: one of 64 bytes for each ring, all transmit rings first.
struct ControlBlocks: BitwiseCopyable {
  var toLoop: UInt64 = 0
  var toProgram: UInt64 = 0
}

/// A descriptor as this process uses it. Immutable after its creation, but for the control blocks; several threads may
/// use it at once. Owns its mappings and doorbells, not the descriptor.
@safe public final class NetmapAttachment: @unchecked Sendable {
  /// What the daemon said.
  public let reply: NetmapAttachReply
  /// All transmit rings first, then all receive rings; within a direction in the daemon's order.
  let rings: UnsafeMutableBufferPointer<AttachedRing>
  public let transmitCount: Int
  public var ringCount: Int { unsafe rings.count }
  public func ring(_ index: Int) -> AttachedRing { unsafe rings[index] }

  private let region: SharedMapping
  let page: SharedMapping
  private let doorbells: [Int32]
  private let closing: Closing
  let spin: UInt64
  /// The CSB's addresses in this process, once it has enabled one.
  let blocks = Guarded<ControlBlocks?>(nil)

  /// How the attachment closes a descriptor of its own.
  public typealias Closing = @convention(c) (Int32) -> Void

  /// The region's first byte, and its bytes.
  public var memory: UnsafeMutableRawPointer { unsafe region.base }
  public var memoryCount: Int { region.count }
  /// Descriptors that belong to the attachment: who wraps close(2) keeps them from the program.
  public var ownDescriptors: [Int32] { doorbells }

  /// Asks the daemon for everything that a process needs. ENXIO before REGISTER.
  /// - Parameters:
  ///   - staysWithProcess: a forked child does not get the mappings, and must attach by itself.
  ///   - doorbellsFrom: the lowest number that its descriptors may have, where the limit allows.
  ///   - spin: nanoseconds that a sync looks for its answer before it sleeps.
  ///   - closing: called instead of close(2) for each of its own descriptors.
  public convenience init(
    _ descriptor: Int32, staysWithProcess: Bool, doorbellsFrom: Int32 = 0, spin: UInt64 = NetmapEnvironment.spinNanoseconds,
    closing: Closing? = nil
  ) throws(NetmapClientError) {
    let answer = try NetmapChannel.ask(descriptor, NetmapRequestHead(.attach))
    guard answer.errno == 0 else { throw answer.error("The port cannot be used") }
    try self.init(answer, staysWithProcess, doorbellsFrom, spin, closing)
  }

  private init(
    _ answer: NetmapAnswer, _ staysWithProcess: Bool, _ from: Int32, _ spin: UInt64, _ closing: Closing?
  ) throws(NetmapClientError) {
    let reply: NetmapAttachReply
    do { reply = try NetmapAttachReply(decoding: answer.payload) } catch { throw NetmapClientError(EIO, error.problem) }
    guard answer.descriptors.count == 2 + Int(reply.doorbells) else {
      throw NetmapClientError(EIO, "The daemon sent \(answer.descriptors.count) descriptors where \(2 + reply.doorbells) are needed.")
    }
    guard let bytes = Int(exactly: reply.regionBytes), bytes <= 1 << 46 else {
      throw NetmapClientError(EIO, "The daemon names a region of \(reply.regionBytes) bytes.")
    }
    let page = try SharedMapping(answer.descriptors[1], count: Int(reply.pageBytes), staysWithProcess: staysWithProcess, "The sync page")
    try Self.check(page, reply)
    region = try SharedMapping(
      answer.descriptors[0], count: bytes, offset: Int(reply.regionStart) * 4096, staysWithProcess: staysWithProcess, "The port's memory")
    self.page = page
    self.reply = reply
    self.spin = spin
    self.closing = closing ?? { _ = rw_raw_close($0) }
    var doorbells: [Int32] = []
    for index in 0..<Int(reply.doorbells) {
      let came = answer.descriptors[2 + index]
      let moved = from > 0 ? rw_raw_fcntl(came, RW_F_DUPFD_CLOEXEC, Int(from)) : -1
      if moved >= 0 { _ = rw_raw_close(came) }
      doorbells.append(moved >= 0 ? moved : came)
    }
    answer.descriptors = Array(answer.descriptors.prefix(2))
    self.doorbells = doorbells
    unsafe rings = .allocate(capacity: reply.rings.count)
    transmitCount = reply.rings.reduce(0) { $0 + ($1.isReceive ? 0 : 1) }
    var next = (0, transmitCount)
    for (index, ring) in reply.rings.enumerated() {
      let line = unsafe self.page.base + SyncPage.ring(index)
      let attached = unsafe AttachedRing(
        header: region.base + Int(min(ring.offset, reply.regionBytes)), line: line, sleeping: self.page.base + SyncPage.sleeping(Int(ring.doorbell)),
        doorbell: doorbells[Int(ring.doorbell)], doorbellNumber: ring.doorbell, slots: ring.slots, isReceive: ring.isReceive, isHost: ring.isHost,
        number: ring.number)
      if ring.isReceive {
        unsafe rings.initializeElement(at: next.1, to: attached)
        next.1 += 1
      } else {
        unsafe rings.initializeElement(at: next.0, to: attached)
        next.0 += 1
      }
    }
  }

  /// The page is one of ours and has room for all rings; each ring lies in the region.
  private static func check(_ page: borrowing SharedMapping, _ reply: NetmapAttachReply) throws(NetmapClientError) {
    guard page.count >= SyncPage.bytes(rings: reply.rings.count) else {
      throw NetmapClientError(EIO, "The sync page has \(page.count) bytes: too few for \(reply.rings.count) rings.")
    }
    // SAFETY: a page has at least 4096 bytes.
    let (magic, version, rings) = unsafe (
      rw_load_acquire32(page.base + SyncPage.magicOffset), rw_load_acquire32(page.base + SyncPage.versionOffset),
      rw_load_acquire32(page.base + SyncPage.ringCountOffset)
    )
    guard magic == SyncPage.magic, version == SyncPage.version, Int(rings) == reply.rings.count else {
      throw NetmapClientError(EIO, "The sync page is not of version \(SyncPage.version) with \(reply.rings.count) rings. Use daemon and library of the same version.")
    }
    for (index, ring) in reply.rings.enumerated() {
      let (end, overflow) = ring.offset.addingReportingOverflow(256 + 16 * UInt64(ring.slots))
      guard !overflow, end <= reply.regionBytes, ring.offset % 8 == 0, ring.slots >= 2 else {
        throw NetmapClientError(EIO, "Ring \(index) does not lie in the port's memory.")
      }
    }
    guard reply.interfaceOffset % 8 == 0, reply.interfaceOffset <= reply.regionBytes, reply.regionBytes - reply.interfaceOffset >= 56 else {
      throw NetmapClientError(EIO, "The interface does not lie in the port's memory.")
    }
  }

  deinit {
    for doorbell in doorbells { closing(doorbell) }
    unsafe rings.deallocate()
  }

  /// False once the card has left or the daemon ends: syncs fail then.
  // SAFETY: a field of the page's header.
  public var isOpen: Bool { unsafe rw_load_acquire32(page.base + SyncPage.stateOffset) == SyncPage.open }
  /// The rings are driven by CSB entries; sync and poll are refused.
  public var isDrivenByCSB: Bool { unsafe rw_load_acquire32(page.base + SyncPage.flagsOffset) & SyncPage.csbEnabled != 0 }
  public var isSwitchPort: Bool { reply.portFlags & NetmapAttachReply.valeSwitch != 0 }
}
