// `ringway extcap`: interfaces of the daemon in Wireshark's list (extcap(4)).
//
// Wireshark asks in turn: which interfaces, which link types, which options; then it makes a named pipe and
// wants packets in it. A link or a small script called `ringway-extcap` in its extcap folder runs this command.

import ArgumentParser
import Capture
import Control
import Platform
import Ringway

struct Extcap: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve Wireshark as an external capture program.",
    discussion: """
      Put a script of two lines into Wireshark's extcap folder (Help, About, Folders), named ringway-extcap:

        #!/bin/sh
        exec ringway extcap "$@"
      """)

  @Flag(name: .customLong("extcap-interfaces")) var interfaces = false
  @Flag(name: .customLong("extcap-dlts")) var linkTypes = false
  @Flag(name: .customLong("extcap-config")) var config = false
  @Option(name: .customLong("extcap-interface")) var interface: String?
  @Option(name: .customLong("extcap-version")) var version: String?
  @Option(name: .customLong("extcap-capture-filter")) var filter: String?
  @Option(name: .customLong("extcap-reload-option")) var reload: String?
  @Flag var capture = false
  @Option var fifo: String?
  @Flag(help: "Also what was dropped, with the reason.") var drops = false
  @Option(help: "Bytes of each frame.") var snaplen = Capture.wholeFrames
  @Option var socket: String?

  /// What interfaces are called towards Wireshark, so that they cannot be taken for the kernel's.
  static let prefix = "ringway-"

  func run() throws {
    if capture { return try runCapture() }
    if interfaces { return try list() }
    if linkTypes { return print("dlt {number=1}{name=EN10MB}{display=Ethernet}") }
    if config { return print(Self.options.joined(separator: "\n")) }
    // Wireshark checks a filter as it is typed: an answer is a complaint.
    if let filter {
      do { _ = try PacketFilter(filter) } catch { print("\(error)") }
      return
    }
    throw ValidationError("This command is for Wireshark; see `ringway extcap --help`.")
  }

  static let options = [
    "arg {number=0}{call=--drops}{display=Show dropped packets}{tooltip=With the reason as the packet's comment}{type=boolflag}{default=true}",
    "arg {number=1}{call=--snaplen}{display=Bytes of each frame}{type=integer}{range=1,262144}{default=262144}",
    "arg {number=2}{call=--socket}{display=Control socket of ringwayd}{type=string}{default=\(Control.defaultPath)}",
  ]

  private func list() throws {
    print("extcap {version=0.1.0}{help=https://www.wireshark.org/docs/man-pages/extcap.html}")
    // Without a daemon there is nothing to list, and nothing to complain about in a window.
    guard let client = try? DaemonSession.connect(socket), let records = try? client.call(InterfaceList()) else { return }
    print("interface {value=\(Self.prefix)any}{display=Ringway: all interfaces}")
    for record in records { print("interface {value=\(Self.prefix)\(record.name)}{display=Ringway: \(record.name)}") }
  }

  private func runCapture() throws {
    guard let fifo, let interface else { throw ValidationError("--capture wants --fifo and --extcap-interface.") }
    let name = interface.hasPrefix(Self.prefix) ? String(interface.dropFirst(Self.prefix.count)) : interface
    let signals = try SignalWatcher()
    let client = try DaemonSession.connect(socket)
    let capture = try LiveCapture(
      LiveCapture.Wish(interface: name, filter: filter ?? "", file: fifo, snap: snaplen, drops: drops), client)
    try capture.run(stop: signals.descriptor)
  }
}
