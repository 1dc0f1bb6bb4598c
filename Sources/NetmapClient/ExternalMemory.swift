// The file behind a program's memory: what EXTMEM needs, since the daemon cannot map another process's addresses.

internal import CRingway
internal import NetmapAPI
internal import Platform

/// A file that this process has mapped, and where in it an address lies.
struct MappedFile: ~Copyable {
  let file: OwnedDescriptor
  /// Bytes from the file's start to the address, and from there to the mapping's end.
  let offset: UInt64
  let count: UInt64

  /// EOPNOTSUPP for memory that no other process can map: private, or without a file that can be opened for writing.
  static func behind(_ address: UInt64) throws(NetmapClientError) -> MappedFile {
    let maps: String
    do { maps = try Files.read("/proc/self/maps") } catch { throw NetmapClientError(EOPNOTSUPP, "External memory: \(error).") }
    guard let line = MapLine.containing(address, in: maps) else {
      throw NetmapClientError(EFAULT, "External memory: nothing is mapped at 0x\(String(address, radix: 16)).")
    }
    guard line.isShared, line.inode != 0 else {
      throw NetmapClientError(
        EOPNOTSUPP, "External memory must be a shared mapping of a file (memfd_create(2), shm_open(3), hugetlbfs); at 0x\(String(address, radix: 16)) it is private.")
    }
    let file = try line.open()
    return MappedFile(file: file, offset: line.offset + (address - line.start), count: line.end - address)
  }
}

/// A line of /proc/self/maps (proc_pid_maps(5)).
struct MapLine {
  var start: UInt64
  var end: UInt64
  var isShared: Bool
  var offset: UInt64
  var device: UInt64
  var inode: UInt64
  var path: String

  /// "7f0000000000-7f0000200000 rw-s 00001000 00:01 2051  /memfd:x (deleted)"
  init?(_ line: Substring) {
    let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
    guard fields.count >= 5 else { return nil }
    let range = fields[0].split(separator: "-")
    let numbers = fields[3].split(separator: ":")
    guard range.count == 2, numbers.count == 2, let start = UInt64(range[0], radix: 16), let end = UInt64(range[1], radix: 16), start < end,
      let offset = UInt64(fields[2], radix: 16), let major = UInt64(numbers[0], radix: 16), let minor = UInt64(numbers[1], radix: 16),
      let inode = UInt64(fields[4]), fields[1].utf8.count == 4
    else { return nil }
    self.start = start
    self.end = end
    isShared = fields[1].last == "s"
    self.offset = offset
    // As makedev(3) of this system's C library puts them together.
    device = (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xff) << 12 | (major & ~0xfff) << 32
    self.inode = inode
    path = fields.count > 5 ? String(fields[5].drop { $0 == " " }) : ""
  }

  static func containing(_ address: UInt64, in maps: String) -> MapLine? {
    for text in maps.split(separator: "\n") {
      if let line = MapLine(text), line.start <= address, address < line.end { return line }
    }
    return nil
  }

  /// The mapping's file, for reading and writing: by the mapping itself (a privilege), by a descriptor of this process,
  /// by its name.
  func open() throws(NetmapClientError) -> OwnedDescriptor {
    if let file = try? OwnedDescriptor(opening: "/proc/self/map_files/\(String(start, radix: 16))-\(String(end, radix: 16))", flags: O_RDWR), isOurs(file.raw) {
      return file
    }
    for name in (try? Files.list("/proc/self/fd")) ?? [] {
      guard let number = Int32(name), isOurs(number), let file = try? OwnedDescriptor(opening: "/proc/self/fd/\(name)", flags: O_RDWR) else { continue }
      if isOurs(file.raw) { return file }
    }
    if path.hasPrefix("/"), let file = try? OwnedDescriptor(opening: path, flags: O_RDWR), isOurs(file.raw) { return file }
    throw NetmapClientError(EOPNOTSUPP, "External memory: the file behind it (\(path)) cannot be opened for writing. Keep its descriptor open until the port is registered.")
  }

  private func isOurs(_ descriptor: Int32) -> Bool {
    var status = stat()
    // SAFETY: a local structure.
    guard unsafe fstat(descriptor, &status) == 0 else { return false }
    return UInt64(status.st_ino) == inode && UInt64(status.st_dev) == device
  }
}
