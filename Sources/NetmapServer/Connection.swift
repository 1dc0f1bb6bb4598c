// An open netmap descriptor of some program.

internal import CRingway
internal import NetmapAPI
internal import NetmapPorts
internal import Platform

/// A packet that came in, with its descriptors.
struct IncomingPacket: ~Copyable {
  var bytes: [UInt8]
  /// More than the buffer holds were sent.
  var isCut: Bool
  /// The sending end of the program's socket pair.
  var answer: OwnedDescriptor
  /// A memory file.
  var file: OwnedDescriptor?
  /// The memory file's number, or -1.
  var fileNumber: Int32 {
    switch file {
    case .some(let file): file.raw
    case .none: -1
    }
  }
}

/// One connection: the server's thread's alone.
final class Connection {
  let token: UInt64
  let peer: NetmapPeer
  let socket: SessionSocket
  let descriptor: NetmapDescriptor
  var isRegistered = false
  /// `nr_mode` of the registration.
  var mode: UInt32 = 0
  /// When somebody has attached.
  private(set) var session: Session?

  init(_ socket: SessionSocket, token: UInt64, peer: NetmapPeer, system: NetmapSystem) {
    self.socket = socket
    self.token = token
    self.peer = peer
    descriptor = NetmapDescriptor(system)
  }

  enum Received: ~Copyable {
    case nothing
    case request(IncomingPacket)
    /// Hung up, or what came may not be; the sentence is for the log.
    case over(String)
  }

  /// Takes the next packet. One without an answering end is dropped here.
  func receive() -> Received {
    while true {
      var bytes = [UInt8](repeating: 0, count: NetmapMessageLimit.bytes)
      var descriptors: [Int32] = [-1, -1]
      var number: UInt32 = 0, cut: UInt32 = 0
      // SAFETY: the kernel writes at most the arrays' elements and says how many.
      let length = unsafe bytes.withUnsafeMutableBytes { buffer in
        unsafe descriptors.withUnsafeMutableBufferPointer { room in
          unsafe rw_take_packet(socket.descriptor, buffer.baseAddress!, buffer.count, room.baseAddress!, UInt32(room.count), &number, &cut)
        }
      }
      guard length >= 0 else {
        if rw_errno() == EINTR { continue }
        return rw_errno() == EAGAIN ? .nothing : .over("it broke (error \(rw_errno()))")
      }
      // Owned from here on: whatever happens, they are closed.
      let first = number > 0 ? OwnedDescriptor(taking: descriptors[0]) : nil
      let second = number > 1 ? OwnedDescriptor(taking: descriptors[1]) : nil
      if cut & RW_CUT_DESCRIPTORS != 0 { return .over("more descriptors came than a request has, or some were lost") }
      // An end and an empty packet look alike; the end is seen by its event.
      guard length > 0, let first = consume first, rw_is_packet_pair(first.raw) != 0 else { return .over(length == 0 ? "" : "a request came without an answering end") }
      bytes.removeSubrange(Int(length)...)
      return .request(IncomingPacket(bytes: bytes, isCut: cut & RW_CUT_BYTES != 0, answer: first, file: second))
    }
  }

  /// The session; made when a process first wants to use the descriptor.
  func attach(_ placement: Placement) throws(NetmapError) -> Session {
    if let session { return session }
    guard let port = descriptor.port else { throw NetmapError(.ENXIO, "Nothing is registered on this descriptor.") }
    let made = try Session(port, socket, placement)
    session = made
    showFlags()
    return made
  }

  /// With control blocks the library refuses plain syncs.
  func showFlags() { session?.showFlags(descriptor.controlBlocks == nil ? 0 : SyncPage.csbEnabled) }

  /// Everything goes back: workers let go, then the port closes.
  func end() {
    session?.end()
    session = nil
    descriptor.close()
  }
}
