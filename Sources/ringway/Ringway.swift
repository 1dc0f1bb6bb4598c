// The command line. One file a subcommand; ExitCodes.swift says how each of them ends.

import ArgumentParser

@main struct RingwayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ringway",
    abstract: "Packets through network cards from user space.",
    discussion: """
      Start with `ringway doctor`, choose a card with `ringway devices`, take it from the kernel \
      with `ringway bind`, and give it back with `ringway unbind`.

      Exit codes: 0 ok, 64 usage, 69 device missing, 77 permission, 78 configuration, 1 other.
      """,
    version: "0.1.0",
    subcommands: [
      Devices.self,
      DoctorCommand.self,
      Bind.self,
      Unbind.self,
      Watcher.self,
      Hugepages.self,
      Pktgen.self,
      Bridge.self,
      CaptureCommand.self,
      Stats.self,
      Ifconfig.self,
      Netstat.self,
      Sysctl.self,
      RouteCommand.self,
      ArpCommand.self,
      NdpCommand.self,
      Netmap.self,
      Monitor.self,
      Top.self,
      Extcap.self,
    ])

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      exitProcess(for: error)
    }
  }
}
