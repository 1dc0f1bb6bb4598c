// ringway-fuzz: gives inputs to a target.
//
//   ringway-fuzz TARGET [libFuzzer's options] [CORPUS | FILE]...    fuzz, when built by tools/fuzz
//   ringway-fuzz TARGET --replay FILE|DIRECTORY...                   run these inputs, once each
//
// A finding ends the process with a trap, which is how libFuzzer learns of one.

import CFuzz
import FuzzTargets
import Glibc

// SAFETY: set once, before the first input; one thread.
nonisolated(unsafe) private var chosen = FuzzTarget.virtioNet

private func complain(_ text: String) {
  let line = Array("ringway-fuzz: \(text)\n".utf8)
  // SAFETY: the array's own bytes.
  _ = unsafe write(2, line, line.count)
}

private func run(_ bytes: [UInt8], _ name: String = "this input") {
  let problems = unsafe chosen.run(bytes)
  guard !problems.isEmpty else { return }
  for problem in problems { complain("\(name): \(problem)") }
  abort()
}

/// The files that are meant: those of a directory, in the order of their names.
private func inputs(_ path: String) -> [String] {
  guard let folder = unsafe opendir(path) else { return [path] }
  defer { unsafe _ = closedir(folder) }
  var names: [String] = []
  while let entry = unsafe readdir(folder) {
    let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    if !name.hasPrefix(".") { names.append("\(path)/\(name)") }
  }
  return names.sorted()
}

private func read(_ path: String) -> [UInt8]? {
  guard let file = unsafe fopen(path, "rb") else { return nil }
  defer { unsafe _ = fclose(file) }
  var bytes = [UInt8](repeating: 0, count: 1 << 20)
  let count = unsafe fread(&bytes, 1, bytes.count, file)
  return Array(bytes[..<count])
}

@main struct RingwayFuzz {
  static func main() {
    var words = CommandLine.arguments
    // libFuzzer starts itself again to merge and to minimise, and knows nothing of targets.
    if let name = unsafe getenv("RINGWAY_FUZZ_TARGET"), words.count < 2 || FuzzTarget(rawValue: words[1]) == nil {
      unsafe words.insert(String(cString: name), at: min(1, words.count))
    }
    guard words.count >= 2, let target = FuzzTarget(rawValue: words[1]) else {
      complain("usage: ringway-fuzz TARGET [--replay FILE...] [options]; targets: \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))")
      exit(64)
    }
    unsafe chosen = target
    unsafe _ = setenv("RINGWAY_FUZZ_TARGET", target.rawValue, 1)
    if words.count > 2, words[2] == "--replay" {
      let files = words.dropFirst(3).flatMap(inputs)
      for path in files {
        guard let bytes = read(path) else {
          complain("\(path) cannot be read")
          exit(66)
        }
        run(bytes, path)
      }
      print("\(target.rawValue): \(files.count) inputs, all held")
      return
    }
    // libFuzzer sees the command line without the target.
    var arguments = unsafe ([words[0]] + words.dropFirst(2)).map { unsafe strdup($0) } + [nil]
    let code = unsafe arguments.withUnsafeMutableBufferPointer { pointers in
      unsafe cf_run(Int32(pointers.count - 1), pointers.baseAddress!) { data, size in
        unsafe run([UInt8](UnsafeBufferPointer(start: data, count: size)))
        return 0
      }
    }
    if code < 0 { complain("this build has no fuzzer in it: run tools/fuzz, or --replay FILE...") }
    exit(code < 0 ? 69 : code)
  }
}
