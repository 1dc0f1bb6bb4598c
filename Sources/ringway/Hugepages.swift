// `ringway hugepages`: the installer of hugepages.conf, and what the kernel holds.

import ArgumentParser
import DMAMemory
import FoundationEssentials

struct Hugepages: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Reserve and mount hugepages as hugepages.conf says.",
    discussion: "hugepages.conf(5) describes the file.",
    subcommands: [Show.self, Check.self, Apply.self, Forget.self], defaultSubcommand: Show.self)

  /// Where the file is, for `check` and `apply`.
  struct Source: ParsableArguments {
    @Option(help: "The file. (default: /etc/ringway/hugepages.conf, or hugepages.conf in this directory)")
    var config: String?

    static let places = ["/etc/ringway/hugepages.conf", "hugepages.conf"]

    func read() throws -> (path: String, configuration: HugepagesConfiguration) {
      guard let path = config ?? Self.places.first(where: { FileManager.default.fileExists(atPath: $0) }) else {
        throw Failure(
          .configuration, "neither \(Self.places.joined(separator: " nor ")) exists",
          hint: "name the file with --config; hugepages.conf(5) describes it")
      }
      guard let data = FileManager.default.contents(atPath: path) else {
        throw Failure(.configuration, "\(path) cannot be read", hint: "name a readable file with --config")
      }
      return (path, try HugepagesConfiguration(parsing: data, file: path))
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the kernel's hugepage pools by size and node.")
    @Flag(help: "Print a JSON array.")
    var json = false

    func run() throws {
      var pools: [HugepagePool] = []
      for size in HugepagePool.pageSizes() {
        pools += [HugepagePool.read(pageSize: size)].compactMap { $0 }
        pools += HugepagePool.nodes().compactMap { HugepagePool.read(pageSize: size, node: $0) }
      }
      if json { return try printJSON(pools.map(PoolListing.init)) }
      if pools.isEmpty { return print("this kernel has no hugepages") }
      let rows = pools.map { pool in
        [
          ByteCount(pool.pageSize).description, pool.node.map(String.init) ?? "all", "\(pool.total)", "\(pool.free)",
          "\(pool.reserved)", "\(pool.available)",
        ]
      }
      print(Table.text([["SIZE", "NODE", "TOTAL", "FREE", "PROMISED", "AVAILABLE"]] + rows))
    }
  }

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Read hugepages.conf, and say what is not as it asks. Exits with 78 then.")
    @OptionGroup var source: Source
    @Flag(help: "Print a JSON object.")
    var json = false

    func run() throws {
      let (path, configuration) = try source.read()
      let steps = try HugepagesInstaller(configuration).plan()
      let missing = steps.filter { if case .keep = $0 { false } else { true } }
      if json {
        try printJSON(CheckListing(file: path, ok: missing.isEmpty, missing: missing.map(\.description)))
      } else {
        for step in steps { print(step) }
      }
      if !missing.isEmpty { throw ExitCode(Exit.configuration.rawValue) }
    }
  }

  struct Apply: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Reserve and mount what hugepages.conf asks for.")
    @OptionGroup var source: Source
    @Flag(help: "Say what would be done, and do nothing.")
    var dryRun = false
    @Flag(help: "Write files for systemd, so that it is done again at each boot.")
    var persist = false
    @Flag(help: "Print a JSON array of what was done.")
    var json = false

    func run() throws {
      let installer = HugepagesInstaller(try source.read().configuration)
      try Hugepages.carryOut(try installer.plan(persist: persist), installer, dryRun: dryRun, json: json)
    }
  }

  struct Forget: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Remove what `apply --persist` wrote.")
    @Flag(help: "Say what would be done, and do nothing.")
    var dryRun = false
    @Flag(help: "Print a JSON array of what was done.")
    var json = false

    func run() throws {
      let installer = HugepagesInstaller(HugepagesConfiguration())
      try Hugepages.carryOut(installer.planForgetting(), installer, dryRun: dryRun, json: json)
    }
  }

  /// Does the steps, or only says them. Ends with the worst failure.
  static func carryOut(_ steps: [HugepagesStep], _ installer: HugepagesInstaller, dryRun: Bool, json: Bool) throws {
    let reports = dryRun ? steps.map { HugepagesReport(step: $0, failure: nil) } : installer.apply(steps)
    if json {
      try printJSON(
        reports.map { report in
          StepListing(
            step: report.step.description, done: !dryRun && report.failure == nil, error: report.failure?.description)
        })
    } else {
      for report in reports where report.failure == nil { print("\(dryRun ? "would " : "")\(report.step)") }
      if reports.isEmpty { print("nothing to do") }
    }
    let failures = reports.compactMap { $0.failure }
    for failure in failures.dropLast() {
      let sentences = Sentences(of: failure)
      complain(sentences.first, hint: sentences.rest)
    }
    if let last = failures.last { throw last }
  }
}

/// A pool as printed; the property names are the JSON keys. Sizes are bytes.
struct PoolListing: Encodable {
  let page_size: Int
  let node: Int?
  let total: Int
  let free: Int
  let promised: Int
  let available: Int

  init(_ pool: HugepagePool) {
    page_size = pool.pageSize
    node = pool.node
    total = pool.total
    free = pool.free
    promised = pool.reserved
    available = pool.available
  }
}

struct CheckListing: Encodable {
  let file: String
  let ok: Bool
  let missing: [String]
}

struct StepListing: Encodable {
  let step: String
  let done: Bool
  let error: String?
}

extension HugepagesFailure: CommandFailure {
  var exit: Exit { isPermission ? .permission : .configuration }
}

extension ConfigurationErrors: CommandFailure {
  var exit: Exit { .configuration }
  var problem: String { description }
  var hint: String? { "hugepages.conf(5) describes the file" }
}

extension MemoryError: CommandFailure {
  var exit: Exit {
    switch self {
    case .system(_, let errno, _): Exit(errno: errno)
    case .tooFewHugepages, .noSuchPageSize, .noMount, .noSuchNode: .configuration
    case .badSize, .external: .usage
    case .outOfMemory: .failure
    }
  }
}
