// Small files: sysfs, procfs, configuration.

internal import CRingway
internal import SystemPackage

/// Whole-file helpers for the files of sysfs and procfs and other small ones.
public enum Files {
  /// Files longer than this are refused (EFBIG): nothing that is read here comes near it.
  public static let sizeLimit = 16 << 20

  /// The file's bytes.
  public static func bytes(_ path: String) throws(SystemError) -> [UInt8] {
    let file = try OwnedDescriptor(opening: path, flags: O_RDONLY)
    let raw = file.raw
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
      // SAFETY: the kernel writes at most the chunk's bytes and says how many.
      let count = try call("read", path) {
        unsafe chunk.withUnsafeMutableBytes { unsafe CRingway.read(raw, $0.baseAddress!, $0.count) }
      }
      if count == 0 { return content }
      content += chunk[..<count]
      if content.count > sizeLimit { throw SystemError("read", path, .fileTooLarge) }
    }
  }

  /// The file's text as it is, newline included. Bytes that are not UTF-8 are replaced.
  public static func read(_ path: String) throws(SystemError) -> String {
    String(decoding: try bytes(path), as: UTF8.self)
  }

  /// The file's text without white space around it: the form of most files in sysfs.
  public static func line(_ path: String) throws(SystemError) -> String {
    let text = try read(path)
    guard let first = text.firstIndex(where: { !$0.isWhitespace }), let last = text.lastIndex(where: { !$0.isWhitespace })
    else { return "" }
    return String(text[first...last])
  }

  /// Writes `text` in one call, as attributes of sysfs want it; a short write is EIO.
  /// - Parameter create: makes the file when it does not exist, and cuts it when it does.
  public static func write(_ text: String, to path: String, create: Bool = false) throws(SystemError) {
    let file = try OwnedDescriptor(opening: path, flags: create ? O_WRONLY | O_CREAT | O_TRUNC : O_WRONLY)
    let raw = file.raw
    let bytes = Array(text.utf8)
    // SAFETY: the kernel reads the array's own bytes.
    let written = try call("write", path) { unsafe bytes.withUnsafeBytes { unsafe CRingway.write(raw, $0.baseAddress, $0.count) } }
    if written != bytes.count { throw SystemError("write", path, .ioError) }
  }

  /// Names in a directory, sorted, without "." and "..".
  public static func list(_ path: String) throws(SystemError) -> [String] {
    guard let directory = unsafe opendir(path) else { throw SystemError("list", path, lastErrno()) }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while true {
      rw_set_errno(0)
      guard let entry = unsafe readdir(directory) else { break }
      // SAFETY: d_name is null-terminated; the entry lives until the next readdir.
      let name = unsafe String(cString: rw_entry_name(entry))
      if name != "." && name != ".." { names.append(name) }
    }
    let failed = lastErrno()
    if failed.rawValue != 0 { throw SystemError("list", path, failed) }
    return names.sorted()
  }

  /// What a symbolic link says, unresolved.
  public static func linkTarget(_ path: String) throws(SystemError) -> String {
    var buffer = [UInt8](repeating: 0, count: 4096)
    // SAFETY: the kernel writes at most the buffer's bytes and says how many.
    let count = try call("read link", path) {
      unsafe buffer.withUnsafeMutableBytes { unsafe readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count) }
    }
    return String(decoding: buffer[..<count], as: UTF8.self)
  }

  /// The last part of what a symbolic link points to: a driver's or a group's name in sysfs.
  public static func linkName(_ path: String) throws(SystemError) -> String {
    let target = try linkTarget(path)
    return target.split(separator: "/").last.map(String.init) ?? target
  }

  /// Whether something is there, following links.
  public static func exists(_ path: String) -> Bool {
    // SAFETY: a null-terminated string for the length of the call.
    unsafe access(path, F_OK) == 0
  }

  /// Whether the process may read and write it.
  public static func isReadWritable(_ path: String) -> Bool {
    // SAFETY: a null-terminated string for the length of the call.
    unsafe access(path, R_OK | W_OK) == 0
  }
}
