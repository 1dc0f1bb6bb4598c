// The non-volatile memory of an 82599 card (datasheet, chapter 6), made up: words with a valid
// checksum, a MAC address, a part number, and initialisation sequences for the modules it takes.

/// 4096 words.
struct Intel82599NonVolatile {
  static let count = 4096
  var words = [UInt16](repeating: 0xffff, count: count)
  private var next = 0x40

  /// - Parameter allowsAnyModule: device capabilities word, bit 0: modules of any vendor.
  init(address: [UInt8], allowsAnyModule: Bool) {
    words[0] = 0x3eb4
    words[1] = 0
    words[0x29] = 0x0161  // version
    words[0x2c] = allowsAnyModule ? 1 : 0
    words[0x18] = 0  // no boot option
    // 6.3.5: the LAN core section, with the address in the first three words.
    let pairs = (0..<3).map { UInt16(address[2 * $0]) | UInt16(address[2 * $0 + 1]) << 8 }
    words[0x09] = add(section: pairs + [0, 0])
    words[0x06] = add(section: [0x0004, 0x0010, 0x0003, 0x8086])
    // 6.4.5.5: the part number, as text behind a guard word.
    words[0x15] = 0xfafa
    words[0x16] = add(section: Self.text("RW8259-000"), countsLength: true)
    // 6.3.1: a sequence for each kind of module, by identifier: values for the core control register.
    let list = next
    let identifiers: [UInt16] = [3, 4, 5, 6]
    next += 1 + identifiers.count * 2 + 1
    words[list] = UInt16(identifiers.count * 2 + 1)
    words[0x2b] = UInt16(list)
    for (i, identifier) in identifiers.enumerated() {
      words[list + 1 + 2 * i] = identifier
      words[list + 2 + 2 * i] = add(section: [0x0101, 0x0202 + identifier, 0xffff])
    }
    // 6.5: firmware section; pointers to its parts, one of which bears the version.
    let patch = add(section: [0, 0, 0, 0, 0, 0, 9])
    words[0x0f] = add(section: [0xffff, 0xffff, 0xffff, patch])
    seal()
  }

  /// Adds words behind what is there, with their count in front.
  private mutating func add(section: [UInt16], countsLength: Bool = false) -> UInt16 {
    let at = next
    words[at] = UInt16(section.count + (countsLength ? 1 : 0))
    for (i, word) in section.enumerated() { words[at + 1 + i] = word }
    next += section.count + 1
    return UInt16(at)
  }

  private static func text(_ text: String) -> [UInt16] {
    let bytes = Array(text.utf8)
    return stride(from: 0, to: bytes.count, by: 2).map { at in
      UInt16(bytes[at]) << 8 | (at + 1 < bytes.count ? UInt16(bytes[at + 1]) : 0)
    }
  }

  /// Makes the checksum right (6.2.10): words 0 to 3Fh and the sections that words 3 to Eh point to add
  /// up to BABAh.
  mutating func seal() {
    words[0x3f] = 0
    words[0x3f] = 0xbaba &- sum
  }

  /// The sum that the checksum is about; BABAh when it is right.
  var sum: UInt16 {
    var total = words[0..<0x40].reduce(0, &+)
    for pointer in words[3..<0x0f] where pointer != 0 && pointer != 0xffff && Int(pointer) < words.count {
      let length = Int(words[Int(pointer)])
      guard length > 0, length < 0xffff, Int(pointer) + length < words.count else { continue }
      total = words[Int(pointer) + 1...Int(pointer) + length].reduce(total, &+)
    }
    return total
  }

  /// The MAC address, from the LAN core section.
  var address: (low: UInt32, high: UInt32) {
    let at = Int(words[0x09]) % (words.count - 4)
    return (UInt32(words[at + 1]) | UInt32(words[at + 2]) << 16, UInt32(words[at + 3]))
  }

  subscript(_ at: Int) -> UInt16 {
    get { words.indices.contains(at) ? words[at] : 0xffff }
    set { if words.indices.contains(at) { words[at] = newValue } }
  }
}
