import ArgumentParser

@main struct RingwayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "ringway")
}
