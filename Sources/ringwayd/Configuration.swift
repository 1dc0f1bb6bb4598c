// The daemon's configuration as it is meant, after the file was read: ringwayd.toml(5).
//
//     ringwayd.toml ─ ConfigurationFile ─> Configuration ─ ConfigurationDiff(running, wanted) ─> steps ─> Stack
//
// A start is the difference to a daemon without anything, a SIGHUP the difference to what runs.

import Control

struct Configuration: Codable, Equatable {
  var netisr = NetisrSection()
  var memory = MemorySection()
  var control = ControlSection()
  var netmap = NetmapSection()
  var daemon = DaemonSection()
  var log = LogSection()
  var forwarding = ForwardingSection()
  var cards: [CardSection] = []
  var interfaces: [CloneSection] = []
  var routes: [RouteTarget] = []
  /// Names and values, as they are written; set after everything else.
  var sysctl: [String: String] = [:]
}

struct NetisrSection: Codable, Equatable {
  /// -1: one a processor.
  var workers = 1
  var cpus: [Int]?
  /// Workers stay on their processors.
  var bind = false
  /// "direct", "hybrid", "deferred"
  var dispatch = "direct"
  var maxQueueLimit = 10240
  var defaultQueueLimit = 256
  /// Microseconds a worker polls before it sleeps.
  var idle = 50
}

struct MemorySection: Codable, Equatable {
  /// false: pages of the base size.
  var huge = true
  /// "memfd" or "hugetlbfs"
  var backing = "memfd"
  /// Bytes a hugepage; nil: the kernel's usual.
  var pageSize: Int?
  /// Packet buffers for everything; nil: as many as cards and workers need.
  var buffers: Int?
  /// Bytes a buffer.
  var bufferSize = 2048
  /// NUMA node.
  var node: Int?
  /// Packets of each worker for what the stack makes itself.
  var packets = 2048
}

struct ControlSection: Codable, Equatable {
  var socket = Control.defaultPath
  /// Of the socket's file.
  var mode: UInt32 = 0o660
  /// Whose members may change things.
  var group: String?
  var clients = 64
}

/// netmap for other processes.
struct NetmapSection: Codable, Equatable {
  var enabled = true
  /// nil: `netmap.sock` beside the control socket.
  var socket: String?
  /// Of the socket's file.
  var mode: UInt32 = 0o660
  /// Whose it is; nil: the control socket's.
  var group: String?
  /// Descriptors that may be open at a time, and of one user other than root.
  var clients = 1024
  var clientsPerUser = 512
  /// The region that programs share: objects of each pool, and bytes of each object.
  var interfaces = 64
  var rings = 128
  var ringSize = 36864
  var buffers = 16384
  var bufferSize = 2048
  /// Private regions: the least that each has, how many there may be, and their bytes together.
  var privateInterfaces = 8
  var privateRings = 16
  var privateBuffers = 4098
  var regions = 256
  var regionBytes = 4 << 30
  /// Microseconds that a worker looks for a program's next sync before it sleeps.
  var spin = 20

  /// Where programs connect.
  func path(beside control: String) -> String {
    socket ?? control.prefix { $0 == "/" } + control.split(separator: "/").dropLast().map { $0 + "/" }.joined() + "netmap.sock"
  }
}

struct DaemonSection: Codable, Equatable {
  /// Who the daemon becomes after its start; nil: it stays who it is.
  var user: String?
  var group: String?
  /// Seconds that packets get to leave after SIGTERM.
  var drain = 2.0
  /// Seconds after which a worker that does not answer counts as stuck.
  var stuck = 5.0
}

struct LogSection: Codable, Equatable {
  /// "trace" to "critical"
  var level = "info"
}

/// nil: as it is.
struct ForwardingSection: Codable, Equatable {
  var inet: Bool?
  var inet6: Bool?
}

/// What a section may say of any interface.
struct InterfaceSettings: Codable, Equatable {
  var addresses: [String] = []
  var mtu: Int?
  var up = true
  var description: String?
  var groups: [String] = []
  var linkAddress: String?
  var media: String?
  /// Names of capabilities to switch on and off.
  var enable: [String] = []
  var disable: [String] = []
  var promiscuous = false
  /// Polled by its worker instead of interrupting.
  var polling = false
}

struct CardSection: Codable, Equatable {
  /// "0000:03:00.0" or "vfio-user:/path".
  var device: String
  /// nil: the driver's prefix and the lowest free unit.
  var name: String?
  /// Missing is no error.
  var optional = false
  /// nil: one a worker, as far as the card has them.
  var queues: Int?
  /// Descriptors of each ring.
  var ringSize = 512
  var allowUnsupportedSFP = false
  var settings = InterfaceSettings()
}

struct CloneSection: Codable, Equatable {
  /// With its unit: "tap0".
  var name: String
  var kind: String
  /// The cloner's own.
  var options: [String: String] = [:]
  var settings = InterfaceSettings()
}

/// Something in the file that is wrong: all of them are told at once.
struct ConfigurationProblem: Error, Equatable, CustomStringConvertible {
  var file: String
  /// nil when no line can be named.
  var line: Int?
  var key: String
  var problem: String
  var description: String {
    "\(file)\(line.map { ":\($0)" } ?? ""): \(key.isEmpty ? "" : "\(key): ")\(problem)"
  }
}

struct ConfigurationProblems: Error {
  var problems: [ConfigurationProblem]
}

extension Configuration {
  /// What `--print-default` shows, and what is installed as an example.
  static let example = """
    # /etc/ringway/ringwayd.toml: see ringwayd.toml(5). `ringwayd --check` looks for mistakes.
    # What stands here as a comment is the default.

    [netisr]
    # workers = 1              # threads that move packets; -1: one a processor
    # cpus = "2-3"             # processors for them, in turn
    # bind = false             # each stays on its processor
    # dispatch = "direct"      # "direct", "hybrid", "deferred"
    # max-queue-limit = 10240
    # default-queue-limit = 256
    # idle = 50                # microseconds of polling before a worker sleeps

    [memory]
    # huge = true              # false: pages of the base size
    # backing = "memfd"        # "memfd", "hugetlbfs"
    # page-size = "2M"
    # buffers = 16384
    # buffer-size = 2048
    # node = 0
    # packets = 2048           # of each worker, for what the stack itself sends

    [control]
    # socket = "/run/ringway/control"
    # mode = "0660"
    # group = "ringway"        # whose members may change things
    # clients = 64

    [netmap]
    # enabled = true           # netmap ports for other processes
    # socket = "/run/ringway/netmap.sock" # beside the control socket
    # mode = "0660"
    # group = "ringway"        # who may use netmap; without it control.group
    # clients = 1024           # open descriptors
    # clients-per-user = 512   # of one user other than root
    # buffers = 16384          # of the region that programs share
    # buffer-size = 2048
    # rings = 128
    # ring-size = "36K"        # 256 bytes and 16 a slot
    # interfaces = 64
    # private-buffers = 4098   # the least that a private region has
    # private-rings = 16
    # private-interfaces = 8
    # regions = 256            # private regions
    # region-bytes = "4G"      # of all private regions
    # spin = 20                # microseconds of looking for a program's next sync before a worker sleeps

    [daemon]
    # user = "ringway"         # who it becomes when everything is open
    # group = "ringway"
    # drain = 2.0              # seconds for packets to leave after SIGTERM
    # stuck = 5.0              # seconds after which a silent worker is stuck

    [log]
    # level = "info"

    [forwarding]
    # inet = false
    # inet6 = false

    # A card, bound to vfio-pci before (`ringway bind`).
    # [[card]]
    # device = "0000:03:00.0"
    # addresses = ["198.18.1.1/24", "2001:2:0:1::1/64"]
    # mtu = 1500
    # optional = true          # no error when it is missing

    # An interface that is made: tap, vlan, bridge, epair, lo.
    # [[interface]]
    # name = "vlan7"
    # parent = "ix0"
    # tag = 7
    # addresses = ["198.18.7.1/24"]

    # [[route]]
    # to = "default"
    # via = "198.18.1.254"

    [sysctl]
    # "net.inet.ip.ttl" = 64

    """
}
