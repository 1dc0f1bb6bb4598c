// netmap: pipes, switches, cards; in process and through the daemon.

import ArgumentParser

struct NetmapBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "netmap", abstract: "Pipes, VALE switches and cards, in process and through the daemon.")
  @OptionGroup var options: CommonOptions

  func run() throws {
    var report = Report(title: "netmap", note: Self.note)
    let rounds = options.roundCount, quick = options.quick
    try PipeBench.measure(packets: quick ? 200_000 : 20_000_000, rounds, &report)
    try ValeBench.measure(packets: quick ? 100_000 : 5_000_000, rounds, &report)
    try CardSwapBench(packets: quick ? 20_000 : 1_000_000).run(rounds, &report)
    try DaemonBench(packets: quick ? 100_000 : 5_000_000).run(rounds, &report)
    try options.finish(report)
  }

  static let note = """
    Written by `tools/bench netmap`. Nanoseconds a packet are the median of the rounds, with the lowest and the highest; million
    packets a second follow from the median. On a shared virtual machine times move from run to run: compare within one run only.
    """
}
