// `ringway netmap`: what the daemon offers to netmap programs, and its switches.

import ArgumentParser
import Control
import ControlClient
import Ringway

struct Netmap: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show netmap's ports, programs and memory, and change its switches.",
    discussion: """
      Programs reach the daemon's netmap with LD_PRELOAD=libringway-netmap.so, or through NetmapClient. The switch \
      commands need the daemon's netmap socket (RINGWAY_NETMAP_SOCKET).
      """,
    subcommands: [NetmapShow.self, NetmapAttach.self, NetmapDetach.self, NetmapCreate.self, NetmapDestroy.self],
    defaultSubcommand: NetmapShow.self)
}

struct NetmapShow: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "Ports with their rings, programs, memory.")
  @Flag(name: .shortAndLong, help: "Each ring, with what it counted.")
  var rings = false
  @OptionGroup var daemon: DaemonArguments

  func run() throws {
    let record = try daemon.connect().call(NetmapListRequest())
    daemon.json ? try printJSON(record) : print(NetmapText.lines(record, rings: rings).joined(separator: "\n"))
  }
}

struct NetmapAttach: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "attach", abstract: "Attach an interface to a switch.")
  @Argument(help: "The switch and the interface: vale0:ix0.") var port: String
  @Flag(help: "Its host rings too: the stack becomes a port of the switch.") var host = false
  func run() throws { try NetmapControl().attach(port, host: host) }
}

struct NetmapDetach: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "detach", abstract: "Take an interface from its switch.")
  @Argument(help: "The switch and the interface: vale0:ix0.") var port: String
  func run() throws { try NetmapControl().detach(port) }
}

struct NetmapCreate: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "create", abstract: "Make a persistent port.")
  @Argument(help: "Its name: v0.") var name: String
  @Option(help: ArgumentHelp("Ring pairs (default: 1).", valueName: "count")) var rings = 0
  @Option(help: ArgumentHelp("Slots of each ring (default: 1024).", valueName: "count")) var slots = 0
  func validate() throws {
    guard (0...64).contains(rings) else { throw ValidationError("--rings takes 1 to 64.") }
    guard (0...65536).contains(slots) else { throw ValidationError("--slots takes 2 to 65536.") }
  }
  func run() throws { try NetmapControl().create(name, rings: rings, slots: slots) }
}

struct NetmapDestroy: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "destroy", abstract: "Remove a persistent port.")
  @Argument(help: "Its name: v0.") var name: String
  func run() throws { try NetmapControl().destroy(name) }
}

/// Tables for people.
enum NetmapText {
  static func lines(_ record: NetmapRecord, rings: Bool) -> [String] {
    var lines = ["socket \(record.socket)", "", "Ports:"]
    if record.ports.isEmpty { lines.append("none is open") } else { lines += ports(record) }
    if rings { lines += ["", "Rings:"] + self.rings(record) }
    lines += ["", "Programs:"]
    if record.sessions.isEmpty { lines.append("none") } else { lines += sessions(record) }
    lines += ["", "Memory:"] + regions(record)
    let counters = record.counters.filter { $0.value > 0 }.map { "\($0.name) \($0.value)" }
    if !counters.isEmpty { lines += ["", counters.joined(separator: ", ")] }
    return lines
  }

  private static func ports(_ record: NetmapRecord) -> [String] {
    var table = TextTable(["Port", "Kind", "Memory", "Users", "Tx", "Rx", "Sent", "Received", "Drops", "Resets"], sides: [.left, .left, .right])
    for port in record.ports {
      let sent = port.rings.filter { $0.direction == "tx" }, received = port.rings.filter { $0.direction != "tx" }
      table.append([
        port.name, port.kind, "\(port.region)", "\(port.users)", "\(sent.count)", "\(received.count)",
        "\(sum(sent, \.packets))", "\(sum(received, \.packets))", "\(sum(port.rings, \.drops))", "\(sum(port.rings, \.resets))",
      ])
    }
    return table.lines
  }

  private static func sum(_ rings: [NetmapRecord.Ring], _ key: KeyPath<NetmapRecord.Ring, UInt64>) -> UInt64 {
    rings.reduce(0) { $0 &+ $1[keyPath: key] }
  }

  private static func rings(_ record: NetmapRecord) -> [String] {
    var table = TextTable(
      ["Port", "Ring", "Slots", "Packets", "Bytes", "Syncs", "Drops", "Resets", "Indexes", "Lengths"], sides: [.left, .left, .right])
    for port in record.ports {
      for ring in port.rings {
        table.append(
          [port.name, "\(ring.isHost ? "host " : "")\(ring.direction) \(ring.index)"]
            + [UInt64(ring.slots), ring.packets, ring.bytes, ring.syncs, ring.drops, ring.resets, ring.badIndexes, ring.badLengths].map(String.init))
      }
    }
    return table.lines
  }

  private static func sessions(_ record: NetmapRecord) -> [String] {
    var table = TextTable(
      ["Pid", "Program", "Uid", "Port", "Rings", "Age", "Syncs", "Wakeups", "Doorbells"], sides: [.right, .left, .right, .left, .right])
    for session in record.sessions {
      table.append([
        "\(session.pid)", session.comm.isEmpty ? "-" : session.comm, "\(session.uid)", session.port ?? "-", "\(session.rings)",
        Figure.seconds(session.age), "\(session.syncs)", "\(session.wakeups)", "\(session.doorbells)",
      ])
    }
    return table.lines
  }

  private static func regions(_ record: NetmapRecord) -> [String] {
    guard !record.regions.isEmpty else { return ["none yet: it is made for the first port"] }
    var table = TextTable(["Id", "Kind", "Name", "Ports", "Buffers", "Free", "Size", "Bytes"], sides: [.right, .left, .left, .right])
    for region in record.regions {
      table.append([
        "\(region.id)", region.kind, region.name, "\(region.users)", "\(region.buffers)", "\(region.free)", "\(region.bufferSize)",
        "\(region.bytes)",
      ])
    }
    return table.lines
  }
}
