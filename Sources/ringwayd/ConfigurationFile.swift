// ringwayd.toml as a `Configuration`. Every problem is found, not only the first.

import Control
import Platform
import Ringway
import TOMLKit
import Wire

enum ConfigurationFile {
  static let defaultPath = "/etc/ringway/ringwayd.toml"
  /// Keys of a cloned interface beside the common ones, by its kind.
  static let cloneKeys: [String: [String]] = [
    "tap": ["netns", "peer", "worker", "mac"], "vlan": ["parent", "tag", "mac"], "bridge": ["members", "maxaddr", "timeout", "mac"],
    "epair": ["mac"], "lo": [],
  ]

  static func load(_ path: String) throws -> Configuration {
    let text: String
    do { text = try Files.read(path) } catch {
      throw ConfigurationProblems(problems: [ConfigurationProblem(file: path, line: nil, key: "", problem: "it cannot be read: \(error)")])
    }
    return try read(text, file: path)
  }

  static func read(_ text: String, file: String) throws -> Configuration {
    // The TOML reader takes C strings: what stands behind a zero byte would be left out without a word.
    if let end = text.utf8.firstIndex(of: 0) {
      let line = text.utf8[..<end].reduce(1) { $0 + ($1 == 0x0a ? 1 : 0) }
      throw ConfigurationProblems(problems: [ConfigurationProblem(file: file, line: line, key: "", problem: "a zero byte: this is no text")])
    }
    let value: ControlValue
    do {
      let table = try TOMLTable(string: text)
      value = try ControlValue(json: table.convert(to: .json).utf8)
    } catch let error as TOMLParseError {
      throw ConfigurationProblems(problems: [ConfigurationProblem(file: file, line: error.source.begin.line, key: "", problem: error.description)])
    } catch {
      throw ConfigurationProblems(problems: [ConfigurationProblem(file: file, line: nil, key: "", problem: "\(error)")])
    }
    let report = ConfigurationReport(file: file, text: text)
    let configuration = read(ConfigurationTable(value, path: "", report: report))
    guard report.problems.isEmpty else { throw ConfigurationProblems(problems: report.problems) }
    return configuration
  }

  private static func read(_ top: ConfigurationTable) -> Configuration {
    var made = Configuration()
    if let table = top.table("netisr") { made.netisr = netisr(table) }
    if let table = top.table("memory") { made.memory = memory(table) }
    if let table = top.table("control") { made.control = control(table) }
    if let table = top.table("netmap") { made.netmap = netmap(table) }
    if let table = top.table("daemon") { made.daemon = daemon(table) }
    if let table = top.table("log") {
      made.log.level = table.string("level", oneOf: DaemonLog.levels) ?? made.log.level
      table.finish()
    }
    if let table = top.table("forwarding") {
      made.forwarding = ForwardingSection(inet: table.bool("inet"), inet6: table.bool("inet6"))
      table.finish()
    }
    made.cards = top.tables("card").map(card)
    made.interfaces = top.tables("interface").map(clone)
    made.routes = top.tables("route").map(route)
    if let table = top.table("sysctl") { made.sysctl = table.rest() }
    top.finish()
    unique(made, top.report)
    return made
  }

  private static func netisr(_ table: ConfigurationTable) -> NetisrSection {
    var section = NetisrSection()
    section.workers = table.int("workers", -1...256) ?? section.workers
    if let text = table.string("cpus") {
      section.cpus = CPUList(parsing: text)?.cpus
      if section.cpus?.isEmpty ?? true { table.report.add(table.full("cpus"), "processors as in \"2-3,8\" were expected") }
    }
    section.bind = table.bool("bind") ?? section.bind
    section.dispatch = table.string("dispatch", oneOf: ["direct", "hybrid", "deferred"]) ?? section.dispatch
    section.maxQueueLimit = table.int("max-queue-limit", 1...1_000_000) ?? section.maxQueueLimit
    section.defaultQueueLimit = table.int("default-queue-limit", 1...1_000_000) ?? section.defaultQueueLimit
    section.idle = table.int("idle", 0...1_000_000) ?? section.idle
    table.finish()
    return section
  }

  private static func memory(_ table: ConfigurationTable) -> MemorySection {
    var section = MemorySection()
    section.huge = table.bool("huge") ?? section.huge
    section.backing = table.string("backing", oneOf: ["memfd", "hugetlbfs"]) ?? section.backing
    section.pageSize = table.bytes("page-size", 4096...(1 << 40))
    section.buffers = table.int("buffers", 512...4_194_304)
    section.bufferSize = table.int("buffer-size", 512...65536) ?? section.bufferSize
    if section.bufferSize % 64 != 0 { table.report.add(table.full("buffer-size"), "a multiple of 64 was expected") }
    section.node = table.int("node", 0...1023)
    section.packets = table.int("packets", 64...1_048_576) ?? section.packets
    table.finish()
    return section
  }

  private static func control(_ table: ConfigurationTable) -> ControlSection {
    var section = ControlSection()
    section.socket = path(table, "socket") ?? section.socket
    section.mode = mode(table, "mode") ?? section.mode
    section.group = table.string("group")
    section.clients = table.int("clients", 1...4096) ?? section.clients
    table.finish()
    return section
  }

  private static func daemon(_ table: ConfigurationTable) -> DaemonSection {
    var section = DaemonSection()
    section.user = table.string("user")
    section.group = table.string("group")
    section.drain = table.seconds("drain", 0...600) ?? section.drain
    section.stuck = table.seconds("stuck", 0.1...600) ?? section.stuck
    if section.group != nil, section.user == nil { table.report.add(table.full("group"), "goes with \"user\"") }
    table.finish()
    return section
  }

  private static func settings(_ table: ConfigurationTable) -> InterfaceSettings {
    var made = InterfaceSettings()
    made.addresses = table.strings("addresses") ?? []
    for address in made.addresses where AddressText(address) == nil {
      table.report.add(table.full("addresses"), "\"\(address)\" is no address; write \"198.18.0.1/24\" or \"2001:2::1/64\"")
    }
    made.mtu = table.int("mtu", 72...65535)
    made.up = table.bool("up") ?? made.up
    made.description = table.string("description")
    made.groups = table.strings("groups") ?? []
    made.linkAddress = table.string("ether")
    if let text = made.linkAddress, MACAddress(text).map({ $0.isMulticast }) ?? true {
      table.report.add(table.full("ether"), "\"\(text)\" is no station's address; write 02:00:00:00:00:01")
    }
    made.media = table.string("media")
    made.enable = table.strings("enable") ?? []
    made.disable = table.strings("disable") ?? []
    made.promiscuous = table.bool("promiscuous") ?? made.promiscuous
    made.polling = table.bool("polling") ?? made.polling
    return made
  }

  private static func card(_ table: ConfigurationTable) -> CardSection {
    var section = CardSection(device: table.required("device"))
    section.name = table.string("name")
    if let name = section.name { check(name, "name", table) }
    section.optional = table.bool("optional") ?? section.optional
    section.queues = table.int("queues", 1...16)
    if let size = table.int("ring-size", 64...4096) {
      section.ringSize = size
      if size & (size - 1) != 0 { table.report.add(table.full("ring-size"), "a power of two was expected") }
    }
    section.allowUnsupportedSFP = table.bool("allow-unsupported-sfp") ?? section.allowUnsupportedSFP
    section.settings = settings(table)
    table.finish()
    return section
  }

  private static func check(_ name: String, _ key: String, _ table: ConfigurationTable) {
    if name.isEmpty || name.utf8.count > 15 || name.contains(where: { $0.isWhitespace || $0 == "/" }) {
      table.report.add(table.full(key), "an interface's name has 1 to 15 bytes, no white space and no slash")
    }
  }

  private static func clone(_ table: ConfigurationTable) -> CloneSection {
    let name = table.required("name")
    if !name.isEmpty { check(name, "name", table) }
    let prefix = String(name.prefix { !$0.isNumber })
    let kinds = cloneKeys.keys.sorted()
    let kind = table.string("kind", oneOf: kinds) ?? prefix
    if !name.isEmpty, cloneKeys[kind] == nil {
      table.report.add(table.full("name"), "\"\(name)\" is of no kind that can be made (\(kinds.joined(separator: ", "))); a card is a [[card]]")
    } else if !name.isEmpty, prefix != kind {
      table.report.add(table.full("name"), "a \(kind) is called \(kind)0, \(kind)1, …")
    } else if name == prefix, !name.isEmpty {
      table.report.add(table.full("name"), "a unit was expected: \(name)0")
    }
    var section = CloneSection(name: name, kind: kind)
    for key in cloneKeys[kind] ?? [] { if let value = table.anything(key) { section.options[key] = value } }
    section.settings = settings(table)
    if kind == "vlan", section.options["parent"] == nil || Int(section.options["tag"] ?? "").map({ !(1...4094).contains($0) }) ?? true {
      table.report.add(table.path, "a VLAN has a \"parent\" and a \"tag\" from 1 to 4094")
    }
    table.finish()
    return section
  }

  private static func route(_ table: ConfigurationTable) -> RouteTarget {
    var target = RouteTarget(table.required("to"), gateway: table.string("via"), interface: table.string("interface"))
    target.mtu = table.int("mtu", 72...65535)
    target.reject = table.bool("reject")
    target.blackhole = table.bool("blackhole")
    let family = target.gateway.flatMap { AddressText($0)?.family }
    if !target.prefix.isEmpty, PrefixText(target.prefix, like: family) == nil {
      table.report.add(table.full("to"), "\"\(target.prefix)\" is no prefix; write \"default\", \"198.18.0.0/15\" or \"2001:2::/48\"")
    }
    if let gateway = target.gateway, AddressText(gateway)?.length != nil || family == nil {
      table.report.add(table.full("via"), "\"\(gateway)\" is no gateway's address")
    }
    if target.gateway == nil, target.interface == nil, target.reject != true, target.blackhole != true {
      table.report.add(table.path, "a route leads somewhere: \"via\", \"interface\", reject = true or blackhole = true")
    }
    table.finish()
    return target
  }

  /// Names, devices and prefixes that stand twice.
  private static func unique(_ made: Configuration, _ report: ConfigurationReport) {
    func twice(_ words: [String], _ list: String, _ key: String) {
      var seen: Set<String> = []
      for (i, word) in words.enumerated() where !word.isEmpty && !seen.insert(word).inserted {
        report.add("\(list)[\(i)].\(key)", "\"\(word)\" stands here a second time")
      }
    }
    twice(made.cards.map(\.device), "card", "device")
    twice(made.cards.map { $0.name ?? "" }, "card", "name")
    twice(made.interfaces.map(\.name), "interface", "name")
    twice(made.routes.map(\.prefix), "route", "to")
  }
}
