// Structures of linux/vfio.h as bytes: bounded reading and writing.
//
// Most of them grow: the caller says how many bytes it has room for (argsz), the answer says how
// many there are, and behind the fixed part lies a chain of capabilities.

extension [UInt8] {
  /// A field in host order, or nil when it does not lie inside.
  func field<Field: FixedWidthInteger>(_ type: Field.Type, at offset: Int) -> Field? {
    let size = Field.bitWidth / 8
    guard offset >= 0, offset <= count - size else { return nil }
    var value: Field = 0
    for index in 0..<size { value |= Field(truncatingIfNeeded: self[offset + index]) << Field(index * 8) }
    return Field(littleEndian: value.littleEndian)
  }

  /// Writes a field. `offset` must lie inside: the caller made the array.
  mutating func set<Field: FixedWidthInteger>(_ value: Field, at offset: Int) {
    for index in 0..<Field.bitWidth / 8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> Field(index * 8)) }
  }

  /// A structure of `count` bytes whose first field, argsz, says so.
  init(structure count: Int) {
    self.init(repeating: 0, count: count)
    set(UInt32(count), at: 0)
  }
}

/// One member of a capability chain (struct vfio_info_cap_header).
struct VFIOCapability: Equatable {
  var id: UInt16
  var version: UInt16
  /// Where its header starts in the answer; the contents follow 8 bytes later.
  var offset: Int
  var contents: Int { offset + 8 }
}

/// Why an answer is not believed.
struct VFIOMalformed: Error, Equatable {
  var what: String
  init(_ what: String) { self.what = what }
}

/// Walks the capability chain of an answer.
/// - Parameters:
///   - bytes: the whole answer.
///   - first: offset of the first capability; 0 when there is none.
///   - fixed: size of the fixed part, which no capability may overlap.
/// - Throws: when the chain leaves the answer, or comes back to where it was.
func capabilities(in bytes: [UInt8], first: UInt32, fixed: Int) throws(VFIOMalformed) -> [VFIOCapability] {
  var found: [VFIOCapability] = []
  var seen: Set<Int> = []
  var offset = Int(first)
  while offset != 0 {
    guard offset >= fixed, let id = bytes.field(UInt16.self, at: offset),
      let version = bytes.field(UInt16.self, at: offset + 2), let next = bytes.field(UInt32.self, at: offset + 4)
    else { throw VFIOMalformed("a capability lies at byte \(offset) of \(bytes.count)") }
    guard seen.insert(offset).inserted else { throw VFIOMalformed("the capability chain runs in a circle") }
    found.append(VFIOCapability(id: id, version: version, offset: offset))
    offset = Int(next)
  }
  return found
}
