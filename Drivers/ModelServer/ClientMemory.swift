// What a client lets the device reach: DMA_MAP and DMA_UNMAP.
//
// A guest behind a vIOMMU maps its memory page by page, thousands of times, and each time hands over
// the same file. So a file is mapped once, whole, for as long as some window lies in it, and a window
// is a place in it. That also serves huge pages, which cannot be mapped by pieces of 4 KiB.

internal import CRingway
internal import Platform
internal import ModelKit
internal import SystemPackage

/// A mapping of a client's file, or of a part of it.
@safe final class FileMapping {
  let base: UnsafeMutableRawPointer
  /// The part of the file: first byte and size.
  let start: UInt64
  let count: Int
  private let entry: FaultGuard.Window

  /// - Throws: what mmap(2) says, or ENOSPC when the process guards too many mappings.
  init(_ descriptor: Int32, start: UInt64, count: Int, isWritable: Bool, flag: FaultFlag) throws(Errno) {
    let mapped = unsafe mmap(
      nil, count, isWritable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_NORESERVE, descriptor, off_t(start))
    guard let mapped = unsafe mapped, UInt(bitPattern: mapped) != .max else { throw Errno(rawValue: rw_errno()) }
    do {
      // A file's pages may be huge; its zeros are normal ones wherever the kernel lets a page go alone.
      let page = Int(ClientMemory.pageSize)
      entry = try unsafe FaultGuard.add(
        base: mapped, count: (count + page - 1) & ~(page - 1), pageSize: page, kind: .zeros, flag: flag)
    } catch {
      // SAFETY: the mapping made above.
      _ = unsafe munmap(mapped, count)
      throw error
    }
    unsafe base = mapped
    self.start = start
    self.count = count
  }

  deinit {
    FaultGuard.remove(entry)
    // SAFETY: this object's own mapping.
    _ = unsafe munmap(base, count)
  }

  func holds(_ offset: UInt64, _ count: Int) -> Bool {
    offset >= start && offset - start <= UInt64(self.count) && UInt64(count) <= UInt64(self.count) - (offset - start)
  }
}

/// One client's windows.
final class ClientMemory {
  /// `pgsizes`: what addresses, offsets and sizes are multiples of.
  static let pageSize: UInt64 = 4096
  /// `max_dma_maps`: the specification's own default.
  static let mostMaps = 65535
  /// Files up to this size are mapped whole.
  private static let largestFile: UInt64 = 1 << 42

  private struct FileKey: Hashable {
    let device: UInt64
    let inode: UInt64
    let isWritable: Bool
  }
  private struct Weak { weak var mapping: FileMapping? }

  private let memory: ModelMemory
  /// Raised when one of the client's files was shorter than it had said. nil when there are no more flags: then
  /// nothing is mapped.
  private let flag: FaultFlag?
  private var files: [FileKey: Weak] = [:]

  init(_ memory: ModelMemory) {
    self.memory = memory
    flag = try? FaultGuard.openFlag()
  }
  deinit {
    memory.unmapAll()
    if let flag { FaultGuard.close(flag) }
  }

  /// Whether a file of the client's was shorter than it had said.
  var wasCutShort: Bool { flag?.isRaised ?? false }

  /// - Parameter flags: 1 the device may read, 2 it may write.
  /// - Throws: EINVAL, EEXIST for an overlap, ENOSPC for too many, or what mapping the file said.
  func map(_ address: UInt64, size: UInt64, offset: UInt64, flags: UInt32, file: Int32?) throws(Errno) {
    let mask = ClientMemory.pageSize - 1
    guard size > 0, (address | size) & mask == 0, flags & ~3 == 0, flags & 3 != 0, let count = Int(exactly: size),
      !address.addingReportingOverflow(size - 1).overflow
    else { throw .invalidArgument }
    guard memory.windowCount < ClientMemory.mostMaps else { throw .noSpace }
    let isWritable = flags & 2 != 0
    guard let file else {
      guard unsafe memory.map(address, count: count, unsafe: nil, isWritable: isWritable) else { throw .fileExists }
      return
    }
    guard offset & mask == 0 else { throw .invalidArgument }
    let mapping = try mapping(of: file, offset: offset, count: count, isWritable: isWritable)
    // SAFETY: `mapping` holds the range, and is kept by the window.
    let base = unsafe mapping.base + Int(offset - mapping.start)
    guard unsafe memory.map(address, count: count, unsafe: base, isWritable: isWritable, owner: mapping) else {
      throw .fileExists
    }
  }

  private func mapping(of file: Int32, offset: UInt64, count: Int, isWritable: Bool) throws(Errno) -> FileMapping {
    guard let flag else { throw .noSpace }
    var status = stat()
    // SAFETY: the kernel fills the local variable.
    guard unsafe fstat(file, &status) == 0 else { throw Errno(rawValue: rw_errno()) }
    let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
    let kind = status.st_mode & UInt32(S_IFMT)
    guard kind == UInt32(S_IFREG), status.st_size > 0, !overflow, end <= UInt64(status.st_size) else {
      throw .invalidArgument
    }
    let key = FileKey(device: UInt64(status.st_dev), inode: UInt64(status.st_ino), isWritable: isWritable)
    if let known = files[key]?.mapping, known.holds(offset, count) { return known }
    if UInt64(status.st_size) <= ClientMemory.largestFile,
      let whole = try? FileMapping(file, start: 0, count: Int(status.st_size), isWritable: isWritable, flag: flag)
    {
      if files.count > 1024 { files = files.filter { $0.value.mapping != nil } }
      files[key] = Weak(mapping: whole)
      return whole
    }
    return try FileMapping(file, start: offset, count: count, isWritable: isWritable, flag: flag)
  }

  /// Takes everything away that lies in the range; nothing there is no error.
  func unmap(_ address: UInt64, size: UInt64) { memory.unmap(address, count: size) }
  func unmapAll() { memory.unmapAll() }
}
