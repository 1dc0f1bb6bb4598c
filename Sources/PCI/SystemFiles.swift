// Reading the kernel's small files. Something that is not there is nil: trees differ by kernel.

import Glibc

enum SystemFiles {
  /// At most `limit` bytes of the file, or nil when it cannot be read.
  static func bytes(_ path: String, limit: Int = 1 << 20) -> [UInt8]? {
    // SAFETY: the path is a string of ours; open reads it up to its end.
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var result: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while result.count < limit {
      // SAFETY: read fills at most the chunk's own length.
      let count = unsafe chunk.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count < 0 { return nil }
      if count == 0 { break }
      result += chunk[..<count]
    }
    return result
  }

  /// The file's text without the white space around it.
  static func text(_ path: String) -> String? {
    bytes(path).map { trim(String(decoding: $0, as: UTF8.self)) }
  }

  /// An integer as sysfs prints it: decimal, or hexadecimal after 0x.
  static func integer(_ path: String) -> Int? {
    guard let text = text(path) else { return nil }
    return text.hasPrefix("0x") ? Int(text.dropFirst(2), radix: 16) : Int(text)
  }

  /// What the symbolic link points to.
  static func link(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    // SAFETY: readlink writes at most the buffer's own length.
    let count = unsafe buffer.withUnsafeMutableBytes { raw in
      unsafe readlink(path, raw.baseAddress!.assumingMemoryBound(to: CChar.self), raw.count)
    }
    return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
  }

  /// The last part of what the symbolic link points to: how sysfs names drivers and groups.
  static func linkName(_ path: String) -> String? {
    link(path)?.split(separator: "/").last.map(String.init)
  }

  /// Names in a directory, sorted; empty when it is not there.
  static func list(_ path: String) -> [String] {
    // SAFETY: the stream is ours until closedir; an entry's name is copied before the next readdir.
    guard let stream = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(stream) }
    var names: [String] = []
    while let entry = unsafe readdir(stream) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  static func exists(_ path: String) -> Bool {
    // SAFETY: the path is a string of ours.
    unsafe access(path, F_OK) == 0
  }

  /// Owner, group and permission bits.
  static func ownership(_ path: String) -> (user: UInt32, group: UInt32, mode: UInt32)? {
    var status = stat()
    // SAFETY: stat fills the structure given.
    guard unsafe stat(path, &status) == 0 else { return nil }
    return (status.st_uid, status.st_gid, status.st_mode & 0o7777)
  }

  static func trim(_ text: String) -> String {
    var rest = Substring(text)
    while let first = rest.first, first.isWhitespace || first == "\0" { rest.removeFirst() }
    while let last = rest.last, last.isWhitespace || last == "\0" { rest.removeLast() }
    return String(rest)
  }
}
