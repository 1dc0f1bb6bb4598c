// Everything at once, under threads: for the thread sanitizer, and for what is left when it is over.

import Ifnet
import Netisr
import Platform
import Synchronization
import Testing
import Wire

/// Numbers that repeat.
private struct Dice {
  var state: UInt64
  mutating func roll(_ sides: Int) -> Int {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return Int(truncatingIfNeeded: state >> 33) % sides
  }
}

@Suite struct StressTests {
  @Test(arguments: [1, 3])
  func everythingAtOnce(workers: Int) throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = workers
    configuration.cpus = Array(repeating: try CPUList.allowed().cpus[0], count: workers)
    let netisr = try Netisr(configuration)
    let table = InterfaceTable(netisr)
    table.setLink(PairingLink(), for: .ethernet)
    let family = NotingDomain(.ipv4)
    table.register(family)
    let seen = Atomic(0), looked = Atomic(0), stale = Atomic(0)
    let token = table.subscribe { _, _ in seen.wrappingAdd(1, ordering: .relaxed) }
    let (stream, streamToken) = table.eventStream(capacity: 64)
    try netisr.start()
    let stop = Atomic(false)
    // Looks on every worker, again and again, while the rest goes on.
    @Sendable func look(_ worker: Worker, _ round: Int) {
      for interface in table.interfaces {
        let found = table.interface(interface.index)
        if found != nil, found !== interface { stale.wrappingAdd(1, ordering: .relaxed) }
        for entry in interface.addresses {
          if case .ipv4(let address) = entry.address { _ = table.localAddress(address) }
        }
        interface.count(.collisions)
        if round % 8 == 0 { interface.setLink(round % 16 == 0 ? .up : .down) }
      }
      looked.wrappingAdd(1, ordering: .relaxed)
      if !stop.load(ordering: .relaxed) { worker.schedule(after: 1_000_000) { look(worker, round + 1) } }
    }
    for worker in netisr.workers { worker.post { look(worker, 0) } }
    do {
      let threads = try (0..<3).map { n in try Mutator(table, seed: n) }
      for thread in threads { thread.join() }
    }
    for interface in table.interfaces { table.detach(interface) }
    stop.store(true, ordering: .relaxed)
    netisr.barrier()
    #expect(table.interfaces.isEmpty && table.groupNames.isEmpty)
    #expect(stale.load(ordering: .relaxed) == 0)
    #expect(looked.load(ordering: .relaxed) >= workers)
    #expect(seen.load(ordering: .relaxed) > 0)
    _ = stream.take()
    token.cancel()
    streamToken.cancel()
    netisr.stop()
    // The next one starts where the first did: nothing holds an index.
    #expect(try table.attach(InterfaceOptions("em0"), driver: NotingDriver()).index.index == 1)
  }

  /// A thread that attaches, detaches, renames, and changes what interfaces have.
  final class Mutator: Sendable {
    private let thread: Guarded<JoinedThread?>

    init(_ table: InterfaceTable, seed: Int) throws {
      thread = Guarded(try JoinedThread(name: "mutator \(seed)") { Self.run(table, seed) })
    }
    func join() {
      let taken = thread.withLock { $0.take() }
      taken?.join()
    }

    static func run(_ table: InterfaceTable, _ seed: Int) {
      var dice = Dice(state: UInt64(seed) * 7919 + 1)
      var mine: [Interface] = []
      for round in 0..<80 {
        // Refusals are part of the game: an interface may be down, or a name taken.
        if mine.count < 3 || dice.roll(8) == 0, mine.count < 8 {
          var options = InterfaceOptions("s\(seed)x\(round)a")
          options.linkAddress = MACAddress(2, 0, UInt8(seed), 0, UInt8(round), 1)
          options.queueLength = 50
          if let made = try? table.attach(options, driver: NotingDriver()) { mine.append(made) }
        }
        guard !mine.isEmpty else { continue }
        let at = dice.roll(mine.count)
        act(dice.roll(11), on: mine[at], table, UInt8(truncatingIfNeeded: round))
        if dice.roll(7) == 0 { table.detach(mine.remove(at: at)) }
      }
    }

    static func act(_ what: Int, on interface: Interface, _ table: InterfaceTable, _ n: UInt8) {
      let address = SocketAddress.ipv4(IPv4Address(198, 18, n, 1))
      switch what {
      case 0: _ = try? table.perform(.on(interface.name, .rename("\(interface.name.prefix(10))r")), by: .system)
      case 1: _ = try? table.perform(.on(interface.name, .addAddress(address, prefixLength: 24, broadcast: nil, destination: nil)), by: .system)
      case 2: if let last = interface.addresses.last, last.address.family == .ipv4 { interface.remove(last) }
      case 3: try? interface.bringUp()
      case 4: try? interface.takeDown()
      case 5:
        interface.watchdog.timer = 1
        interface.watchdog.stop()
        interface.watchdog.start()
      case 6: try? interface.join(group: n % 2 == 0 ? "even" : "odd")
      case 7: try? interface.leave(group: n % 2 == 0 ? "even" : "odd")
      case 8: try? interface.addMulticast(.ipv4(IPv4Address(224, 1, 1, n % 4)))
      case 9: try? interface.setLinkAddress([2, 0, 0, 1, 1, n])
      default: _ = try? table.perform(.configuration(room: 4096), by: .system)
      }
    }
  }
}
