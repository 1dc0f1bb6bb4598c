// Regions in a program's own memory (option EXTMEM).

internal import DMAMemory
public import NetmapAPI
public import Platform

extension NetmapMemory {
  /// Makes a region in a file that a program hands over. Nothing in the file is trusted, descriptors are never in it.
  /// - Parameters:
  ///   - file: a memfd, a file of shm_open(3) or of a hugetlbfs; read and written.
  ///   - offset: where the region starts in the file, in bytes; on a page.
  ///   - bytes: how much of the file may be used.
  ///   - pools: objects and object sizes asked for. 0 leaves a number to the daemon; buffers are as many as fit.
  ///   - name: the port that it is for.
  /// - Returns: the region; its `pools` tell what there is.
  /// - Throws: EINVAL for files and sizes that cannot work, EACCES for files that cannot be written, ENOMEM when the
  ///   pools do not fit or there are too many regions.
  public func makeExternal(
    _ file: consuming OwnedDescriptor, offset: UInt64, bytes: UInt64, pools: PoolsInfo, name: String
  ) throws(NetmapError) -> NetmapRegion {
    guard bytes < 1 << 46 else { throw NetmapError(.EINVAL, "\(name): external memory of \(bytes) bytes fits no address space. Ask for less.") }
    // A noncopyable value cannot go into a closure: its number does, and is closed by the memory file.
    let raw = file.release()
    var isTaken = false
    do throws(NetmapError) {
      return try make(.external, bytes: Int(bytes), name: name) { () throws(NetmapError) in
        isTaken = true
        return try externalAllocator(raw, offset: offset, bytes: bytes, pools: pools, name: name)
      }
    } catch {
      if !isTaken { _ = OwnedDescriptor(taking: raw) }
      throw error
    }
  }

  private func externalAllocator(
    _ raw: Int32, offset: UInt64, bytes: UInt64, pools: PoolsInfo, name: String
  ) throws(NetmapError) -> NetmapAllocator {
    let memory: MemoryFile
    do { memory = try MemoryFile(external: raw, offset: offset, bytes: bytes) } catch {
      if case .external(.readOnly) = error { throw NetmapError(.EACCES, "\(name): \(error)") }
      if case .external = error { throw NetmapError(.EINVAL, "\(name): \(error)") }
      throw NetmapError(.ENOMEM, "\(name): \(error)")
    }
    let sizes = try PoolSizes.cut(memory.count, by: pools, name: name)
    do { return watched(try NetmapAllocator(external: memory, sizes: sizes, reachable: reachable(), space: space), name: name) } catch {
      throw error.netmapError
    }
  }
}

extension PoolSizes {
  /// How a piece of external memory is cut.
  static func cut(_ bytes: Int, by pools: PoolsInfo, name: String) throws(NetmapError) -> PoolSizes {
    func number(_ asked: UInt32, or usual: Int) -> Int { asked == 0 ? usual : Int(asked) }
    func size(_ asked: UInt32, or usual: Int) -> Int { (number(asked, or: usual) + 63) & ~63 }
    var sizes = PoolSizes(
      interfaces: number(pools.interfaces.objects, or: 4), interfaceSize: size(pools.interfaces.objectSize, or: 1024),
      rings: number(pools.rings.objects, or: 8), ringSize: size(pools.rings.objectSize, or: 5 * 4096), buffers: 4,
      bufferSize: size(pools.buffers.objectSize, or: 2048), minimumBuffers: 4)
    // With the limits of these the arithmetic below is safe.
    sizes = try sizes.checked()
    let room = bytes - sizes.layout.bufferOffset
    let fitting = min(room / sizes.bufferSize, 1 << 28)
    guard room > 0, fitting >= 4 else {
      throw NetmapError(
        .ENOMEM,
        "\(name): \(sizes.interfaces) interfaces of \(sizes.interfaceSize) bytes, \(sizes.rings) rings of \(sizes.ringSize) and 4 buffers of \(sizes.bufferSize) take \(sizes.layout.count) bytes, and the external memory has \(bytes). Give more memory, or ask for fewer or smaller rings.")
    }
    sizes.buffers = pools.buffers.objects == 0 ? fitting : max(4, min(fitting, Int(pools.buffers.objects)))
    return try sizes.checked()
  }
}
