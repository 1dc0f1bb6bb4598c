// What the allocator refuses, and why.

public import DMAMemory

public enum NetmapAllocatorError: Error, Equatable, Sendable, CustomStringConvertible {
  case badSize(field: String, rule: String)
  case memory(MemoryError)
  case mapping(DMAError)
  /// A pool has not got enough free objects; nothing was taken.
  case exhausted(pool: String, wanted: Int, free: Int)
  /// A ring or an interface does not fit an object of its pool.
  case tooLarge(pool: String, wanted: Int, objectSize: Int)
  /// No free range of the descriptor pool holds so many bytes at this alignment.
  case noDescriptorSpace(wanted: Int, alignment: Int, free: Int)
  case badAlignment(Int)
  /// The card is not attached to this allocator.
  case notAttached
  /// The card cannot be detached: its rings still hold descriptor memory.
  case stillInUse(bytes: Int)
  /// Too many owners have been registered.
  case tooManyOwners
  /// Another descriptor for the shared region could not be made.
  case export(errno: Int32)

  public var description: String {
    switch self {
    case .badSize(let field, let rule):
      "the pool size `\(field)` \(rule). Correct it in the configuration."
    case .memory(let error): "\(error)"
    case .mapping(let error): "\(error)"
    case .exhausted(let pool, let wanted, let free):
      "the \(pool) pool has \(free) free and \(wanted) were wanted. Raise the pool size `\(pool)s` in the configuration, close ports that are not used, or ask for \(pool == "buffer" ? "fewer slots or extra buffers" : "fewer rings")."
    case .tooLarge(let pool, let wanted, let objectSize):
      "\(wanted) bytes do not fit an object of the \(pool) pool, which has \(objectSize). Ask for fewer \(pool == "ring" ? "slots" : "rings"), or raise the pool size `\(pool)Size` in the configuration."
    case .noDescriptorSpace(let wanted, let alignment, let free):
      "the descriptor pool has no \(wanted) contiguous bytes aligned to \(alignment); \(free) bytes are free. Make `descriptorBytes` larger, or the rings smaller."
    case .badAlignment(let alignment):
      "descriptor memory cannot be aligned to \(alignment) bytes. Use a power of two up to the page size."
    case .notAttached:
      "the card is not attached to this memory. Attach it before its rings are made."
    case .stillInUse(let bytes):
      "the card's rings still hold \(bytes) bytes of descriptor memory. Stop the card before it is detached."
    case .tooManyOwners:
      "no further owner of buffers can be registered. Close ports that are no longer used."
    case .export(let errno):
      "the shared memory's descriptor could not be duplicated: errno \(errno). Raise the limit of open files with `ulimit -n`."
    }
  }
}
