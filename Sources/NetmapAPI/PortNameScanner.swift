// Reads a port's name from left to right. Every refusal names the character.

struct PortNameScanner {
  private let text: String
  private let bytes: [UInt8]
  private var at = 0

  init(_ text: String) {
    self.text = text
    bytes = Array(text.utf8)
  }

  // MARK: Characters

  private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

  private mutating func take(_ character: Character) -> Bool {
    guard next == character.asciiValue else { return false }
    at += 1
    return true
  }

  /// Up to the first character that is one of `ends`, or the end.
  private mutating func take(upTo ends: String) -> String {
    let start = at, ends = Array(ends.utf8)
    while let byte = next, !ends.contains(byte) { at += 1 }
    return part(start, at)
  }

  private func part(_ from: Int, _ to: Int) -> String { String(decoding: bytes[from..<to], as: UTF8.self) }

  private func starts(with prefix: String) -> Bool { bytes[at...].starts(with: prefix.utf8) }

  /// What is wrong, and where; `place` is the next character where none is given.
  private func refused(_ problem: String, at place: Int? = nil) -> NetmapError {
    let place = place ?? at
    guard place < bytes.count else { return NetmapError(.EINVAL, "`\(text)`, at its end: \(problem).") }
    let rest = part(place, bytes.count)
    let number = part(0, place).count + 1
    return NetmapError(.EINVAL, "`\(text)`, character \(number) (`\(rest.first.map(String.init) ?? "")`): \(problem).")
  }

  /// A number in decimal digits.
  private mutating func number(_ what: String, in range: ClosedRange<UInt64>) throws(NetmapError) -> UInt64 {
    let start = at
    var value: UInt64 = 0
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
      // Beyond the range it stays beyond it.
      value = min(value, 1 << 40) * 10 + UInt64(byte - UInt8(ascii: "0"))
      at += 1
    }
    guard at > start else { throw refused("\(what) is a number") }
    guard range.contains(value) else { throw refused("\(what) lies from \(range.lowerBound) to \(range.upperBound)", at: start) }
    return value
  }

  private static func isIdentifier(_ text: some StringProtocol) -> Bool {
    text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
        true
      default: false
      }
    }
  }

  // MARK: The parts

  mutating func port() throws(NetmapError) -> PortSpecification {
    var port = PortSpecification(name: try name())
    try rings(&port)
    while next != nil {
      if take("/") {
        try flags(&port)
      } else if take("@") {
        try region(&port)
      } else {
        throw refused("flags start with `/`, regions and options with `@`")
      }
    }
    return port
  }

  /// The prefix and what it names; stops at a character of the rings', flags' or options'.
  private mutating func name() throws(NetmapError) -> String {
    let start: Int
    if starts(with: "netmap:") {
      at += 7
      start = at
    } else if starts(with: "vale") {
      start = at
      at += 4
      let identifier = take(upTo: ":")
      guard Self.isIdentifier(identifier) else { throw refused("a switch's name has letters, digits and `_`", at: start + 4) }
      guard take(":") else { throw refused("`:` is missing between the switch and its port, as in `vale0:a`") }
    } else {
      throw refused("a port's name starts with `netmap:`, as `netmap:ix0`, or with a switch, as `vale0:a`")
    }
    let base = at
    try checkedName(base)
    guard at > base else { throw refused("the port's name is missing") }
    let name = part(start, at)
    guard name.utf8.count < NetmapLayout.nameSize else {
      throw refused("a name has at most \(NetmapLayout.nameSize - 1) characters", at: start + NetmapLayout.nameSize - 1)
    }
    return name
  }

  /// Passes over an interface's or a port's name, and a pipe's identifier behind it.
  private mutating func checkedName(_ base: Int) throws(NetmapError) {
    let separators = Array("-*^/@".utf8)
    var pipe: Int?
    while let byte = next, !separators.contains(byte) {
      guard (0x21...0x7e).contains(byte) else { throw refused("names have printable ASCII characters and no spaces") }
      if byte == UInt8(ascii: "{") || byte == UInt8(ascii: "}"), pipe == nil {
        guard at > base else { throw refused("the port that the pipe belongs to is missing, as in `p{1`") }
        pipe = at + 1
      } else if pipe != nil, !Self.isIdentifier(part(at, at + 1)) {
        throw refused("a pipe's identifier has letters, digits and `_`")
      }
      at += 1
    }
    if pipe == at { throw refused("the pipe's identifier is missing, as in `p{1`") }
  }

  private mutating func rings(_ port: inout PortSpecification) throws(NetmapError) {
    // netmap's own limit is one less than the field's mask.
    let range: ClosedRange<UInt64> = 0...UInt64(LegacyRing.mask - 1)
    if take("*") {
      port.register.setMode(.nicAndSoftware)
    } else if take("-") {
      port.register.setMode(.oneNIC(Int(try number("the ring behind `-`", in: range))))
    } else if take("^") {
      let isOne = next.map { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ?? false
      port.register.setMode(isOne ? .oneSoftware(Int(try number("the ring behind `^`", in: range))) : .software)
    }
  }

  private mutating func flags(_ port: inout PortSpecification) throws(NetmapError) {
    let start = at
    while let byte = next, byte != UInt8(ascii: "@") {
      guard let flag = NetmapPortName.flags.first(where: { $0.letter == byte })?.flag else { throw refused("the flags are x, z, t, r, R and T") }
      port.register.flags |= flag.rawValue
      at += 1
    }
    guard at > start else { throw refused("a flag is missing: x, z, t, r, R or T") }
  }

  private mutating func region(_ port: inout PortSpecification) throws(NetmapError) {
    let start = at
    if let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
      let id = UInt16(try number("a memory region", in: 1...UInt64(UInt16.max)))
      guard port.register.memoryID == 0 || port.register.memoryID == id else {
        throw refused("memory region \(port.register.memoryID) was asked for already", at: start)
      }
      port.register.memoryID = id
    } else if starts(with: "/") || starts(with: "./") || starts(with: "../") {
      try setExternal(&port, .init(path: take(upTo: "@")), start)
    } else if starts(with: "netmap:") || starts(with: "vale") {
      try setShare(&port, start)
    } else {
      try option(&port)
    }
  }

  private mutating func setShare(_ port: inout PortSpecification, _ start: Int) throws(NetmapError) {
    guard port.share == nil else { throw refused("a port to share memory with was named already", at: start) }
    port.share = try name()
    guard next == nil || next == UInt8(ascii: "@") else { throw refused("only another `@` may follow the port to share memory with") }
  }

  private func setExternal(_ port: inout PortSpecification, _ file: PortSpecification.ExternalFile, _ start: Int) throws(NetmapError) {
    guard port.external == nil else { throw refused("a memory file was named already", at: start) }
    guard !file.path.isEmpty else { throw refused("the memory file's name is missing", at: start) }
    port.external = file
  }

  // MARK: Options

  private mutating func option(_ port: inout PortSpecification) throws(NetmapError) {
    let start = at
    let name = take(upTo: ":=@")
    switch name {
    case "share":
      guard take("=") || take(":") else { throw refused("`share` needs a port, as in `@share=netmap:ix0`") }
      if starts(with: "port=") { at += 5 }
      try setShare(&port, start)
    case "conf": try sizes(&port)
    case "extmem": try external(&port, start)
    case "offset": try offset(&port, start)
    default: throw refused("the options are share, conf, extmem and offset, or a region's number", at: start)
    }
  }

  /// `=value`, for the option's first key, or `:key=value,…`. Keys may be written with `-` or `_`.
  private mutating func keys(_ option: String, _ known: [String]) throws(NetmapError) -> [(key: String, place: Int)] {
    // Values are read by the caller, from their places.
    if take("=") { return [(known[0], skipValue("@"))] }
    guard take(":") else { throw refused("`\(option)` needs `=` and a value, or `:` and keys") }
    var found: [(key: String, place: Int)] = []
    repeat {
      let start = at
      let key = take(upTo: "=,@").split(separator: "_", omittingEmptySubsequences: false).joined(separator: "-")
      guard known.contains(key) else { throw refused("the keys of `\(option)` are \(known.joined(separator: ", "))", at: start) }
      guard !found.contains(where: { $0.key == key }) else { throw refused("`\(key)` was given already", at: start) }
      guard take("=") else { throw refused("`\(key)` needs `=` and a value") }
      found.append((key, skipValue(",@")))
    } while take(",")
    return found
  }

  private mutating func skipValue(_ ends: String) -> Int {
    let start = at
    _ = take(upTo: ends)
    return start
  }

  /// The number at a place, which ends with the value there.
  private func value(_ key: String, at place: Int, most: UInt64) throws(NetmapError) -> UInt64 {
    var scanner = self
    scanner.at = place
    let number = try scanner.number("`\(key)`", in: 0...most)
    if let byte = scanner.next, byte != UInt8(ascii: ","), byte != UInt8(ascii: "@") { throw scanner.refused("`\(key)` is a number") }
    return number
  }

  private mutating func sizes(_ port: inout PortSpecification) throws(NetmapError) {
    let found = try keys(
      "conf", ["rings", "tx-rings", "rx-rings", "host-rings", "host-tx-rings", "host-rx-rings", "slots", "tx-slots", "rx-slots"])
    // The general keys first: the others are more exact.
    let general = ["rings", "host-rings", "slots"]
    for (key, place) in found.filter({ general.contains($0.key) }) + found.filter({ !general.contains($0.key) }) {
      let isSlots = key.hasSuffix("slots")
      let count = try value(key, at: place, most: isSlots ? UInt64(UInt32.max) : UInt64(UInt16.max))
      let rings = UInt16(truncatingIfNeeded: count), slots = UInt32(truncatingIfNeeded: count)
      switch key {
      case "rings": (port.register.transmitRings, port.register.receiveRings) = (rings, rings)
      case "tx-rings": port.register.transmitRings = rings
      case "rx-rings": port.register.receiveRings = rings
      case "host-rings": (port.register.hostTransmitRings, port.register.hostReceiveRings) = (rings, rings)
      case "host-tx-rings": port.register.hostTransmitRings = rings
      case "host-rx-rings": port.register.hostReceiveRings = rings
      case "slots": (port.register.transmitSlots, port.register.receiveSlots) = (slots, slots)
      case "tx-slots": port.register.transmitSlots = slots
      default: port.register.receiveSlots = slots
      }
    }
  }

  private mutating func external(_ port: inout PortSpecification, _ start: Int) throws(NetmapError) {
    let found = try keys("extmem", ["file", "if-num", "if-size", "ring-num", "ring-size", "buf-num", "buf-size"])
    var file = PortSpecification.ExternalFile(path: "")
    for (key, place) in found {
      if key == "file" {
        var scanner = self
        scanner.at = place
        // As the option's only value it may have commas.
        file.path = scanner.take(upTo: part(start, place) == "extmem=" ? "@" : ",@")
        continue
      }
      let number = UInt32(truncatingIfNeeded: try value(key, at: place, most: UInt64(UInt32.max)))
      switch key {
      case "if-num": file.pools.interfaces.objects = number
      case "if-size": file.pools.interfaces.objectSize = number
      case "ring-num": file.pools.rings.objects = number
      case "ring-size": file.pools.rings.objectSize = number
      case "buf-num": file.pools.buffers.objects = number
      default: file.pools.buffers.objectSize = number
      }
    }
    try setExternal(&port, file, start)
  }

  private mutating func offset(_ port: inout PortSpecification, _ start: Int) throws(NetmapError) {
    let found = try keys("offset", ["initial", "bits"])
    guard port.offsets == nil else { throw refused("an offset was given already", at: start) }
    guard let initial = found.first(where: { $0.key == "initial" }) else { throw refused("`offset` needs `initial`", at: start) }
    let bytes = try value("initial", at: initial.place, most: UInt64(UInt16.max))
    var offsets = OffsetsOption(largest: bytes, initial: bytes)
    if let bits = found.first(where: { $0.key == "bits" }) {
      offsets.bits = UInt32(truncatingIfNeeded: try value("bits", at: bits.place, most: 64))
    }
    port.offsets = offsets
  }
}
