// Every change that this module makes to the machine goes through one small protocol, so that a
// test can play the kernel, count the steps and stop between any two of them.

import Glibc

/// What a change failed with.
public struct EffectError: Error, Equatable, CustomStringConvertible {
  /// In words: "write", "rename".
  public let operation: String
  public let path: String
  public let errno: Int32

  public init(operation: String, path: String, errno: Int32) {
    self.operation = operation
    self.path = path
    self.errno = errno
  }

  public var description: String {
    // SAFETY: strerror gives a string that lives until the next call on this thread; it is copied.
    let reason = unsafe String(cString: strerror(errno))
    let advice =
      switch errno {
      case EACCES, EPERM: " Run it as root (sudo)."
      case EROFS: " The file system is read-only: mount it writable."
      case ENOSPC: " Make room on that file system."
      default: ""
      }
    return "\(path): \(operation) failed: \(reason).\(advice)"
  }
}

/// The ways in which this module changes the machine.
public protocol SystemEffects {
  /// Writes a kernel attribute with a single write(2).
  func writeAttribute(_ text: String, at path: String) throws(EffectError)
  /// Makes the directory and those above it.
  func makeDirectory(_ path: String) throws(EffectError)
  /// Writes a new file, or over an old one, and waits until the disk has it.
  func createFile(_ path: String, text: String) throws(EffectError)
  /// Puts a file in another's place at once.
  func rename(_ old: String, to new: String) throws(EffectError)
  /// Waits until the disk has the directory's entries.
  func synchronizeDirectory(_ path: String) throws(EffectError)
  /// Removes a file; that it is not there is fine.
  func remove(_ path: String) throws(EffectError)
  func link(_ path: String, to target: String) throws(EffectError)
  /// Nil leaves the owner or the group as it is.
  func setOwner(_ path: String, user: UInt32?, group: UInt32?, mode: UInt32) throws(EffectError)
  /// Gives the interface that is now called `current` its old name, and unless `nameOnly` also its
  /// state, addresses and routes.
  func restoreInterface(_ settings: InterfaceSettings, current: String, nameOnly: Bool) throws(EffectError)
}

extension SystemEffects {
  /// A file that is either the old one or the new one at any moment, also after a crash.
  func replaceFile(_ path: String, text: String) throws(EffectError) {
    let directory = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    try makeDirectory(directory)
    try createFile(path + ".new", text: text)
    try rename(path + ".new", to: path)
    try synchronizeDirectory(directory)
  }
}

/// The machine itself.
// SAFETY (whole type): every pointer given to the C library is that of a Swift string or array
// that lives for the call, and no call keeps it.
public struct MachineEffects: SystemEffects {
  public init() {}

  private func check(_ result: Int32, _ operation: String, _ path: String) throws(EffectError) {
    if result < 0 { throw EffectError(operation: operation, path: path, errno: errno) }
  }

  private func write(_ text: String, to descriptor: Int32, _ path: String) throws(EffectError) {
    let bytes = Array(text.utf8)
    let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
    guard count == bytes.count else {
      throw EffectError(operation: "write", path: path, errno: count < 0 ? errno : ENOSPC)
    }
  }

  public func writeAttribute(_ text: String, at path: String) throws(EffectError) {
    let descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC)
    try check(descriptor, "open", path)
    defer { close(descriptor) }
    try write(text, to: descriptor, path)
  }

  public func makeDirectory(_ path: String) throws(EffectError) {
    var built = ""
    for part in path.split(separator: "/") {
      built += "/" + part
      if unsafe mkdir(built, 0o755) < 0 && errno != EEXIST && !SystemFiles.exists(built) {
        throw EffectError(operation: "make directory", path: built, errno: errno)
      }
    }
  }

  public func createFile(_ path: String, text: String) throws(EffectError) {
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o644)
    try check(descriptor, "create", path)
    defer { close(descriptor) }
    try write(text, to: descriptor, path)
    try check(fsync(descriptor), "fsync", path)
  }

  public func rename(_ old: String, to new: String) throws(EffectError) {
    try check(unsafe Glibc.rename(old, new), "rename", new)
  }

  public func synchronizeDirectory(_ path: String) throws(EffectError) {
    let descriptor = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try check(descriptor, "open", path)
    defer { close(descriptor) }
    // Some file systems have nothing to wait for and say so.
    if fsync(descriptor) < 0 && errno != EINVAL {
      throw EffectError(operation: "fsync", path: path, errno: errno)
    }
  }

  public func remove(_ path: String) throws(EffectError) {
    if unsafe unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR {
      throw EffectError(operation: "remove", path: path, errno: errno)
    }
  }

  public func link(_ path: String, to target: String) throws(EffectError) {
    if SystemFiles.link(path) == target { return }
    try remove(path)
    try check(unsafe symlink(target, path), "link", path)
  }

  public func setOwner(_ path: String, user: UInt32?, group: UInt32?, mode: UInt32) throws(EffectError) {
    try check(unsafe chown(path, user ?? .max, group ?? .max), "chown", path)
    try check(unsafe chmod(path, mode), "chmod", path)
  }

  public func restoreInterface(
    _ settings: InterfaceSettings, current: String, nameOnly: Bool
  ) throws(EffectError) {
    try InterfaceKeeper.restore(settings, current: current, nameOnly: nameOnly)
  }
}

extension EffectError {
  /// The caller lacks the privilege; nothing is wrong with the device.
  var isRefusalOfCaller: Bool { errno == EACCES || errno == EPERM || errno == EROFS }
}
