// `ringway monitor`: what changes, as it happens.

import ArgumentParser
import Control
import Glibc
import Platform
import Ringway

struct Monitor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print the daemon's events: interfaces, addresses, links, groups, routes, neighbours.",
    discussion: "Ends with Ctrl-C. With --json one object a line.")

  @Argument(help: "Kinds of events: \(EventCategory.allCases.map(\.rawValue).joined(separator: ", ")); all when none is named.")
  var categories: [String] = []
  @Option(name: .customShort("i"), help: ArgumentHelp("Of this interface only; it may come later.", valueName: "interface"))
  var interface: String?
  @Option(name: [.customShort("c"), .long], help: ArgumentHelp("End after so many events.", valueName: "n"))
  var count: Int?
  @OptionGroup var daemon: DaemonArguments

  func validate() throws {
    for name in categories where EventCategory(rawValue: name) == nil {
      throw ValidationError("There are no events called \"\(name)\": \(EventCategory.allCases.map(\.rawValue).joined(separator: ", ")).")
    }
  }

  func run() throws {
    let signals = try SignalWatcher()
    let client = try daemon.connect()
    _ = try client.call(Subscribe(categories.compactMap(EventCategory.init), interface: interface))
    var seen = 0
    while seen < count ?? .max {
      guard let event = try client.nextEvent(orUntil: signals.descriptor) else { return }
      switch event {
      case .change(let record):
        print(daemon.json ? jsonLine(record) : Self.text(record))
        seen += 1
      case .lost(let count): daemon.json ? print(jsonLine(["lost": count])) : warn("\(count) events are missing here: this reader was too slow")
      case .end(let reason): throw Failure(.failure, "the daemon ended the subscription: \(reason)", hint: "is it being restarted?")
      case .packet: break
      }
      fflush(nil)
    }
  }

  /// "12:34:56.123 interface em0 up"
  static func text(_ record: ChangeRecord) -> String {
    var line = "\(PacketLines.clock(UInt64(max(0, record.time) * 1e9)).dropLast(6)) \(record.category.rawValue.padded(10)) \(record.event.padded(10))"
    if let interface = record.interface { line += " \(interface)" }
    if let detail = record.detail { line += " \(detail)" }
    return line
  }
}
