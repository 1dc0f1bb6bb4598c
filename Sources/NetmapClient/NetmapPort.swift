// A port of the daemon's, as a program of ours holds it.

internal import CRingway
public import NetmapAPI
internal import Platform

/// What a wait is for, and what it found.
public struct NetmapReadiness: OptionSet, Sendable {
  public let rawValue: Int
  public init(rawValue: Int) { self.rawValue = rawValue }
  /// A receive ring has packets; a transmit ring has room.
  public static let receive = NetmapReadiness(rawValue: 1)
  public static let transmit = NetmapReadiness(rawValue: 2)
}

/// A registered port. One thread at a time opens, closes and waits; syncs may come from several.
///
/// A forked child must not use its parent's port: it opens one, or gets the descriptor and uses `init(taking:)`.
public final class NetmapPort {
  /// The name that was registered, without the options of `PortSpecification`.
  public let name: String
  /// What the daemon answered: ring and slot counts, memory id, offset of the interface.
  public private(set) var registration: RegisterRequest
  public private(set) var transmitRings: [NetmapRingView] = []
  public private(set) var receiveRings: [NetmapRingView] = []
  /// For poll(2) beside others: it is readable when the port should be looked at again, once `arm` was called.
  public private(set) var descriptor: Int32 = -1

  private let socket: String
  private let asked: RegisterRequest
  private let options: [FlatRequest.Option]
  private let external: PortSpecification.ExternalFile?
  private var attachment: NetmapAttachment?

  /// Registers a port.
  /// - Parameters:
  ///   - name: as netmap names ports, without a prefix: `ix0`, `vale0:a`, `ix0{1`.
  ///   - request: mode, flags, rings, extra buffers; 0 leaves a size to the port.
  ///   - options: of the control request (offsets, …).
  ///   - socket: the daemon's.
  /// - Throws: what the daemon says, with netmap's errno; ENOENT or ECONNREFUSED when there is no daemon.
  public init(
    _ name: String, _ request: RegisterRequest, options: [FlatRequest.Option] = [], socket: String = NetmapEnvironment.socket
  ) throws(NetmapClientError) {
    self.name = name
    self.socket = socket
    self.options = options
    external = nil
    asked = request
    registration = request
    try open()
  }

  /// Registers the port that a text names as netmap's programs do: "netmap:ix0-1/T", "vale0:a", "netmap:ix0{1@2".
  /// - Parameter change: a last word on the request: sizes, extra buffers, further flags.
  /// - Throws: EINVAL with a sentence about the name; what the daemon says.
  public init(
    named text: String, socket: String = NetmapEnvironment.socket, _ change: (inout RegisterRequest) -> Void = { _ in }
  ) throws(NetmapClientError) {
    var specification: PortSpecification
    do { specification = try NetmapPortName.parse(text) } catch { throw NetmapClientError(error.code.rawValue, error.problem) }
    if let share = specification.share { specification.register.memoryID = try Self.region(of: share, socket) }
    change(&specification.register)
    name = specification.name
    self.socket = socket
    options = specification.request.options
    external = specification.external
    asked = specification.register
    registration = asked
    try open()
  }

  /// The number of the region that a port lies in.
  private static func region(of port: String, _ socket: String) throws(NetmapClientError) -> UInt16 {
    let descriptor = try NetmapChannel.connect(socket)
    defer { _ = rw_raw_close(descriptor) }
    let answer = try NetmapChannel.ask(
      descriptor, NetmapRequestHead(.ioctl, number: NetmapIoctl.control), FlatRequest(.portInfo, name: port).encoded())
    guard answer.errno == 0 else { throw answer.error(port) }
    do throws(NetmapError) { return try PortInfo(decoding: try FlatRequest(decoding: answer.payload).body).memoryID } catch {
      throw NetmapClientError(EIO, error.problem)
    }
  }

  /// Uses a descriptor that another process registered and passed on; it is closed with the port.
  public init(taking descriptor: Int32, name: String) throws(NetmapClientError) {
    self.name = name
    socket = NetmapEnvironment.socket
    options = []
    external = nil
    asked = RegisterRequest()
    registration = asked
    self.descriptor = descriptor
    try attach()
  }

  deinit { close() }

  /// The lock step of `init` and `reopen`: connect, register, attach. On an error nothing stays open.
  private func open() throws(NetmapClientError) {
    descriptor = try NetmapChannel.connect(socket)
    do throws(NetmapClientError) {
      let answer = try register()
      guard answer.errno == 0 else { throw answer.error(name) }
      do throws(NetmapError) {
        registration = try RegisterRequest(decoding: try FlatRequest(decoding: answer.payload).body)
      } catch { throw NetmapClientError(EIO, error.problem) }
      try attach()
    } catch {
      close()
      throw error
    }
  }

  /// The request itself, with the file of external memory.
  private func register() throws(NetmapClientError) -> NetmapAnswer {
    var request = FlatRequest(.register, name: name, body: asked, options: options)
    var head = NetmapRequestHead(.ioctl, number: NetmapIoctl.control)
    guard let external else { return try NetmapChannel.ask(descriptor, head, request.encoded()) }
    let file: OwnedDescriptor
    do { file = try OwnedDescriptor(opening: external.path, flags: O_RDWR) } catch {
      throw NetmapClientError(error.errno.rawValue, "External memory: \(error).")
    }
    head.extra = UInt64(max(0, rw_file_size(file.raw)))
    request.append(ExternalMemoryOption(start: 0, pools: external.pools))
    return try NetmapChannel.ask(descriptor, head, request.encoded(), file: file.raw)
  }

  private func attach() throws(NetmapClientError) {
    let attachment = try NetmapAttachment(descriptor, staysWithProcess: true)
    for index in 0..<attachment.ringCount {
      guard let view = attachment.view(index) else {
        throw NetmapClientError(EIO, "\(name): the buffers of ring \(index) do not lie in the port's memory.")
      }
      if view.isReceive { receiveRings.append(view) } else { transmitRings.append(view) }
    }
    self.attachment = attachment
  }

  /// Gives the port back. Views of its rings must not be used afterwards. May be called twice.
  public func close() {
    transmitRings = []
    receiveRings = []
    attachment = nil
    if descriptor >= 0 { _ = rw_raw_close(descriptor) }
    descriptor = -1
  }

  /// Registers anew, after the daemon or the card went away. Rings are new, and empty.
  public func reopen() throws(NetmapClientError) {
    close()
    try open()
  }

  /// False once the card has left or the daemon has ended: then `reopen`.
  public var isOpen: Bool { attachment.map { $0.isOpen && !NetmapChannel.isGone(descriptor) } ?? false }

  /// Hands the filled slots of all transmit rings over, and takes sent ones back. ENXIO when the port is gone.
  public func syncTransmit() throws(NetmapClientError) { try sync(receive: false) }
  /// Takes what has come, and gives read slots back.
  public func syncReceive() throws(NetmapClientError) { try sync(receive: true) }

  private func sync(receive: Bool) throws(NetmapClientError) {
    let errno = attachment?.sync(receive: receive, on: descriptor) ?? ENXIO
    if errno != 0 { throw failure(errno) }
  }

  private func failure(_ errno: Int32) -> NetmapClientError {
    switch errno {
    case ENXIO: NetmapClientError(ENXIO, "\(name): the port is gone: its card has left or the daemon has ended. Open it again.")
    case EBUSY: NetmapClientError(EBUSY, "\(name): a sync loop drives its rings.")
    default: NetmapClientError(errno, "\(name): its worker in the daemon does not answer. The daemon's log says why.")
    }
  }

  /// Waits until a ring is ready; transmits what is pending at the same time.
  /// - Parameter nanoseconds: nil waits for ever.
  /// - Returns: what is ready; nothing when the time is over.
  /// - Throws: EINTR when a signal came; EIO when a ring was reset (an index or a length in it made no sense); ENXIO when the port
  ///   is gone.
  public func wait(for events: NetmapReadiness, nanoseconds: UInt64? = nil) throws(NetmapClientError) -> NetmapReadiness {
    guard let attachment else { throw failure(ENXIO) }
    var wanted: Int16 = 0
    if events.contains(.receive) { wanted |= Int16(POLLIN) }
    if events.contains(.transmit) { wanted |= Int16(POLLOUT) }
    var entry = pollfd(fd: descriptor, events: wanted, revents: 0)
    // SAFETY: one local structure.
    let ready = unsafe NetmapWait.poll(&entry, 1, limit: nanoseconds) { _ in .attached(attachment) }
    if ready < 0 { throw .last("\(name): waiting failed") }
    if entry.revents & Int16(POLLERR | POLLNVAL | POLLHUP) != 0 {
      if !isOpen { throw failure(ENXIO) }
      throw NetmapClientError(EIO, "\(name): a ring was reset: an index or a length in it made no sense.")
    }
    var found: NetmapReadiness = []
    if entry.revents & Int16(POLLIN) != 0 { found.insert(.receive) }
    if entry.revents & Int16(POLLOUT) != 0 { found.insert(.transmit) }
    return found
  }

  /// For those who poll by themselves: one look, as `wait` with no time; and after `arm` the descriptor becomes readable when
  /// something comes. Look once more between `arm` and poll(2), and take the bytes with `drain` before the next round.
  public func look(for events: NetmapReadiness) throws(NetmapClientError) -> NetmapReadiness { try wait(for: events, nanoseconds: 0) }
  public func arm(for events: NetmapReadiness) {
    attachment?.arm((events.contains(.receive) ? Int16(POLLIN) : 0) | (events.contains(.transmit) ? Int16(POLLOUT) : 0))
  }
  public func drain() { _ = NetmapChannel.drain(descriptor) }

  // MARK: The interface's own fields

  /// `ni_bufs_head`: first of the extra buffers, which are linked by the first four bytes of each; 0 ends the list. What the
  /// field names at close is given back.
  public var extraBuffersHead: UInt32 {
    // SAFETY: the interface's 56 bytes lie in the region (checked at the attach).
    get { attachment.map { unsafe rw_read32($0.memory + Int($0.reply.interfaceOffset) + 32) } ?? 0 }
    set { if let attachment { unsafe rw_write32(attachment.memory + Int(attachment.reply.interfaceOffset) + 32, newValue) } }
  }

  /// Takes one extra buffer off the list; nil when there is none.
  public func takeExtraBuffer() -> UInt32? {
    let index = extraBuffersHead
    guard index != 0, let ring = transmitRings.first ?? receiveRings.first else { return nil }
    // SAFETY: the view bounds the buffer's bytes; its size is at least 64.
    extraBuffersHead = unsafe ring.bytes(index).loadUnaligned(as: UInt32.self)
    return index
  }

  /// Puts a buffer onto the list.
  public func giveExtraBuffer(_ index: UInt32) {
    guard let ring = transmitRings.first ?? receiveRings.first else { return }
    unsafe ring.bytes(index).storeBytes(of: extraBuffersHead, as: UInt32.self)
    extraBuffersHead = index
  }
}
