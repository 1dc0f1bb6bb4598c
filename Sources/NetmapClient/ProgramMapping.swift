// mmap(2) on a netmap descriptor, and what programs ask the system about interfaces that only the daemon knows.

internal import CRingway
internal import NetmapAPI

public enum ProgramMapping {
  /// Maps a part of the region for the program.
  /// - Returns: the mapping's start, which the program unmaps.
  /// - Throws: EINVAL before REGISTER and beyond the region, EACCES for PROT_EXEC.
  public static func map(
    _ descriptor: Int32, _ at: UnsafeMutableRawPointer?, _ size: Int, _ protection: Int32, _ flags: Int32, _ offset: Int64,
    _ attachment: () throws(NetmapClientError) -> NetmapAttachment
  ) throws(NetmapClientError) -> UnsafeMutableRawPointer {
    guard protection & PROT_EXEC == 0 else { throw NetmapClientError(EACCES, "Netmap's memory is not executable.") }
    let held: NetmapAttachment
    do { held = try attachment() } catch {
      throw error.errno == ENXIO ? NetmapClientError(EINVAL, "Register a port before its memory is mapped.") : error
    }
    guard size > 0, offset >= 0, offset % 4096 == 0 else { throw NetmapClientError(EINVAL, "\(size) bytes from \(offset) cannot be mapped.") }
    let (end, overflow) = UInt64(offset).addingReportingOverflow(UInt64(size) &+ 4095 & ~4095)
    guard !overflow, end <= (held.reply.regionBytes + 4095) & ~4095 else {
      throw NetmapClientError(EINVAL, "The port's memory has \(held.reply.regionBytes) bytes; \(size) bytes from \(offset) were to be mapped.")
    }
    // The region's descriptor is not kept: the daemon gives it again.
    let answer = try NetmapChannel.ask(descriptor, NetmapRequestHead(.attach))
    guard answer.errno == 0, let file = answer.descriptors.first else { throw answer.error("The port's memory cannot be mapped") }
    // SAFETY: as mmap(2): the program chose address and flags.
    guard let mapped = unsafe rw_raw_mmap(at, size, protection, flags, file, offset &+ Int64(held.reply.regionStart) * 4096) else {
      throw .last("The port's memory cannot be mapped")
    }
    return unsafe mapped
  }
}

public enum ProgramInterface {
  /// SIOCGIFMTU, SIOCGIFHWADDR and SIOCGIFFLAGS for a name that the kernel does not know (netdevice(7)).
  /// - Parameter request: the address of a `struct ifreq`: name, 16 bytes; then the answer.
  /// - Returns: whether the daemon knew it.
  public static func answer(_ number: UInt64, _ request: UInt64) -> Bool {
    guard let name = ProgramIoctl.copyIn(request, 16), let descriptor = try? NetmapChannel.connect(NetmapEnvironment.socket) else { return false }
    defer { _ = rw_raw_close(descriptor) }
    let text = String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
    guard !text.isEmpty, let known = try? NetmapChannel.query(text, on: descriptor) else { return false }
    switch number {
    case 0x8921: return ProgramIoctl.copyOut(request &+ 16, bytes(known.mtu))
    case 0x8913: return ProgramIoctl.copyOut(request &+ 16, Array(bytes(known.flags).prefix(2)))
    // ARPHRD_ETHER, then the address.
    case 0x8927: return ProgramIoctl.copyOut(request &+ 16, [1, 0] + known.address)
    default: return false
    }
  }

  private static func bytes(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) } }
}
