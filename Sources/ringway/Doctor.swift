// `ringway doctor`: what this machine lacks, and the command that mends it.

import ArgumentParser
import PCI
import Ringway

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Check IOMMU, modules, permissions, memory limits and hugepages; print what mends each.",
    discussion: "Exits with 78 when something required is missing. Run it as the user who will open the cards.")

  @Flag(help: "Print a JSON array.")
  var json = false

  struct Entry: Encodable {
    let subject: String
    let status: String
    let summary: String
    let remedy: String?
  }

  func run() throws {
    let findings = Doctor(supported: DriverTable.supportedCards).examine()
    if json {
      try printJSON(
        findings.map { Entry(subject: $0.subject, status: $0.status.rawValue, summary: $0.summary, remedy: $0.remedy) })
    } else {
      let width = findings.map(\.subject.count).max() ?? 0
      for finding in findings {
        let mark = finding.status.rawValue + String(repeating: " ", count: 4 - finding.status.rawValue.count)
        let subject = finding.subject + String(repeating: " ", count: width - finding.subject.count)
        print("\(mark)  \(subject)  \(finding.summary)")
        if let remedy = finding.remedy { print("        \(remedy)") }
      }
    }
    let failures = findings.filter { $0.status == .fail }.count
    if failures > 0 {
      throw Failure(
        .configuration, "\(failures) of \(findings.count) checks failed",
        hint: "run the commands above, as root unless they say otherwise")
    }
  }
}
