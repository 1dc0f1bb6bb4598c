// What the pools have to tell: figures at any time, and at the end what was not given back.

/// What was still given out.
public struct LeakReport: Equatable, Sendable, CustomStringConvertible {
  public struct Leak: Equatable, Sendable {
    /// "buffer", "ring", "interface", "descriptor".
    public let pool: String
    /// Whose.
    public let owner: String
    /// Objects; bytes, for descriptors.
    public let count: Int
  }

  public let leaks: [Leak]
  public var isEmpty: Bool { leaks.isEmpty }

  /// "not given back: 3 of pool buffer by netmap:em0, …"
  public var description: String {
    guard !isEmpty else { return "everything was given back" }
    return "not given back: " + leaks.map { "\($0.count) of pool \($0.pool) by \($0.owner)" }.joined(separator: ", ")
  }
}

extension NetmapAllocator {
  /// Figures of the interface, ring, buffer and descriptor pools, in this order.
  public var statistics: [PoolStatistics] {
    locked { [interfacePool.statistics, ringPool.statistics, bufferPool.statistics, descriptorPool.statistics] }
  }

  /// What is given out at present. When all ports are closed, it should be empty.
  public func leakReport() -> LeakReport { locked { unlockedLeakReport() } }

  func unlockedLeakReport() -> LeakReport {
    var leaks: [LeakReport.Leak] = []
    func add(_ pool: String, _ held: [BufferOwner: Int]) {
      for (owner, count) in held.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
        leaks.append(LeakReport.Leak(pool: pool, owner: name(of: owner), count: count))
      }
    }
    add("interface", interfacePool.holdings())
    add("ring", ringPool.holdings())
    add("buffer", bufferPool.holdings())
    let bytes = descriptorPool.total - descriptorPool.free
    if bytes > 0 { leaks.append(LeakReport.Leak(pool: "descriptor", owner: "cards", count: bytes)) }
    return LeakReport(leaks: leaks)
  }

  private func name(of owner: BufferOwner) -> String {
    ownerNames[owner] ?? (owner == .stack ? "the stack" : "owner \(owner.rawValue)")
  }

  /// Runs `body` with the lock held.
  func locked<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    lock.lock()
    defer { lock.unlock() }
    return try body()
  }
}
