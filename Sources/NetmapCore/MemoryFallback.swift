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
    let descriptors: DMARegion
  }

  static func makeMemory(
    _ sizes: PoolSizes, backing: MemoryBacking, node: Int?, reachable: [any DMAMapper], space: IOVAAllocator
  ) throws(NetmapAllocatorError) -> Memory {
    // Descriptors first: they are small, and without them the buffers are of no use.
    let descriptors = try makeRegion(
      "ringway-descriptors", bytes: sizes.descriptorBytes, backing, node, reachable, space)
    var trial = sizes
    var firstError: MemoryError?
    while true {
      do throws(NetmapAllocatorError) {
        let shared = try makeRegion("ringway-netmap", bytes: trial.layout.count, backing, node, reachable, space)
        let shortage = firstError.map {
          PoolShortage(wantedBuffers: sizes.buffers, buffers: trial.buffers, reason: "\($0)")
        }
        return Memory(sizes: trial, shortage: shortage, shared: shared, descriptors: descriptors)
      } catch {
        guard case .memory(let cause) = error, let next = smaller(trial, after: cause) else {
          throw firstError.map { .memory($0) } ?? error
        }
        firstError = firstError ?? cause
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

  private static func makeRegion(
    _ name: String, bytes: Int, _ backing: MemoryBacking, _ node: Int?, _ reachable: [any DMAMapper],
    _ space: IOVAAllocator
  ) throws(NetmapAllocatorError) -> DMARegion {
    let file: MemoryFile
    do { file = try MemoryFile(name: name, bytes: bytes, backing: backing, node: node) } catch { throw .memory(error) }
    do { return try DMARegion(file, reachable: reachable, space: space) } catch { throw .mapping(error) }
  }
}
