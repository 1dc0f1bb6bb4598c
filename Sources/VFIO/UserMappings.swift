// Memory that a vfio-user server may reach: it is handed the files, and maps them itself.

internal import CRingway
internal import DMAMemory
internal import Platform
internal import Synchronization
internal import SystemPackage

/// The mappings of one connection.
///
/// Trust: a server can read and write everything that it has been given, and nothing takes a
/// mapping back from a server that does not want to let go. So it is given whole files that hold
/// nothing but packet memory, as a card behind an IOMMU would be.
final class UserMappings: DMAContext {
  private let channel: UserChannel
  private let own = Mutex(Own())

  private struct Own {
    var isClosed = false
    /// Bytes by bus address.
    var mappings: [UInt64: Int] = [:]
  }

  init(_ channel: UserChannel) { self.channel = channel }

  /// The protocol has addresses of 64 bits and no way to say which of them a server takes; 48 bits are
  /// what machines without a special kind of paging translate, and the lowest are used first.
  let iovaRanges: [ClosedRange<UInt64>] = [0...(1 << 48) - 1]
  var iovaPageSize: Int { channel.capabilities.pageSize }

  private func reaches(_ iova: IOVA, _ count: Int) -> Bool {
    count > 0 && iovaRanges.contains { $0.contains(iova.rawValue) && UInt64(count) - 1 <= $0.upperBound - iova.rawValue }
  }

  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    let count = source.count
    guard reaches(iova, count) else { throw .outOfRange(iova: iova, count: count) }
    guard source.descriptor >= 0, source.fileOffset >= 0 else { throw .notShareable(count: count) }
    try own.withLock { (own: inout Own) throws(DMAError) in
      guard !own.isClosed else { throw .gone }
      guard own.mappings[iova.rawValue] == nil else { throw .map(errno: EEXIST, count: count, iova: iova) }
      guard own.mappings.count < channel.capabilities.mappings else {
        throw .map(errno: ENOSPC, count: count, iova: iova)
      }
      var request = [UInt8](structure: 32)
      request.set(UInt32(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE), at: 4)
      request.set(UInt64(source.fileOffset), at: 8)
      request.set(iova.rawValue, at: 16)
      request.set(UInt64(count), at: 24)
      do throws(UserFailure) {
        _ = try channel.connection.request(.mapMemory, request, descriptors: [source.descriptor])
      } catch {
        guard case .refused(let errno) = error else { throw .gone }
        throw .map(errno: errno.rawValue, count: count, iova: iova)
      }
      own.mappings[iova.rawValue] = count
    }
  }

  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    try own.withLock { (own: inout Own) throws(DMAError) in
      guard !own.isClosed else { throw .gone }
      guard own.mappings[iova.rawValue] == count else { throw .unmap(errno: ENOENT, count: count, iova: iova) }
      try unmap(iova, count)
      own.mappings[iova.rawValue] = nil
    }
  }

  private func unmap(_ iova: IOVA, _ count: Int) throws(DMAError) {
    var request = [UInt8](structure: 24)
    request.set(iova.rawValue, at: 8)
    request.set(UInt64(count), at: 16)
    do throws(UserFailure) {
      let reply = try channel.connection.request(.unmapMemory, request)
      // The entry comes back, or nothing does.
      let entry = reply.payload
      guard entry.isEmpty || (entry.field(UInt64.self, at: 8) == iova.rawValue && entry.field(UInt64.self, at: 16) == UInt64(count))
      else { throw channel.connection.give(up: VFIOMalformed("another mapping taken away than the one at \(iova.rawValue)")) }
    } catch {
      guard case .refused(let errno) = error else { throw .gone }
      throw .unmap(errno: errno.rawValue, count: count, iova: iova)
    }
  }

  func unmapAll() {
    own.withLock { own in
      // What cannot be undone is undone by the server when the connection ends.
      for (iova, count) in own.mappings { try? unmap(IOVA(rawValue: iova), count) }
      own.mappings = [:]
    }
  }

  func close() {
    unmapAll()
    own.withLock { $0.isClosed = true }
  }
}

extension VFIOFunction {
  /// Opens the device of the vfio-user server that listens at `path`. Its name is "vfio-user:PATH".
  ///
  /// It comes as `open(_: PCIAddress)` brings one: reset, awake, with bus mastering off. A server
  /// serves one client at a time; while it has another, this fails after ten seconds.
  public static func open(socket path: String) throws(VFIOError) -> VFIOFunction {
    let socket: UserSocket
    do throws(Errno) { socket = try UserSocket(connecting: path) } catch {
      throw error == .permissionDenied ? .noPermission(path: path) : .noServer(path: path, errno: error)
    }
    return try open(socket, name: "\(socketPrefix)\(path)")
  }

  /// How such an address begins: "vfio-user:/run/nic.sock".
  public static var socketPrefix: String { "vfio-user:" }

  /// - Parameters:
  ///   - patience: milliseconds for an answer.
  ///   - longPatience: the same for the first answer and for a reset.
  static func open(
    _ socket: consuming UserSocket, name: String, patience: Int = 5000, longPatience: Int = 10000
  ) throws(VFIOError) -> VFIOFunction {
    let connection = UserConnection(socket, patience: patience, longPatience: longPatience)
    let channel = try UserChannel(name: name, connection)
    return try VFIOFunction(channel, dma: UserMappings(channel))
  }
}
