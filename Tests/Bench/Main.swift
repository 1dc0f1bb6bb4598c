// ringway-bench: how fast the stack is, beside others, in one run.
//
// Every figure is the median of several rounds with its spread, and sides that are compared take turns: on a shared
// machine a single number says little. A subcommand a part of the house; each fills the same report.

import ArgumentParser
import Foundation

@main struct RingwayBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ringway-bench", abstract: "Measures Ringway, and others beside it.", subcommands: [StackBench.self, NetmapBench.self, ValeBench.self, PipeBench.self],
    defaultSubcommand: StackBench.self)
}

/// What every subcommand takes.
struct CommonOptions: ParsableArguments {
  @Flag(help: "Few packets and rounds: shows that everything runs, measures little.") var quick = false
  @Flag(help: "The figures as JSON, on standard output.") var json = false
  @Option(help: "Writes the report as Markdown to this file.") var markdown: String?
  @Option(help: "Rounds of each measurement.") var rounds: Int?

  var roundCount: Int { max(1, rounds ?? (quick ? 2 : 5)) }

  func finish(_ report: Report) throws {
    if json { print(try report.json()) } else { print(report.markdown) }
    if let markdown { try report.markdown.write(toFile: markdown, atomically: true, encoding: .utf8) }
  }
}

/// Dispatch, send path, forwarding, lookups.
struct StackBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stack", abstract: "Dispatch, the send path, IPv4 forwarding, and lookups beside dpdk-test-fib.")
  @OptionGroup var options: CommonOptions
  @Option(help: "Routes in the largest table.") var routes = 500_000

  func run() throws {
    var report = Report(title: "The stack", note: Self.note)
    let rounds = options.roundCount, quick = options.quick
    try DispatchBench(packets: quick ? 20_000 : 1_000_000).run(rounds, &report)
    try SendBench(packets: quick ? 20_000 : 1_000_000).run(rounds, &report)
    let sizes = [1, 1000, quick ? min(routes, 20_000) : routes]
    for size in sizes { try ForwardBench(packets: quick ? 20_000 : 500_000, routes: size).run(rounds, &report) }
    for size in sizes { try LookupBench(lookups: quick ? 50_000 : 1_000_000, routes: size).run(rounds, &report) }
    try options.finish(report)
  }

  static let note = """
    Written by `tools/bench stack`. Nanoseconds are the median of the rounds, with the lowest and the highest; packets a second
    follow from the median. Two workers share what one has: rates of both together. On a shared virtual machine times move from run to
    run: compare within one run only.
    """
}
