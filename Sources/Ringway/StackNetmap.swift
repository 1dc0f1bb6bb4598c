// netmap in a stack: memory of its own, ports by name, settings.

internal import Attach
internal import DMAMemory
internal import Ifnet
public import NetmapCore
internal import NetmapPorts
internal import Netisr
internal import Platform

/// Memory and limits of netmap programs. Pages come from where the stack's do (`MemoryOptions`).
public struct NetmapOptions: Sendable, Equatable {
  /// Pools of the region that programs share; its memory is taken when the first program registers.
  public var sizes = PoolSizes()
  /// Of private regions: the least that they have.
  public var privateSizes = NetmapMemoryOptions().privateSizes
  /// Private regions at a time, and their bytes.
  public var mostRegions = 256
  public var mostBytes = 4 << 30

  public init() {}
}

/// The cards that a stack has open: what a new region must be reachable for.
final class OpenCards: Sendable {
  /// SAFETY of the conformance: a mapper's ranges are constants, and its calls are made under the allocator's lock.
  private struct Card: @unchecked Sendable { let mapper: any DMAMapper }
  private let cards = Guarded<[Card]>([])

  func add(_ mapper: any DMAMapper) {
    let card = Card(mapper: mapper)
    cards.withLock { cards in if !cards.contains(where: { $0.mapper === card.mapper }) { cards.append(card) } }
  }
  func remove(_ id: ObjectIdentifier) { cards.withLock { $0.removeAll { ObjectIdentifier($0.mapper) == id } } }
  var mappers: [any DMAMapper] { cards.withLock { $0 }.map(\.mapper) }
}

extension Stack {
  static func makeNetmap(
    _ options: StackOptions, _ netisr: Netisr, _ interfaces: InterfaceTable, space: IOVAAllocator, _ cards: OpenCards
  ) -> (NetmapSystem, NetmapSettings) {
    var regions = NetmapMemoryOptions()
    regions.sizes = options.netmap.sizes
    regions.backing = options.memory.backing
    regions.node = options.memory.node
    regions.privateSizes = options.netmap.privateSizes
    regions.mostRegions = options.netmap.mostRegions
    regions.mostBytes = options.netmap.mostBytes
    let settings = NetmapSettings()
    let system = NetmapSystem(
      netisr, memory: NetmapMemory(regions, space: space, reachable: { cards.mappers }), settings: settings.rings)
    // What a request asks for by mode or flags holds for every name; a switch's port is no interface's.
    system.addSoftwarePorts()
    // The client library copies what slots marked INDIRECT point to: nobody else can reach a program's memory.
    var switches = ValeOptions()
    switches.takesIndirect = true
    system.add(ValePorts(netisr, options: switches))
    system.add(CardPorts(interfaces, settings: settings))
    addControls(netisr, system, settings)
    return (system, settings)
  }

  private static func addControls(_ netisr: Netisr, _ system: NetmapSystem, _ settings: NetmapSettings) {
    func flag(_ name: String, _ summary: String, _ get: @escaping @Sendable () -> Int, _ most: Int, _ set: @escaping @Sendable (Int) -> Void) {
      netisr.sysctl.add("netmap." + name, summary, read: { .integer(Int64(get())) }) { text throws(SysctlError) in
        guard let value = Int(text), (0...most).contains(value) else {
          throw .invalid(name: "netmap." + name, value: String(text.prefix(64)), allowed: "0 to \(most)")
        }
        set(value)
      }
    }
    flag("verbose", "1 logs ports that are opened and closed", { settings.verbose }, 1) { settings.verbose = $0 }
    flag("no_timestamp", "1 gives receive rings a time only when their flag asks for it", { settings.noTimestamp ? 1 : 0 }, 1) {
      settings.noTimestamp = $0 != 0
    }
    flag("mitigate", "1 keeps a queue's interrupt away from a program's waking to its next sync", { settings.mitigate ? 1 : 0 }, 1) {
      settings.mitigate = $0 != 0
    }
    flag("no_pendintr", "1 has every receive sync look at the card, 0 only its interrupts", { settings.noPendingInterrupt ? 1 : 0 }, 1) {
      settings.noPendingInterrupt = $0 != 0
    }
    let memory = system.memory
    netisr.sysctl.add("netmap.buf_size", "Bytes of a buffer in the global region", read: { .integer(Int64(memory.options.sizes.bufferSize)) })
    netisr.sysctl.add("netmap.total_buffers", "Buffers of the global region", read: { .integer(Int64(Self.buffers(memory).total)) })
    netisr.sysctl.add("netmap.free_buffers", "Buffers of the global region that nobody holds", read: { .integer(Int64(Self.buffers(memory).free)) })
  }

  /// Of the global region; what it would have, as long as no program has asked for it.
  private static func buffers(_ memory: NetmapMemory) -> (total: Int, free: Int) {
    guard let pool = memory.regions.first(where: { $0.kind == .global })?.allocator.statistics[2] else {
      let wanted = memory.options.sizes.buffers - 2
      return (wanted, wanted)
    }
    return (pool.total, pool.free)
  }
}
