// The system calls that reach VFIO, as a seam: tests play the kernel here.

internal import CRingway
internal import Platform
internal import SystemPackage

/// What a channel and a container ask of the kernel. Reading, writing and mapping a descriptor
/// are plain system calls, which a memory file answers as well as a device.
protocol VFIOSystem: Sendable {
  /// Opens a file of /dev/vfio for reading and writing, close-on-exec.
  func open(_ path: String) throws(Errno) -> OwnedDescriptor
  /// ioctl(2) with a structure. Returns what the kernel returns, which is not always 0.
  func control(_ descriptor: Int32, _ request: UInt, _ structure: inout [UInt8]) throws(Errno) -> Int32
  /// ioctl(2) with a number.
  func control(_ descriptor: Int32, _ request: UInt, value: UInt) throws(Errno) -> Int32
  /// RLIMIT_MEMLOCK in bytes; nil when there is no limit.
  var memoryLockLimit: Int? { get }
}

extension Errno {
  /// `ENODEV`: what VFIO answers when the device is away.
  static var noDevice: Errno { .operationNotSupportedByDevice }
}

/// The kernel itself.
struct LinuxVFIO: VFIOSystem {
  func open(_ path: String) throws(Errno) -> OwnedDescriptor {
    do { return try OwnedDescriptor(opening: path, flags: O_RDWR) } catch { throw error.errno }
  }

  func control(_ descriptor: Int32, _ request: UInt, _ structure: inout [UInt8]) throws(Errno) -> Int32 {
    // SAFETY: the structure's first field tells the kernel its size; the requests without that
    // field read a descriptor or a string that the array holds whole.
    let result = unsafe structure.withUnsafeMutableBytes { bytes in
      retrying { unsafe rw_ioctl(descriptor, request, bytes.baseAddress) }
    }
    guard result >= 0 else { throw Errno(rawValue: rw_errno()) }
    return result
  }

  func control(_ descriptor: Int32, _ request: UInt, value: UInt) throws(Errno) -> Int32 {
    let result = retrying { rw_ioctl_value(descriptor, request, value) }
    guard result >= 0 else { throw Errno(rawValue: rw_errno()) }
    return result
  }

  private func retrying(_ body: () -> Int32) -> Int32 {
    while true {
      let result = body()
      if result >= 0 || rw_errno() != EINTR { return result }
    }
  }

  var memoryLockLimit: Int? { Int(exactly: rw_memory_lock_limit()) }
}

extension VFIOSystem {
  /// Asks for a structure that may be longer than its fixed part, with as much room as it wants.
  /// - Parameter index: what to put into the field at byte 8 (a region's or an interrupt's index).
  func information(_ descriptor: Int32, _ request: UInt, fixed: Int, index: Int? = nil) throws(Errno) -> [UInt8] {
    /// More than any kernel answers; a size beyond it is not believed.
    let limit = 1 << 16
    var room = fixed
    while true {
      var structure = [UInt8](structure: room)
      if let index { structure.set(UInt32(truncatingIfNeeded: index), at: 8) }
      _ = try control(descriptor, request, &structure)
      let wanted = Int(structure.field(UInt32.self, at: 0) ?? 0)
      // The kernel cuts the chain off when the room is too small, and says how much it takes.
      if wanted <= room { return structure }
      guard wanted <= limit else { throw .outOfRange }
      room = wanted
    }
  }
}
