// Frames of the matrix: numbered, of several flows and kinds, with checksums that are right.

import ModelKit
import Wire

struct FrameShape {
  var isIPv6 = false
  var isTCP = false
  var flow = 0
  var size = 60
  var vlan: UInt16?
  var destination: MACAddress
}

enum Frames {
  private static func big16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }

  /// A frame with its number in the first bytes of data. `size` is that of the frame, without a tag.
  static func make(_ number: Int, _ shape: FrameShape) -> [UInt8] {
    let headers = 14 + (shape.isIPv6 ? 40 : 20) + (shape.isTCP ? 20 : 8)
    let size = max(shape.size, headers + 8)
    var frame = shape.destination.bytes + [2, 0, 0, 0, 0, 9]
    frame.reserveCapacity(size + 4)
    if let vlan = shape.vlan { frame += [0x81, 0] + big16(Int(vlan)) }
    if shape.isIPv6 {
      frame += [0x86, 0xdd, 0x60, 0, 0, 0] + big16(size - 54) + [shape.isTCP ? 6 : 17, 64]
      frame += [0x20, 1, 0, 2] + [UInt8](repeating: 0, count: 10) + big16(shape.flow + 1)
      frame += [0x20, 1, 0, 2] + [UInt8](repeating: 0, count: 11) + [2]
    } else {
      frame += [8, 0, 0x45, 0] + big16(size - 14) + big16(number) + [0x40, 0, 64, shape.isTCP ? 6 : 17, 0, 0]
      frame += [198, 18, 1, UInt8(truncatingIfNeeded: shape.flow), 198, 18, 0, 2]
    }
    frame += big16(1024 + shape.flow * 7) + big16(80)
    frame += shape.isTCP ? [0, 0] + big16(number) + [0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0] : big16(size - headers + 8) + [0, 0]
    for shift in stride(from: 56, through: 0, by: -8) { frame.append(UInt8(truncatingIfNeeded: number >> shift)) }
    let rest = size + (shape.vlan == nil ? 0 : 4) - frame.count
    frame += [UInt8](repeating: UInt8(truncatingIfNeeded: number &* 31 &+ 7), count: max(0, rest))
    finish(&frame)
    return frame
  }

  /// Writes both checksums.
  static func finish(_ frame: inout [UInt8]) {
    unsafe frame.withUnsafeMutableBytes { bytes in
      let headers = unsafe ParsedHeaders(UnsafeRawBufferPointer(bytes))
      if headers.isIPv4 { unsafe FrameChecksum.insertIPv4Header(bytes, at: headers.networkOffset) }
      unsafe FrameChecksum.insertTransport(bytes, headers)
    }
  }

  static func parse(_ frame: [UInt8]) -> ParsedHeaders { unsafe frame.withUnsafeBytes { unsafe ParsedHeaders($0) } }
  static func isRight(_ frame: [UInt8]) -> (network: Bool?, transport: Bool?) {
    unsafe frame.withUnsafeBytes { bytes in
      let headers = unsafe ParsedHeaders(bytes)
      return unsafe (FrameChecksum.ipv4HeaderIsRight(bytes, headers), FrameChecksum.transportIsRight(bytes, headers))
    }
  }

  /// As a driver hands it to a card that is to insert checksums: the pseudo header's sum stands in the
  /// field, with the length or without.
  static func seeded(_ frame: [UInt8], withLength: Bool) -> [UInt8] {
    var made = frame
    let headers = parse(frame), at = headers.transportOffset
    let sum = unsafe frame.withUnsafeBytes {
      unsafe FrameChecksum.pseudoHeader($0, headers, length: withLength ? headers.networkEnd - at : 0)
    }
    let folded = sum % 0xffff
    let field = at + (headers.isTCP ? 16 : 6)
    made[field] = UInt8(folded >> 8)
    made[field + 1] = UInt8(folded & 255)
    if headers.isIPv4 { made.replaceSubrange(headers.networkOffset + 10..<headers.networkOffset + 12, with: [0, 0]) }
    return made
  }
}

extension Rig {
  /// A shape drawn by the seed: mostly short, sometimes as long as the port takes.
  func shape(flows: Int = 64, tags: Bool = true, longest: Int = .max) -> FrameShape {
    var shape = FrameShape(destination: driver.macAddress)
    shape.isIPv6 = below(4) == 0
    shape.isTCP = below(2) == 0
    shape.flow = below(flows)
    shape.size = below(6) == 0 ? 60 + below(min(longest, cell.mtu + 14) - 60 + 1) : 60 + below(200)
    shape.vlan = tags && below(5) == 0 ? UInt16(1 + below(4000) | below(8) << 13) : nil
    return shape
  }

  func frame() -> [UInt8] { Frames.make(nextNumber(), shape()) }
}
