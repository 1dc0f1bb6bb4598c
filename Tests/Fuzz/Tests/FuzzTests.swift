// The kept corpus, input by input, and random programs from seeds.

import FuzzTargets
import Glibc
import Testing

/// Inputs that were found worth keeping, run again: tools/fuzz adds to them.
@Suite(.serialized) struct CorpusTests {
  private static let folder = #filePath.split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 } + "/corpus"

  private static func files(_ target: FuzzTarget) -> [String] {
    guard let folder = unsafe opendir("\(Self.folder)/\(target.rawValue)") else { return [] }
    defer { unsafe _ = closedir(folder) }
    var names: [String] = []
    while let entry = unsafe readdir(folder) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if !name.hasPrefix(".") { names.append("\(Self.folder)/\(target.rawValue)/\(name)") }
    }
    return names.sorted()
  }

  private static func read(_ path: String) -> [UInt8] {
    guard let file = unsafe fopen(path, "rb") else { return [] }
    defer { unsafe _ = fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = unsafe fread(&bytes, 1, bytes.count, file)
    return Array(bytes[..<count])
  }

  @Test(arguments: FuzzTarget.allCases) func `the corpus holds`(target: FuzzTarget) {
    let files = Self.files(target)
    #expect(!files.isEmpty, "no corpus in \(Self.folder)")
    for path in files { #expect(target.run(Self.read(path)) == [], "\(path)") }
  }

  /// SplitMix64.
  private struct Random {
    var state: UInt64
    mutating func byte() -> UInt8 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var z = state
      z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
      z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
      return UInt8(truncatingIfNeeded: z ^ z >> 31)
    }
  }

  @Test(arguments: FuzzTarget.allCases) func `random programs hold`(target: FuzzTarget) {
    for seed in 0..<24 as Range<UInt64> {
      var random = Random(state: seed)
      let bytes = (0..<400).map { _ in random.byte() }
      #expect(target.run(bytes) == [], "seed \(seed)")
    }
  }
}
