import Platform
import Testing

@testable import DMAMemory

private func parse(_ text: String) throws(ConfigurationErrors) -> HugepagesConfiguration {
  try HugepagesConfiguration(parsing: text.utf8)
}

/// Repository root, from this file's own place.
private let repository = String(#filePath.dropLast("/Tests/DMAMemory/HugepagesConfigurationTests.swift".count))

@Suite struct HugepagesConfigurationTests {
  @Test func `every key of every directive`() throws {
    let configuration = try parse(
      """
      # a comment

      pages size=2M count=64 node=0   # another
      pages node=1 count=0 size=2048K
      pages size=1G\tcount=2 node=each\r
      pages size=65536 count=1
      mount size=2M path=/dev/hugepages-2M group=ringway mode=0770
      mount size=1G path="/mnt/a b\\"c\\\\#" group=115 mode=1777
      """)
    #expect(
      configuration.reservations == [
        .init(pageSize: 2 << 20, count: 64, nodes: .node(0), line: 3),
        .init(pageSize: 2 << 20, count: 0, nodes: .node(1), line: 4),
        .init(pageSize: 1 << 30, count: 2, nodes: .each, line: 5),
        .init(pageSize: 65536, count: 1, nodes: .any, line: 6),
      ])
    #expect(
      configuration.mounts == [
        .init(pageSize: 2 << 20, path: "/dev/hugepages-2M", group: "ringway", mode: 0o770, line: 7),
        .init(pageSize: 1 << 30, path: "/mnt/a b\"c\\#", group: "115", mode: 0o1777, line: 8),
      ])
  }

  @Test func `the file in the repository is right`() throws {
    let configuration = try HugepagesConfiguration(parsing: try Files.bytes(repository + "/hugepages.conf"))
    #expect(configuration.reservations.first?.count == 256)
    #expect(configuration.mounts.count == 1)
  }

  @Test(arguments: [
    ("page size=2M", 1, 1, "`page` is no directive"),
    ("\n\n  pages size=2M cuont=3", 3, 17, "`cuont` is no key of `pages`"),
    ("pages count=3", 1, 1, "`pages` needs `size`"),
    ("mount size=2M", 1, 1, "`mount` needs `path`"),
    ("pages size=3M count=1", 1, 12, "`3M` is no page size"),
    ("pages size=99999999999999999999G count=1", 1, 12, "is no page size"),
    ("pages size=M count=1", 1, 12, "`M` is no page size"),
    ("pages size=2M count=-1", 1, 21, "`-1` is no number of pages"),
    ("pages size=2M count=16777217", 1, 21, "is no number of pages"),
    ("pages size=2M count=1 node=1024", 1, 28, "`1024` is no node"),
    ("pages size=2M count=1 node=all", 1, 28, "`all` is no node"),
    ("pages size=2M count=1 count=2", 1, 23, "`count` is given twice"),
    ("pages size=2M count=1\npages size=2M count=2", 2, 1, "reserved in line 1 already"),
    ("pages size=2M count=1\npages size=2M count=2 node=0", 2, 1, "line 1 reserves pages of this size"),
    ("pages size=2M count", 1, 15, "`count` has no value"),
    ("pages size=2M count =1", 1, 15, "`count` has no value"),
    ("pages size=2M count= 1", 1, 21, "`count=` has no value"),
    ("pages =2M", 1, 7, "a key is missing"),
    ("mount size=2M path=dev/x", 1, 20, "`dev/x` is no mount point"),
    ("mount size=2M path=/dev/../x", 1, 20, "is no mount point"),
    ("mount size=2M path=/", 1, 20, "is no mount point"),
    ("mount size=2M path=/a group=-x", 1, 29, "`-x` is no group"),
    ("mount size=2M path=/a group=a:b", 1, 29, "is no group"),
    ("mount size=2M path=/a mode=0778", 1, 28, "`0778` is no mode"),
    ("mount size=2M path=/a mode=7", 1, 28, "`7` is no mode"),
    ("mount size=2M path=/a mode=7777", 1, 28, "is no mode"),
    ("mount size=2M path=/a\nmount size=1G path=/a", 2, 1, "line 1 mounts on /a already"),
    ("mount size=2M path=\"/a", 1, 20, "never closed"),
    ("mount size=2M path=\"/a\\n\"", 1, 24, "may follow a backslash"),
    ("mount size=2M path=\"/a\"b", 1, 24, "goes on after its end"),
    ("mount size=2M pa\"th=/a", 1, 17, "a quotation mark stands where none may"),
    ("pages size=2M\u{1b}[0m count=1", 1, 14, "control character (0x1b)"),
    ("é pages", 1, 1, "`é` is no directive"),
    ("pages é=1", 1, 7, "`é` is no key"),
  ])
  func `mistakes are told with their place`(text: String, line: Int, column: Int, message: String) {
    let errors = #expect(throws: ConfigurationErrors.self) { try parse(text) }?.errors ?? []
    #expect(errors.count == 1)
    #expect(errors.first?.line == line)
    #expect(errors.first?.column == column)
    #expect(errors.first?.message.contains(message) == true, "\(errors)")
    #expect(errors.first?.message.hasSuffix(".") == true, "a sentence says what to do")
  }

  @Test func `all mistakes of a file are told at once`() {
    let errors = #expect(throws: ConfigurationErrors.self) { try parse("x\npages size=2M count=1\ny\n") }
    #expect(errors?.errors.map(\.line) == [1, 3])
    #expect(errors?.description.split(separator: "\n").first?.hasPrefix("hugepages.conf:1:1: `x` is no directive.") == true)
  }

  @Test func `bytes that are no text, and a file that is too long`() {
    let broken = #expect(throws: ConfigurationErrors.self) {
      try HugepagesConfiguration(parsing: [0x23, 0x0a, 0xff, 0xfe, 0x0a])
    }
    #expect(broken?.errors.map(\.line) == [2])
    #expect(throws: ConfigurationErrors.self) {
      try HugepagesConfiguration(parsing: [UInt8](repeating: 0x23, count: (1 << 16) + 1))
    }
  }

  /// Mutations of a good file: never a trap, every error inside the file, and whatever is accepted
  /// keeps the rules that the installer builds on.
  @Test(arguments: 1...8 as ClosedRange<UInt64>)
  func `mutated files never trap, and what is accepted is sane`(seed: UInt64) throws {
    var random = Seeded(seed)
    let good = Array(
      """
      pages size=2M count=64 node=0
      pages size=1G count=2 node=each # here
      mount size=2M path="/dev/huge pages" group=ringway mode=0770
      """.utf8)
    let spice = Array("\"\\=#\n\r\t \0KMG/.-0789aé\u{7f}".utf8) + [0xff, 0xc3, 0x80]
    var accepted = 0
    for _ in 0..<3000 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        let at = Int.random(in: 0...bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes.insert(spice.randomElement(using: &random)!, at: at)
        case 1: if at < bytes.count { bytes.remove(at: at) }
        case 2: if at < bytes.count { bytes[at] = UInt8.random(in: 0...255, using: &random) }
        default:
          let end = min(bytes.count, at + Int.random(in: 0...12, using: &random))
          bytes.insert(contentsOf: bytes[at..<end], at: Int.random(in: 0...bytes.count, using: &random))
        }
      }
      do throws(ConfigurationErrors) {
        let result = try HugepagesConfiguration(parsing: bytes)
        accepted += 1
        for reservation in result.reservations {
          #expect(reservation.pageSize.nonzeroBitCount == 1 && (0...1 << 24).contains(reservation.count))
        }
        for mount in result.mounts { #expect(mount.path.hasPrefix("/") && !mount.path.contains("//") && mount.mode <= 0o1777) }
        #expect(Set(result.mounts.map(\.path)).count == result.mounts.count)
      } catch {
        let lines = bytes.split(separator: 0x0a, omittingEmptySubsequences: false)
        #expect(!error.errors.isEmpty)
        for one in error.errors {
          #expect((1...lines.count).contains(one.line))
          #expect((1...lines[one.line - 1].count + 1).contains(one.column))
        }
      }
    }
    #expect(accepted > 0, "some mutations only touch comments and numbers")
  }
}
