// Pipes by name.

public import NetmapAPI
internal import NetmapCore
internal import Platform

/// Knows pipes: `base{id` and `base}id`.
public final class PipeProvider: NetmapPortProvider {
  /// Most rings of a direction, and most slots of a ring (netmap's limits).
  public static let mostRings = 256, mostSlots = 4096
  /// Slots of a ring when nobody says how many, and the base is no port.
  public static let defaultSlots = 1024

  private struct Weak: Sendable { weak var pair: PipePair? }
  private let pairs = Guarded<[String: Weak]>([:])

  public init() {}

  public func adapter(
    for request: PortRequest, in system: NetmapSystem, create: Bool
  ) throws(NetmapError) -> (any NetmapAdapter)? {
    guard let name = try PipeName(request.name) else { return nil }
    if let found = pairs.withLock({ $0[name.key]?.pair }) { return try found.end(isFirst: name.isFirst) }
    guard create else { throw NetmapError(.ENXIO, "\(request.name): neither end of this pipe is open") }
    let pair = make(name, request.register, parent: try parent(name.base, in: system))
    pairs.withLock { all in
      all = all.filter { $0.value.pair != nil }
      all[name.key] = Weak(pair: pair)
    }
    return try pair.end(isFirst: name.isFirst)
  }

  /// The port whose memory the pipe shares; nil when no port or interface has the name.
  private func parent(_ base: String, in system: NetmapSystem) throws(NetmapError) -> (any NetmapAdapter)? {
    do { return try system.adapter(for: PortRequest(base, RingSelection(.allNIC)), create: true) } catch {
      guard error.code == .ENXIO else { throw error }
      return nil
    }
  }

  /// Rings and slots are those of the end that is opened first; the other end has them the other way round.
  private func make(_ name: PipeName, _ asked: RegisterRequest, parent: (any NetmapAdapter)?) -> PipePair {
    func rings(_ n: UInt16) -> Int { min(max(1, Int(n)), Self.mostRings) }
    func slots(_ n: UInt32, _ direction: RingDirection) -> Int {
      let wanted = n > 0 ? Int(n) : parent?.slots(direction, host: false) ?? Self.defaultSlots
      return min(max(2, wanted), Self.mostSlots)
    }
    let sent = (rings(asked.transmitRings), slots(asked.transmitSlots, .transmit))
    let received = (rings(asked.receiveRings), slots(asked.receiveSlots, .receive))
    let (forth, back) = name.isFirst ? (sent, received) : (received, sent)
    return PipePair(
      base: name.base, id: name.id, parent: parent, rings: (forth.0, back.0), slots: (forth.1, back.1),
      sibling: { [weak self] pair in self?.region(for: pair) })
  }

  /// A region of the pipes of a base that stands for nothing else, with room for both ends of one more; nil when there is
  /// none. On worker 0.
  private func region(for pair: PipePair) -> NetmapRegion? {
    let all = pairs.withLock { $0.values.compactMap(\.pair) }
    let rings = 2 * (pair.rings.forth + pair.rings.back)
    let buffers = 2 * (pair.rings.forth * pair.slots.forth + pair.rings.back * pair.slots.back)
    for other in all where other.base == pair.base && other.parent == nil {
      guard let region = other.region else { continue }
      let free = region.allocator.statistics
      if free[0].free >= 2, free[1].free >= rings, free[2].free >= buffers { return region }
    }
    return nil
  }
}

/// `base{id`: the first end of a pipe (netmap's master); `base}id`: the second.
struct PipeName: Equatable {
  let base: String, id: String, isFirst: Bool
  var key: String { "\(base){\(id)" }

  /// nil for a name that is no pipe's.
  /// - Throws: EINVAL for one that looks like a pipe's and cannot be.
  init?(_ name: String) throws(NetmapError) {
    guard let at = name.firstIndex(where: { $0 == "{" || $0 == "}" }) else { return nil }
    base = String(name[..<at])
    id = String(name[name.index(after: at)...])
    isFirst = name[at] == "{"
    let isPlain = id.utf8.allSatisfy { (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 95 }
    guard !base.isEmpty, !id.isEmpty, isPlain else {
      throw NetmapError(.EINVAL, "\(name): a pipe's end is `base{id` or `base}id`, with letters, digits or _ as its id")
    }
  }
}
