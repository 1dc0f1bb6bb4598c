import Control
import Logging
import Testing

@testable import ringwayd

func read(_ text: String) throws -> Configuration { try ConfigurationFile.read(text, file: "test.toml") }
func problems(_ text: String) -> [ConfigurationProblem] {
  do { _ = try read(text) } catch { return (error as? ConfigurationProblems)?.problems ?? [] }
  return []
}

@Suite struct ConfigurationTests {
  @Test("An empty file is a daemon with defaults; the example is one too")
  func defaults() throws {
    #expect(try read("") == Configuration())
    #expect(try read(Configuration.example) == Configuration())
  }

  @Test("Every commented key of the example is a key")
  func example() throws {
    // Everything uncommented, as somebody would who wants all of it.
    let text = Configuration.example.split(separator: "\n", omittingEmptySubsequences: false).map { line -> String in
      guard line.hasPrefix("# "), line.contains("=") || line.hasPrefix("# [[") else { return String(line.hasPrefix("#") ? "" : line) }
      return String(line.dropFirst(2))
    }.joined(separator: "\n")
    let made = try read(text)
    #expect(made.netisr.cpus == [2, 3] && made.memory.pageSize == 2 << 20 && made.control.group == "ringway" && made.daemon.user == "ringway")
    #expect(made.cards.count == 1 && made.cards[0].optional && made.interfaces[0].options == ["parent": "ix0", "tag": "7"])
    #expect(made.routes == [RouteTarget("default", gateway: "198.18.1.254")])
    #expect(made.sysctl == ["net.inet.ip.ttl": "64"])
  }

  @Test("All keys arrive")
  func everything() throws {
    let made = try read(
      """
      [netisr]
      workers = -1
      cpus = "0,2-3"
      bind = true
      dispatch = "hybrid"
      max-queue-limit = 5000
      default-queue-limit = 100
      idle = 0
      [memory]
      huge = false
      backing = "hugetlbfs"
      page-size = 2097152
      buffers = 4096
      buffer-size = 4096
      node = 1
      packets = 256
      [control]
      socket = "/tmp/x"
      mode = "0600"
      group = "net"
      clients = 3
      [daemon]
      user = "u"
      group = "g"
      drain = 1
      stuck = 0.5
      [log]
      level = "debug"
      [forwarding]
      inet = true
      inet6 = false
      [[card]]
      device = "vfio-user:/tmp/s"
      name = "uplink0"
      optional = true
      queues = 2
      ring-size = 1024
      allow-unsupported-sfp = true
      addresses = ["198.18.0.1/24", "2001:2::1/64"]
      mtu = 9000
      up = false
      description = "d"
      groups = ["lan"]
      ether = "02:00:00:00:00:09"
      media = "autoselect"
      enable = ["RXCSUM"]
      disable = ["TXCSUM"]
      promiscuous = true
      polling = true
      [[interface]]
      name = "tap3"
      kind = "tap"
      netns = "/run/netns/a"
      peer = "p0"
      worker = 1
      [[interface]]
      name = "bridge0"
      members = ["tap3", "uplink0"]
      [[route]]
      to = "2001:2:1::/48"
      via = "2001:2::9"
      mtu = 1400
      [[route]]
      to = "198.19.0.0/16"
      blackhole = true
      [sysctl]
      net.inet.ip.ttl = 32
      "net.isr.dispatch" = "direct"
      a.b = true
      """)
    #expect(made.netisr == NetisrSection(workers: -1, cpus: [0, 2, 3], bind: true, dispatch: "hybrid", maxQueueLimit: 5000, defaultQueueLimit: 100, idle: 0))
    #expect(made.memory == MemorySection(huge: false, backing: "hugetlbfs", pageSize: 2 << 20, buffers: 4096, bufferSize: 4096, node: 1, packets: 256))
    #expect(made.control == ControlSection(socket: "/tmp/x", mode: 0o600, group: "net", clients: 3))
    #expect(made.daemon == DaemonSection(user: "u", group: "g", drain: 1, stuck: 0.5))
    #expect(made.log.level == "debug" && made.forwarding == ForwardingSection(inet: true, inet6: false))
    let settings = InterfaceSettings(
      addresses: ["198.18.0.1/24", "2001:2::1/64"], mtu: 9000, up: false, description: "d", groups: ["lan"], linkAddress: "02:00:00:00:00:09",
      media: "autoselect", enable: ["RXCSUM"], disable: ["TXCSUM"], promiscuous: true, polling: true)
    #expect(made.cards == [CardSection(device: "vfio-user:/tmp/s", name: "uplink0", optional: true, queues: 2, ringSize: 1024, allowUnsupportedSFP: true, settings: settings)])
    #expect(made.interfaces.map(\.options) == [["netns": "/run/netns/a", "peer": "p0", "worker": "1"], ["members": "tap3,uplink0"]])
    #expect(made.interfaces.map(\.kind) == ["tap", "bridge"])
    #expect(made.routes.count == 2 && made.routes[0].mtu == 1400 && made.routes[1].blackhole == true)
    #expect(made.sysctl == ["net.inet.ip.ttl": "32", "net.isr.dispatch": "direct", "a.b": "1"])
    let back = try ControlCoder.structure(Configuration.self, from: try ControlCoder.value(made))
    #expect(back == made)
  }

  @Test("Unknown keys are errors with their line and what was meant")
  func unknown() {
    let found = problems("[netisr]\nworker = 2\n\n[contrl]\nsocket = \"/x\"\n[[card]]\ndevice = \"a\"\nadresses = []\n[[interface]]\nname = \"vlan1\"\nparent = \"a\"\ntag = 1\nnetns = \"x\"\n")
    #expect(found.map(\.line) == [2, 8, 13, 4])
    #expect(found.first?.description == "test.toml:2: netisr.worker: unknown key. Did you mean \"workers\"?")
    #expect(found.dropFirst().first?.description.contains("Did you mean \"addresses\"?") == true)
    #expect(found.last?.description.contains("Did you mean \"control\"?") == true)
  }

  @Test(
    "Wrong values are errors",
    arguments: [
      "[netisr]\nworkers = \"two\"", "[netisr]\nworkers = 1000", "[netisr]\ncpus = \"x\"", "[netisr]\ndispatch = \"directly\"",
      "[memory]\npage-size = \"2X\"", "[memory]\nbuffer-size = 1000", "[memory]\nhuge = 1", "[control]\nsocket = \"relative\"",
      "[control]\nmode = \"0999\"", "[netmap]\nsocket = \"netmap\"", "[netmap]\nmode = \"rw\"",
      "[netmap]\nbuffer-size = 100", "[netmap]\nring-size = 64", "[netmap]\nclients = 0", "[netmap]\nbuffers = 10", "[netmap]\nspin = -1", "[daemon]\ngroup = \"g\"", "[daemon]\ndrain = -1", "[log]\nlevel = \"loud\"",
      "[[card]]\nname = \"em0\"", "[[card]]\ndevice = \"a\"\naddresses = [\"300.1.1.1/24\"]", "[[card]]\ndevice = \"a\"\nmtu = 71",
      "[[card]]\ndevice = \"a\"\nring-size = 100", "[[card]]\ndevice = \"a\"\nether = \"01:00:00:00:00:00\"", "card = 1", "[card]\ndevice = \"a\"",
      "[[card]]\ndevice = \"a\"\n[[card]]\ndevice = \"a\"", "[[interface]]\nname = \"foo0\"", "[[interface]]\nname = \"tap\"",
      "[[interface]]\nname = \"vlan1\"", "[[interface]]\nname = \"vlan1\"\nparent = \"a\"\ntag = 4095", "[[interface]]\nname = \"tap0\"\nkind = \"vlan\"",
      "[[interface]]\nname = \"tap0123456789abcdef\"", "[[route]]\nto = \"default\"", "[[route]]\nvia = \"198.18.0.1\"",
      "[[route]]\nto = \"x\"\nvia = \"198.18.0.1\"", "[[route]]\nto = \"default\"\nvia = \"198.18.0.1/24\"", "[sysctl]\na = [1]", "netisr = 3",
      "[netisr", "a = ", "\u{0}",
    ])
  func wrong(text: String) { #expect(!problems(text).isEmpty) }

  @Test("Words that are near")
  func suggestions() {
    #expect(Suggestion.distance("kitten", "sitting") == 3)
    #expect(Suggestion.nearest(to: "adress", in: ["addresses", "mtu", "address"]) == "address")
    #expect(Suggestion.nearest(to: "xyz", in: ["mtu"]) == nil)
  }
}

@Suite struct DiffTests {
  func steps(_ old: String, _ new: String, names: [String: String] = ["a": "em0"]) throws -> ConfigurationDiff {
    ConfigurationDiff(from: try read(old), to: try read(new), names: names)
  }

  @Test("Nothing new is nothing to do")
  func same() throws {
    let text = "[[card]]\ndevice = \"a\"\naddresses = [\"198.18.0.1/24\"]\n[sysctl]\n\"a\" = 1"
    let diff = try steps(text, text)
    #expect(diff.steps.isEmpty && diff.warnings.isEmpty)
  }

  @Test("Addresses, MTU, description, groups and UP change on the interface of the card")
  func interfaces() throws {
    let diff = try steps(
      "[[card]]\ndevice = \"a\"\naddresses = [\"198.18.0.1/24\"]\nmtu = 1500\ngroups = [\"x\"]",
      "[[card]]\ndevice = \"a\"\naddresses = [\"198.18.0.2/24\"]\nmtu = 9000\ngroups = [\"y\"]\ndescription = \"d\"\nup = false\npromiscuous = true")
    #expect(diff.steps == [
      .change(interface: "em0", .flags(set: [], clear: ["UP"])), .change(interface: "em0", .mtu(bytes: 9000)),
      .change(interface: "em0", .description(text: "d")), .change(interface: "em0", .deleteGroup(name: "x")),
      .change(interface: "em0", .addGroup(name: "y")), .change(interface: "em0", .deleteAddress(address: "198.18.0.1/24")),
      .change(interface: "em0", .addAddress(address: "198.18.0.2/24", broadcast: nil, destination: nil)),
      .change(interface: "em0", .promiscuous(on: true)),
    ])
    #expect(diff.warnings.isEmpty)
  }

  @Test("Clones are made, made anew and destroyed; routes go first and come last")
  func clones() throws {
    let diff = try steps(
      "[[interface]]\nname = \"tap0\"\n[[interface]]\nname = \"vlan1\"\nparent = \"tap0\"\ntag = 1\n[[route]]\nto = \"default\"\nvia = \"198.18.0.1\"",
      "[[interface]]\nname = \"vlan1\"\nparent = \"em0\"\ntag = 2\nup = false\n[[route]]\nto = \"default\"\nvia = \"198.18.0.2\"\n[log]\nlevel = \"debug\"")
    #expect(diff.steps == [
      .logLevel("debug"), .deleteRoute("default"), .destroy("vlan1"), .destroy("tap0"),
      .create(name: "vlan1", options: ["parent": "em0", "tag": "2"]), .addRoute(RouteTarget("default", gateway: "198.18.0.2")),
    ])
  }

  @Test("What is settled at the start is a warning each")
  func settled() throws {
    let diff = try steps(
      "[[card]]\ndevice = \"a\"\nmtu = 9000\n[sysctl]\nx = 1", "[netisr]\nworkers = 2\n[control]\nclients = 3\n[[card]]\ndevice = \"a\"\nring-size = 128\n[[card]]\ndevice = \"b\"")
    #expect(diff.steps.isEmpty)
    #expect(diff.warnings.count == 6)
    #expect(diff.warnings.contains { $0.hasPrefix("[netisr]") } && diff.warnings.contains { $0.contains("card b") })
  }

  @Test("A start is the difference to nothing")
  func start() throws {
    let wanted = try read("[forwarding]\ninet = true\n[[card]]\ndevice = \"a\"\n[[interface]]\nname = \"lo0\"\naddresses = [\"127.0.0.1/8\"]\n[sysctl]\nb = 2\na = 1")
    let diff = ConfigurationDiff(from: .nothing(like: wanted), to: wanted, names: ["a": "ix0"])
    #expect(diff.steps == [
      .change(interface: "lo0", .addAddress(address: "127.0.0.1/8", broadcast: nil, destination: nil)),
      .change(interface: "lo0", .flags(set: ["UP"], clear: [])), .change(interface: "ix0", .flags(set: ["UP"], clear: [])),
      .sysctl(name: "net.inet.ip.forwarding", value: "1"), .sysctl(name: "a", value: "1"), .sysctl(name: "b", value: "2"),
    ])
    #expect(diff.warnings.isEmpty)
  }
}

@Suite struct LogTests {
  @Test("Lines carry the journal's priority, and nothing from outside forges one")
  func lines() {
    #expect(DaemonLog.line(.error, "a\n<0>b\u{1b}", isJournal: true) == "<3>a?<0>b?\n")
    #expect(DaemonLog.line(.info, "a", isJournal: false) == "ringwayd: a\n")
    #expect(DaemonLog.line(.warning, "a", isJournal: false) == "ringwayd: warning: a\n")
    #expect(Logger.Level.allCases.map(DaemonLog.priority) == [7, 7, 6, 5, 4, 3, 2])
  }
}
