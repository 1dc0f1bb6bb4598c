// Lookups in a table alone, beside DPDK's, which takes the same routes and addresses in the same run, turn by turn.

import CRingway
import Foundation
import Platform
import Routes
import Wire

struct LookupBench {
  let lookups: Int
  let routes: Int
  private static let program = "/usr/bin/dpdk-test-fib"

  func run(_ rounds: Int, _ report: inout Report) throws {
    let prefixes = BenchTables.routes(routes)
    let addresses = BenchTables.addresses(lookups, below: prefixes)
    let table = LookupTable4()
    for (n, prefix) in prefixes.enumerated() { try table.set(prefix, to: UInt32(n + 1)) }
    let files = try writeFiles(prefixes, addresses)
    defer { for file in [files.routes, files.addresses] { try? FileManager.default.removeItem(atPath: file) } }
    var single: [Double] = [], batch: [Double] = [], dir: [Double] = [], rib: [Double] = []
    for _ in 0..<rounds {
      single.append(one(table, addresses))
      batch.append(many(table, addresses))
      if let time = peer("dir", files) { dir.append(time) }
      if let time = peer("rib", files) { rib.append(time) }
    }
    let section = "IPv4 lookups, \(routes) route\(routes == 1 ? "" : "s")"
    func add(_ name: String, _ times: [Double], _ size: Int? = nil) {
      guard !times.isEmpty else { return }
      let base = Figure(section: "", name: "", nanoseconds: dir).median
      var extra: [String: Double] = [:]
      if let size { extra["MiB"] = Double(size) / 1048576 }
      if base > 0 { extra["ratio to dir24_8"] = Figure(section: "", name: "", nanoseconds: times).median / base }
      report.add(section, name, times, extra)
    }
    add("one at a time", single, table.size)
    add("in batches of 64", batch, table.size)
    add("dpdk-test-fib, dir24_8", dir)
    add("dpdk-test-fib, rib", rib)
    if dir.isEmpty { report.remarks.append("\(Self.program) gave no figures: is the package dpdk installed?") }
  }

  private func one(_ table: LookupTable4, _ addresses: [IPv4Address]) -> Double {
    var sum: UInt64 = 0
    let start = rw_ticks()
    unsafe addresses.withUnsafeBufferPointer { buffer in
      for unsafe address in unsafe buffer { sum &+= UInt64(table.lookup(address)) }
    }
    let ticks = rw_ticks() - start
    precondition(sum != 1, "the sum keeps the loop")
    return Double(ticks) / Double(addresses.count) * Self.nanosecondsATick
  }

  private func many(_ table: LookupTable4, _ addresses: [IPv4Address]) -> Double {
    var values = [UInt32](repeating: 0, count: 64)
    let start = rw_ticks()
    unsafe addresses.withUnsafeBufferPointer { buffer in
      unsafe values.withUnsafeMutableBufferPointer { target in
        var at = 0
        while at < buffer.count {
          let n = min(64, buffer.count - at)
          unsafe table.lookup(UnsafeBufferPointer(rebasing: buffer[at..<at + n]), into: target)
          at += n
        }
      }
    }
    return Double(rw_ticks() - start) / Double(addresses.count) * Self.nanosecondsATick
  }

  /// The time stamp counter's period, from 50 milliseconds of it.
  private static let nanosecondsATick: Double = {
    let clock = MonotonicClock()
    let (time, ticks) = (clock.now(), rw_ticks())
    clock.sleep(nanoseconds: 50_000_000)
    return Double(clock.now() - time) / Double(rw_ticks() - ticks)
  }()

  private func writeFiles(_ prefixes: [IPv4Prefix], _ addresses: [IPv4Address]) throws -> (routes: String, addresses: String) {
    let folder = NSTemporaryDirectory()
    let files = ("\(folder)/ringway-bench-routes-\(getpid())", "\(folder)/ringway-bench-addresses-\(getpid())")
    try prefixes.enumerated().map { "\($1) \($0 + 1)\n" }.joined().write(toFile: files.0, atomically: false, encoding: .utf8)
    try addresses.map { "\($0)\n" }.joined().write(toFile: files.1, atomically: false, encoding: .utf8)
    return files
  }

  /// What the peer says of its own lookups (it counts cycles); nil when it says nothing.
  private func peer(_ algorithm: String, _ files: (routes: String, addresses: String)) -> Double? {
    guard FileManager.default.isExecutableFile(atPath: Self.program) else { return nil }
    let process = Process(), pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: Self.program)
    process.arguments = [
      "--no-huge", "-m", "2048", "-l", "0", "--no-pci", "--no-telemetry", "--", "-b", algorithm, "-e", "4", "-g", "65535", "-f", files.routes,
      "-t", files.addresses,
    ]
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    for line in text.split(separator: "\n") where line.contains("FIB lookup") {
      if let cycles = line.split(separator: " ").compactMap({ Double($0) }).last { return cycles * Self.nanosecondsATick }
    }
    return nil
  }
}
