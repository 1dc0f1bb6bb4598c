// One pool of equal objects, and the private book of who holds which.

internal import CRingway

/// Whoever holds buffers: a ring, a port, a packet pool. 0 is nobody.
@frozen public struct BufferOwner: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  public let rawValue: UInt32
  @inlinable @inline(__always) public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Nobody: the object is free.
  public static var nobody: BufferOwner { BufferOwner(rawValue: 0) }
  /// Never given out: buffers 0 and 1.
  public static var reserved: BufferOwner { BufferOwner(rawValue: 1) }
  /// This process's own stack, when the caller names nobody.
  public static var stack: BufferOwner { BufferOwner(rawValue: 2) }
}

/// What became of an object that was given back.
public enum FreeOutcome: Equatable, Sendable {
  case freed
  /// It was free already.
  case doubleFree
  /// No such object, or a reserved one.
  case foreign
  /// Somebody else holds it.
  case wrongOwner
}

/// A pool's figures.
public struct PoolStatistics: Equatable, Sendable {
  public let name: String
  /// Objects that can be given out (bytes, for descriptors).
  public let total: Int
  public let free: Int
  /// Requests that found too little.
  public var refused = 0
  public var doubleFrees = 0
  /// Frees of something that this pool never had.
  public var foreignFrees = 0
  /// Frees by somebody who did not hold it.
  public var wrongOwnerFrees = 0

  public var inUse: Int { total - free }
}

/// Free list and owners of `count` objects. Lives in private memory. The caller serialises.
@safe struct ObjectPool: ~Copyable {
  let name: String
  let count: Int
  /// Bytes an object.
  let objectSize: Int
  /// Indices below this are never given out.
  let reserved: Int
  /// One owner for each object. This is the truth; the stack only makes finding a free one quick.
  let owners: UnsafeMutablePointer<UInt32>
  private var stack: [UInt32]
  private var refused = 0
  private var doubleFrees = 0
  private var foreignFrees = 0
  private var wrongOwnerFrees = 0

  init(name: String, count: Int, objectSize: Int, reserved: Int = 0) {
    self.name = name
    self.count = count
    self.objectSize = objectSize
    self.reserved = reserved
    unsafe owners = .allocate(capacity: count)
    unsafe owners.initialize(repeating: BufferOwner.nobody.rawValue, count: count)
    for index in 0..<reserved { unsafe owners[index] = BufferOwner.reserved.rawValue }
    // The lowest index is on top.
    stack = (reserved..<count).reversed().map { UInt32($0) }
  }

  deinit { unsafe owners.deallocate() }

  var free: Int { stack.count }

  var statistics: PoolStatistics {
    PoolStatistics(
      name: name, total: count - reserved, free: free, refused: refused, doubleFrees: doubleFrees,
      foreignFrees: foreignFrees, wrongOwnerFrees: wrongOwnerFrees)
  }

  /// All or nothing.
  mutating func allocate(_ wanted: Int, owner: BufferOwner) throws(NetmapAllocatorError) -> [UInt32] {
    guard wanted >= 0, wanted <= stack.count, owner.rawValue > BufferOwner.reserved.rawValue else {
      refused += 1
      throw .exhausted(pool: name, wanted: wanted, free: stack.count)
    }
    let taken = Array(stack.suffix(wanted).reversed())
    stack.removeLast(wanted)
    // SAFETY: the stack holds indices below `count` only.
    for index in taken { unsafe rw_store_release32(owners + Int(index), owner.rawValue) }
    return taken
  }

  /// - Parameter owner: when given, only this owner's objects are taken back.
  mutating func release(_ index: UInt32, owner: BufferOwner?) -> FreeOutcome {
    guard index >= reserved, index < count else {
      foreignFrees += 1
      return .foreign
    }
    // SAFETY: index < count.
    let entry = unsafe owners + Int(index)
    let held = unsafe rw_load_acquire32(entry)
    if held == BufferOwner.nobody.rawValue {
      doubleFrees += 1
      return .doubleFree
    }
    // The packet path may hand the object on at the same time: then it is no longer ours to free.
    let wanted = owner?.rawValue ?? held
    guard wanted == held, unsafe rw_compare_and_swap32(entry, held, BufferOwner.nobody.rawValue) != 0 else {
      wrongOwnerFrees += 1
      return .wrongOwner
    }
    stack.append(index)
    return .freed
  }

  /// Takes back everything that one owner holds. Returns how many.
  mutating func reclaim(_ owner: BufferOwner) -> Int {
    guard owner.rawValue > BufferOwner.reserved.rawValue else { return 0 }
    var taken = 0
    for index in reserved..<count {
      // SAFETY: index < count. Whoever got the object by `transfer` meanwhile keeps it.
      guard unsafe rw_compare_and_swap32(owners + index, owner.rawValue, BufferOwner.nobody.rawValue) != 0 else { continue }
      stack.append(UInt32(index))
      taken += 1
    }
    return taken
  }

  /// How many each owner holds.
  func holdings() -> [BufferOwner: Int] {
    var held: [BufferOwner: Int] = [:]
    for index in reserved..<count {
      // SAFETY: index < count.
      let owner = BufferOwner(rawValue: unsafe rw_load_acquire32(owners + index))
      if owner != .nobody { held[owner, default: 0] += 1 }
    }
    return held
  }
}
