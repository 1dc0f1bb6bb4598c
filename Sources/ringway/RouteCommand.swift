// `ringway route` and `ringway arp`, `ringway ndp`: routes and neighbours.

import ArgumentParser
import Control
import Ringway

struct RouteCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "route", abstract: "Show and change the daemon's routes.",
    subcommands: [Show.self, Add.self, Change.self, Delete.self, Get.self, Flush.self], defaultSubcommand: Show.self)

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List all routes.")
    @Option(name: .customShort("f"), help: ArgumentHelp("inet or inet6 only.", valueName: "family")) var family: String?
    @OptionGroup var daemon: DaemonArguments
    func run() throws {
      let list = try daemon.connect().call(RouteList(family: family))
      daemon.json ? try printJSON(list) : print(RouteText.text(list))
    }
  }

  /// What `add` and `change` take.
  struct Target: ParsableArguments {
    @Argument(help: "A network (198.19.0.0/16, 2001:2:0:9::/64), a host, or default.") var destination: String
    @Argument(help: "The gateway's address.") var gateway: String?
    @Option(name: [.customLong("interface"), .customShort("i")], help: "On the link of this interface, or the interface of a link-local gateway.")
    var interface: String?
    @Option(help: ArgumentHelp("Bytes.", valueName: "bytes")) var mtu: Int?
    @Flag(help: "Answer with ICMP unreachable.") var reject = false
    @Flag(help: "Drop without a word.") var blackhole = false
    func validate() throws {
      if gateway == nil && interface == nil && !reject && !blackhole { throw ValidationError("Name a gateway, --interface, --reject or --blackhole.") }
    }
    var target: RouteTarget {
      var target = RouteTarget(destination, gateway: gateway, interface: interface, mtu: mtu)
      target.reject = reject ? true : nil
      target.blackhole = blackhole ? true : nil
      return target
    }
  }

  struct Add: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Add a route.")
    @OptionGroup var target: Target
    @OptionGroup var daemon: DaemonArguments
    func run() throws { try RouteCommand.told("add", daemon.connect().call(RouteAdd(target.target)), daemon) }
  }

  struct Change: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Replace a route.")
    @OptionGroup var target: Target
    @OptionGroup var daemon: DaemonArguments
    func run() throws { try RouteCommand.told("change", daemon.connect().call(RouteChange(target.target)), daemon) }
  }

  struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take a route away.", aliases: ["del"])
    @Argument(help: "The network, the host, or default.") var destination: String
    @OptionGroup var daemon: DaemonArguments
    func run() throws { try RouteCommand.told("delete", daemon.connect().call(RouteDelete(destination)), daemon) }
  }

  struct Get: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show which route a packet takes.")
    @Argument(help: "Where to.") var address: String
    @OptionGroup var daemon: DaemonArguments
    func run() throws {
      let route = try daemon.connect().call(RouteGet(address))
      if daemon.json { return try printJSON(route) }
      print("   route to: \(address)\ndestination: \(CommandPrefix.short(route.prefix))")
      if let gateway = route.gateway { print("    gateway: \(gateway)") }
      print("  interface: \(route.interface ?? "-")\n      flags: \(route.flags)")
      if let mtu = route.mtu { print("        mtu: \(mtu)") }
    }
  }

  struct Flush: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take away every route with a gateway.")
    @Option(name: .customShort("f"), help: ArgumentHelp("inet or inet6 only.", valueName: "family")) var family: String?
    @OptionGroup var daemon: DaemonArguments
    func run() throws {
      let reply = try daemon.connect().call(RouteFlush(family: family))
      daemon.json ? try printJSON(reply) : print("\(reply.count) routes taken away")
    }
  }

  static func told(_ verb: String, _ route: RouteRecord, _ daemon: DaemonArguments) throws {
    if daemon.json { return try printJSON(route) }
    print("\(verb) \(CommandPrefix.short(route.prefix))\(route.gateway.map { " gateway \($0)" } ?? "")")
  }
}

/// What `arp` and `ndp` share.
protocol NeighbourCommand: ParsableCommand {
  static var family: String { get }
}

extension NeighbourCommand {
  static func text(_ list: [NeighbourRecord]) -> String {
    list.map { entry in
      var line = "? (\(entry.address)) at \(entry.ether ?? "(incomplete)") on \(entry.interface)"
      if entry.state == "permanent" { line += " permanent" } else if let seconds = entry.expires {
        line += " expires in \(Int(max(0, seconds))) seconds"
      }
      if family == "inet6" || !["permanent", "reachable"].contains(entry.state) { line += " \(entry.state)" }
      if entry.isRouter == true { line += " router" }
      if entry.published == true { line += " published" }
      return line + " [ethernet]"
    }.joined(separator: "\n")
  }
}

/// Options of both, in their BSD form.
struct NeighbourArguments: ParsableArguments {
  @Flag(name: .customShort("a"), help: "List all entries (the default).") var all = false
  @Flag(name: .customShort("n"), help: "Numbers instead of names (always so).") var numeric = false
  @Option(name: .customShort("i"), help: ArgumentHelp("This interface only.", valueName: "interface")) var interface: String?
  @Flag(name: .customShort("d"), help: "Delete the entry of ADDRESS; with -a, forget all that was learned.") var delete = false
  @Flag(name: .customShort("s"), help: "Set ADDRESS to MAC for good.") var set = false
  @Argument(help: "ADDRESS, and MAC with -s.") var words: [String] = []

  func validate() throws {
    if set && words.count != 2 { throw ValidationError("-s wants an address and a MAC address.") }
    if delete && !all && words.count != 1 { throw ValidationError("-d wants an address, or -a.") }
    if !set && !delete && words.count > 1 { throw ValidationError("One address at a time.") }
  }

  func run(_ family: String, _ daemon: DaemonArguments, text: ([NeighbourRecord]) -> String) throws {
    let client = try daemon.connect()
    if set {
      let entry = try client.call(NeighbourSet(address: words[0], ether: words[1], interface: interface))
      daemon.json ? try printJSON(entry) : print(text([entry]))
    } else if delete && all {
      let reply = try client.call(NeighbourFlush(family: family, interface: interface))
      daemon.json ? try printJSON(reply) : print("\(reply.count) entries forgotten")
    } else if delete {
      _ = try client.call(NeighbourDelete(address: words[0], interface: interface))
      if !daemon.json { print("\(words[0]) deleted") }
    } else {
      var list = try client.call(NeighbourList(family: family, interface: interface))
      if let only = words.first {
        list.removeAll { $0.address != only }
        if list.isEmpty { throw Failure(.failure, "\(only) is not known", hint: "`ringway arp -a` and `ringway ndp -a` list what is") }
      }
      daemon.json ? try printJSON(list) : print(list.isEmpty ? "No entries." : text(list))
    }
  }
}

struct ArpCommand: NeighbourCommand {
  static let family = "inet"
  static let configuration = CommandConfiguration(commandName: "arp", abstract: "Show and change what ARP knows.")
  @OptionGroup var neighbour: NeighbourArguments
  @OptionGroup var daemon: DaemonArguments
  func run() throws { try neighbour.run(Self.family, daemon, text: Self.text) }
}

struct NdpCommand: NeighbourCommand {
  static let family = "inet6"
  static let configuration = CommandConfiguration(commandName: "ndp", abstract: "Show and change what neighbour discovery knows.")
  @OptionGroup var neighbour: NeighbourArguments
  @OptionGroup var daemon: DaemonArguments
  func run() throws { try neighbour.run(Self.family, daemon, text: Self.text) }
}
