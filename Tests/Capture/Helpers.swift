import DMAMemory
import Foundation
import Packet
import Testing

@testable import Capture

/// Packets over ordinary memory.
@safe final class Frames {
  private let base = UnsafeMutableRawPointer.allocate(byteCount: 256 * 2048, alignment: 4096)
  let pool: PacketPool
  init() { pool = unsafe PacketPool(unsafe: base, stride: 2048, iova: IOVA(rawValue: 1 << 20), indices: Array(2..<256)) }
  deinit { unsafe base.deallocate() }

  func packet(_ bytes: [UInt8]) throws -> Packet {
    guard let packet = pool.allocate() else { throw Missing(what: "a buffer") }
    guard packet.fill(with: bytes) else { throw Missing(what: "room for \(bytes.count) bytes") }
    return packet
  }

  /// A frame over several buffers of at most `piece` bytes.
  func chain(_ bytes: [UInt8], piece: Int) throws -> Packet {
    let first = try packet(Array(bytes.prefix(piece)))
    for start in stride(from: piece, to: bytes.count, by: piece) {
      first.append(try packet(Array(bytes[start..<min(bytes.count, start + piece)])))
    }
    return first
  }
}

struct Missing: Error { let what: String }

/// A folder that goes away with its owner.
final class TemporaryFolder {
  let path: String
  init() throws {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("ringway-capture-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(atPath: path) }
  func file(_ name: String) -> String { path + "/" + name }
}

/// Runs tcpdump; `output` is its standard output.
func tcpdump(_ arguments: [String]) throws -> (status: Int32, output: String, errors: String) {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/tcpdump")
  process.arguments = arguments
  let output = Pipe()
  let errors = Pipe()
  process.standardOutput = output
  process.standardError = errors
  try process.run()
  let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  let complaints = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  return (process.terminationStatus, text, complaints)
}

let tcpdumpInstalled = FileManager.default.isExecutableFile(atPath: "/usr/bin/tcpdump")

/// A pcapng block as the specification describes it, read independently of the writer.
struct Block: Equatable {
  let type: UInt32
  let body: [UInt8]

  func u16(_ at: Int) -> UInt16 { UInt16(body[at]) | UInt16(body[at + 1]) << 8 }
  func u32(_ at: Int) -> UInt32 { UInt32(u16(at)) | UInt32(u16(at + 2)) << 16 }

  /// The options from byte `start` of the body.
  func options(from start: Int) throws -> [UInt16: [UInt8]] {
    var found: [UInt16: [UInt8]] = [:]
    var at = start
    while at + 4 <= body.count {
      let code = u16(at)
      let length = Int(u16(at + 2))
      if code == 0 {
        guard length == 0, at + 4 == body.count else { throw Missing(what: "the end of options at the end of the block") }
        return found
      }
      found[code] = Array(body[(at + 4)..<(at + 4 + length)])
      at += 4 + (length + 3) / 4 * 4
    }
    throw Missing(what: "an end of options")
  }

  static func all(in path: String) throws -> [Block] {
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    func u32(_ at: Int) -> Int { (0..<4).reduce(0) { $0 | Int(bytes[at + $1]) << (8 * $1) } }
    var blocks: [Block] = []
    var at = 0
    while at < bytes.count {
      guard at + 12 <= bytes.count else { throw Missing(what: "a whole block at \(at)") }
      let length = u32(at + 4)
      guard length % 4 == 0, at + length <= bytes.count, u32(at + length - 4) == length else {
        throw Missing(what: "agreeing lengths at \(at)")
      }
      blocks.append(Block(type: UInt32(u32(at)), body: Array(bytes[(at + 8)..<(at + length - 4)])))
      at += length
    }
    return blocks
  }
}

/// Frames of many kinds, for filters to disagree about.
enum Zoo {
  static func ethernet(_ type: UInt16, to: [UInt8] = [2, 0, 0, 0, 0, 1], _ payload: [UInt8]) -> [UInt8] {
    var frame = to + [2, 0, 0, 0, 0, 2, UInt8(type >> 8), UInt8(type & 0xff)] + payload
    while frame.count < 60 { frame.append(0) }
    return frame
  }

  static func ipv4(_ proto: UInt8, from: [UInt8] = [198, 18, 0, 1], to: [UInt8] = [198, 18, 0, 2], fragment: UInt16 = 0, _ payload: [UInt8]) -> [UInt8] {
    let total = 20 + payload.count
    return [0x45, 0, UInt8(total >> 8), UInt8(total & 0xff), 0, 1, UInt8(fragment >> 8), UInt8(fragment & 0xff), 64, proto, 0, 0]
      + from + to + payload
  }

  static func ports(_ source: UInt16, _ destination: UInt16, _ rest: [UInt8]) -> [UInt8] {
    [UInt8(source >> 8), UInt8(source & 0xff), UInt8(destination >> 8), UInt8(destination & 0xff)] + rest
  }

  static func ipv6(_ proto: UInt8, _ payload: [UInt8]) -> [UInt8] {
    [0x60, 0, 0, 0, UInt8(payload.count >> 8), UInt8(payload.count & 0xff), proto, 64]
      + [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] + [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2] + payload
  }

  static func tcp(_ source: UInt16, _ destination: UInt16, flags: UInt8) -> [UInt8] {
    ports(source, destination, [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0])
  }

  static let arp: [UInt8] = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2]

  static let frames: [[UInt8]] = [
    ethernet(0x0800, ipv4(17, ports(5000, 53, [0, 12, 0, 0] + [1, 2, 3, 4]))),
    ethernet(0x0800, ipv4(17, ports(53, 5000, [0, 200, 0, 0] + Array(repeating: 7, count: 192)))),
    ethernet(0x0800, ipv4(17, to: [198, 19, 255, 255], ports(4789, 4789, [0, 8, 0, 0]))),
    ethernet(0x0800, ipv4(17, fragment: 0x2000, ports(5000, 53, Array(repeating: 1, count: 60)))),
    ethernet(0x0800, ipv4(17, fragment: 0x0010, ports(5000, 53, Array(repeating: 2, count: 60)))),
    ethernet(0x0800, ipv4(6, tcp(40000, 80, flags: 0x02))),
    ethernet(0x0800, ipv4(6, tcp(80, 40000, flags: 0x12))),
    ethernet(0x0800, ipv4(6, tcp(40000, 443, flags: 0x10) + Array(repeating: 0xaa, count: 1400))),
    ethernet(0x0800, ipv4(6, from: [198, 18, 7, 7], tcp(22, 22, flags: 0x04))),
    ethernet(0x0800, ipv4(1, [8, 0, 0, 0, 0, 1, 0, 1])),
    ethernet(0x0800, ipv4(1, [0, 0, 0, 0, 0, 1, 0, 1])),
    ethernet(0x0800, to: [1, 0, 0x5e, 0, 0, 0xfb], ipv4(17, to: [224, 0, 0, 251], ports(5353, 5353, [0, 8, 0, 0]))),
    ethernet(0x0806, to: [255, 255, 255, 255, 255, 255], arp),
    ethernet(0x86dd, ipv6(17, ports(546, 547, [0, 8, 0, 0]))),
    ethernet(0x86dd, ipv6(6, tcp(1, 80, flags: 0x02))),
    ethernet(0x86dd, to: [0x33, 0x33, 0, 0, 0, 1], ipv6(58, [135, 0, 0, 0, 0, 0, 0, 0])),
    ethernet(0x8100, [0, 7, 8, 0] + ipv4(17, ports(1, 2, [0, 8, 0, 0]))),
    ethernet(0x8100, [0x60, 9, 0x86, 0xdd] + ipv6(17, ports(1, 53, [0, 8, 0, 0]))),
    ethernet(0x88a8, [0, 5, 0x81, 0, 0, 7, 8, 0] + ipv4(6, tcp(1, 80, flags: 0x18))),
    ethernet(0x8847, [0, 0, 0x11, 0x40] + ipv4(17, ports(1, 2, [0, 8, 0, 0]))),
    ethernet(0x88cc, [2, 7, 4, 2, 0, 0, 0, 0, 1]),
    ethernet(0x0026, [0x42, 0x42, 3, 0, 0, 0, 0, 0]),
    ethernet(0x0800, [0x46, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 9, 198, 18, 0, 10, 1, 1, 1, 1] + ports(9, 53, [0, 8, 0, 0])),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0],
    [1, 2, 3],
  ]
}
