// The ARP cache: entries with their states, on worker 0.
//
//     incomplete ── answer ──> reachable ── max_age near, in use ──> probing ── answer ──> reachable
//         │ maxtries without                                            │ max_age
//         └──> down ── wait ──> gone                                    └──> gone
//     permanent: by hand; published: answered for

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Synchronization
public import Wire

/// A line of the cache, for `ringway arp`.
public struct ARPEntry: Equatable, Sendable {
  public var address: IPv4Address
  /// nil: not known (yet).
  public var station: MACAddress?
  public var interface: String
  /// Seconds until it goes; nil: permanent.
  public var expires: Int?
  public var isPublished: Bool
  public var state: String
}

/// What the owner keeps. Touched by worker 0; what others read is atomic or locked.
final class ARPOwner: Sendable {
  enum Phase { case incomplete, reachable, probing, down, permanent }
  struct Entry {
    var phase: Phase
    var station: UInt64
    /// Second at which it goes, or is asked for again.
    var expires: UInt32
    var tries = 0
    var isPublished = false
  }
  struct Probe {
    var sent: Int
    var next: UInt32
  }
  struct State {
    var entries: [UInt64: Entry] = [:]
    var probes: [UInt64: Probe] = [:]
    var announcements: [UInt64: (left: Int, next: UInt32)] = [:]
    var defended: [UInt64: UInt32] = [:]
  }
  let state = Guarded(State())
  /// Seconds since the start: workers compare it with what their tables say.
  private let clock = Atomic<UInt32>(1)
  private let probing = Atomic<Int>(0)
  private let published = Atomic<Int>(0)

  @inline(__always) var second: UInt32 { clock.load(ordering: .relaxed) }
  func tick() -> UInt32 { clock.wrappingAdd(1, ordering: .relaxed).newValue }

  func isProbing(_ interface: InterfaceIndex, _ address: IPv4Address) -> Bool {
    guard probing.load(ordering: .relaxed) > 0 else { return false }
    return state.withLock { $0.probes[NeighbourTable.key(interface, address)] != nil }
  }
  func change<R>(_ body: (inout State) -> R) -> R {
    state.withLock { state in
      defer {
        probing.store(state.probes.count, ordering: .relaxed)
        published.store(state.entries.count { $0.value.isPublished }, ordering: .relaxed)
      }
      return body(&state)
    }
  }
  var hasPublished: Bool { published.load(ordering: .relaxed) > 0 }
}

extension Inet {
  /// Seconds before the end of an entry's life at which a worker that uses it asks for it again.
  private var refreshLead: Int { min(10, settings.arpMaxAge.value / 2) }

  /// A worker holds a packet for a neighbour. On worker 0.
  func arpResolve(_ key: UInt64) {
    let now = arp.second
    let known = arp.change { state -> ARPOwner.Entry? in
      if let entry = state.entries[key], entry.station != 0 || entry.phase == .incomplete { return entry }
      if state.entries.count >= settings.arpMaxEntries.value {
        guard let victim = state.entries.first(where: { $0.value.phase != .permanent })?.key else { return nil }
        state.entries[victim] = nil
      }
      state.entries[key] = ARPOwner.Entry(phase: .incomplete, station: 0, expires: now, tries: 1)
      return nil
    }
    guard let known else { return arpAsk(key, to: nil) }
    if known.station != 0 { arpPublish(key, known) }
  }

  /// Tells every worker an entry.
  private func arpPublish(_ key: UInt64, _ entry: ARPOwner.Entry) {
    let until =
      entry.phase == .permanent
      ? UInt32.max : entry.station == 0 ? entry.expires : entry.expires &- UInt32(min(refreshLead, Int(entry.expires)))
    let station = entry.station
    onEveryWorker { $0.neighbourChanged(key, station: station, until: until) }
  }

  private func arpAsk(_ key: UInt64, to station: MACAddress?) {
    let (index, address) = (NeighbourTable.interface(key), NeighbourTable.address(key))
    guard let interface = table.interface(index), let port = unsafe local.pointee.port(index) else { return }
    let sender = unsafe IPv4Address(rawValue: port.pointee.source(towards: address))
    sendARP(ARPMessage.request, from: sender, to: address, hardware: station, on: interface)
  }

  /// A worker uses an entry that is near its end.
  func arpRefresh(_ key: UInt64) {
    let station = arp.change { state -> UInt64 in
      guard var entry = state.entries[key], entry.phase == .reachable else { return 0 }
      entry.phase = .probing
      entry.tries = 1
      state.entries[key] = entry
      return entry.station
    }
    if station != 0 { arpAsk(key, to: MACAddress(rawValue: station)) }
  }

  /// Somebody has said where an address is.
  func arpLearn(_ key: UInt64, _ station: MACAddress, mayCreate: Bool) {
    let expires = arp.second &+ UInt32(settings.arpMaxAge.value)
    let result = arp.change { state -> (ARPOwner.Entry, UInt64)? in
      let old = state.entries[key]
      guard old?.phase != .permanent, old != nil || mayCreate && state.entries.count < settings.arpMaxEntries.value else { return nil }
      let new = ARPOwner.Entry(phase: .reachable, station: station.rawValue, expires: expires)
      state.entries[key] = new
      return (new, old?.station ?? 0)
    }
    guard let (entry, former) = result else { return }
    arpPublish(key, entry)
    let (address, index) = (NeighbourTable.address(key), NeighbourTable.interface(key))
    if former == 0 {
      announce(.resolved(address, station, interface: index))
    } else if former != station.rawValue {
      announce(.moved(address, from: MACAddress(rawValue: former), to: station, interface: index))
    }
  }

  /// Once a second, on worker 0.
  func arpTick() {
    let now = arp.tick()
    var ask: [(UInt64, UInt64)] = []
    var failed: [(UInt64, ARPOwner.Entry)] = []
    var gone: [(UInt64, Bool)] = []
    let (tries, wait) = (settings.arpMaxTries.value, UInt32(settings.arpWait.value))
    arp.change { state in
      for (key, old) in state.entries {
        var entry = old
        switch entry.phase {
        case .incomplete where entry.tries >= tries && now > entry.expires:
          entry.phase = .down
          entry.expires = now &+ wait
          failed.append((key, entry))
        case .incomplete where now > entry.expires:
          entry.tries += 1
          entry.expires = now
          ask.append((key, 0))
        case .probing where now < entry.expires && entry.tries < tries:
          entry.tries += 1
          ask.append((key, entry.station))
        case .reachable where now >= entry.expires, .probing where now >= entry.expires, .down where now >= entry.expires:
          gone.append((key, entry.phase != .down))
          state.entries[key] = nil
          continue
        default: continue
        }
        state.entries[key] = entry
      }
    }
    for (key, station) in ask { arpAsk(key, to: station == 0 ? nil : MACAddress(rawValue: station)) }
    for (key, entry) in failed {
      unsafe my.pointee.counters.add(.arpTimeouts)
      arpPublish(key, entry)
      announce(.unresolved(NeighbourTable.address(key), interface: NeighbourTable.interface(key)))
    }
    for (key, wasKnown) in gone {
      onEveryWorker { $0.neighbourRemoved(key) }
      guard wasKnown else { continue }
      announce(.expired(NeighbourTable.address(key), interface: NeighbourTable.interface(key)))
    }
    arpAnnounceTick(now)
  }

  /// Forgets every neighbour on an interface, permanent ones too. On worker 0.
  func arpPurge(_ interface: InterfaceIndex) {
    let keys = arp.change { state -> [UInt64] in
      let keys = state.entries.keys.filter { NeighbourTable.interface($0) == interface }
      for key in keys { state.entries[key] = nil }
      state.probes = state.probes.filter { NeighbourTable.interface($0.key) != interface }
      state.announcements = state.announcements.filter { NeighbourTable.interface($0.key) != interface }
      state.defended = state.defended.filter { NeighbourTable.interface($0.key) != interface }
      return Array(keys)
    }
    guard !keys.isEmpty else { return }
    onEveryWorker { inet in for key in keys { inet.neighbourRemoved(key) } }
  }

  /// An entry by hand was made or changed.
  func arpSet(_ key: UInt64, _ entry: ARPOwner.Entry) {
    arp.change { $0.entries[key] = entry }
    arpPublish(key, entry)
  }
}
