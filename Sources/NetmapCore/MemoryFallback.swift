// Memory that cannot be had whole is asked for in smaller sizes, down to a floor.

internal import DMAMemory

/// Says that there are fewer buffers than were asked for, and why.
public struct PoolShortage: Equatable, Sendable, CustomStringConvertible {
  public let wantedBuffers: Int
  public let buffers: Int
  /// What the first try failed with.
  public let reason: String

  public var description: String { "\(buffers) buffers instead of \(wantedBuffers): \(reason)" }
}

extension NetmapAllocator {
  /// Both regions, and the sizes they were made with.
  struct Memory {
    let sizes: PoolSizes
    let shortage: PoolShortage?
    let shared: DMARegion
    let descriptors: DMARegion?
  }

  /// Makes a memory file of at least so many bytes; tests put one in place that runs short.
  typealias FileMaker = (_ name: String, _ bytes: Int) throws(MemoryError) -> MemoryFile

  static func makeMemory(
    _ sizes: PoolSizes, descriptors wanted: Bool, reachable: [any DMAMapper], space: IOVAAllocator, makeFile: FileMaker
  ) throws(NetmapAllocatorError) -> Memory {
    func region(_ name: String, _ bytes: Int) throws(NetmapAllocatorError) -> DMARegion {
      let file: MemoryFile
      do { file = try makeFile(name, bytes) } catch { throw .memory(error) }
      do { return try DMARegion(file, reachable: reachable, space: space) } catch { throw .mapping(error) }
    }
    // Descriptors first: they are small, and without them the buffers are of no use.
    var descriptors: DMARegion?
    do throws(NetmapAllocatorError) {
      if wanted { descriptors = try region("ringway-descriptors", sizes.descriptorBytes) }
    } catch { throw error.counting(shared: sizes.layout.count) }
    var trial = sizes
    var firstError: MemoryError?
    while true {
      do throws(NetmapAllocatorError) {
        let shared = try region("ringway-netmap", trial.layout.count)
        let shortage = firstError.map {
          PoolShortage(wantedBuffers: sizes.buffers, buffers: trial.buffers, reason: "\($0)")
        }
        return Memory(sizes: trial, shortage: shortage, shared: shared, descriptors: descriptors)
      } catch {
        guard case .memory(let cause) = error, let next = smaller(trial, after: cause) else {
          throw firstError.map { .memory($0) } ?? error.counting(descriptors: descriptors)
        }
        if firstError == nil, case .memory(let whole) = error.counting(descriptors: descriptors) { firstError = whole }
        trial.buffers = next
      }
    }
  }

  /// How many buffers to try next; nil when it is over.
  private static func smaller(_ sizes: PoolSizes, after error: MemoryError) -> Int? {
    let fitting: Int
    switch error {
    case .tooFewHugepages(_, let available, let pageSize, _, _):
      fitting = (available * pageSize - sizes.layout.bufferOffset) / sizes.bufferSize
    case .outOfMemory: fitting = sizes.buffers / 2
    default: return nil
    }
    // Always fewer than before, so that the tries end.
    let next = min(fitting, sizes.buffers - 1)
    return next >= max(sizes.minimumBuffers, 4) ? next : nil
  }
}

extension NetmapAllocatorError {
  /// A shortage as a person must mend it: the pages of both regions, not of the one that failed.
  fileprivate func counting(shared bytes: Int) -> NetmapAllocatorError {
    guard case .memory(.tooFewHugepages(let wanted, let available, let pageSize, let node, let total)) = self else { return self }
    let more = (bytes + pageSize - 1) / pageSize
    return .memory(
      .tooFewHugepages(wanted: wanted + more, available: available, pageSize: pageSize, node: node, total: total))
  }

  /// The same when the descriptors have got theirs.
  fileprivate func counting(descriptors region: DMARegion?) -> NetmapAllocatorError {
    guard case .memory(.tooFewHugepages(let wanted, let available, let pageSize, let node, let total)) = self else { return self }
    let held = (region?.count ?? 0) / pageSize
    return .memory(
      .tooFewHugepages(wanted: wanted + held, available: available + held, pageSize: pageSize, node: node, total: total))
  }
}
