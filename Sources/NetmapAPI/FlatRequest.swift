// A control request without pointers: as it travels over a program's socket, and as the daemon handles it.
//
//   in a program                                    laid flat
//   nmreq_header ── body ──> 56 bytes …             header, 88 bytes, pointers zero
//          └─ options ──> option ──> option          body's length u32, number of options u32
//                                                    body
//                                                    each option: header of 24 bytes, payload, zeros up to 8
//
// In a flat option's header `next` is zero and `size` counts the payload's bytes.

public struct FlatRequest: Equatable, Sendable {
  public struct Option: Equatable, Sendable {
    /// `nro_reqtype`, whatever the program wrote.
    public var type: UInt32
    /// `nro_status`: an errno; 0 when the option was taken.
    public var status: UInt32
    public var bytes: [UInt8]

    public init(type: UInt32, status: UInt32 = 0, bytes: [UInt8] = []) {
      self.type = type
      self.status = status
      self.bytes = bytes
    }
  }

  public var version: UInt16
  /// `nr_reqtype`, whatever the program wrote.
  public var type: UInt16
  /// `nr_name`: 64 bytes, the last one zero.
  public private(set) var nameBytes: [UInt8]
  public var body: [UInt8]
  public var options: [Option]

  public init(
    _ type: NetmapRequestType, name: String, body: [UInt8]? = nil, options: [Option] = [], version: UInt16 = NetmapLayout.version
  ) {
    self.init(rawType: type.rawValue, version: version, body: body ?? [UInt8](repeating: 0, count: type.bodySize), options: options)
    self.name = name
  }

  public init(_ type: NetmapRequestType, name: String, body: some NetmapBody, options: [Option] = []) {
    self.init(type, name: name, body: body.encoded(), options: options)
  }

  init(rawType: UInt16, version: UInt16, body: [UInt8] = [], options: [Option] = []) {
    self.version = version
    self.type = rawType
    self.nameBytes = [UInt8](repeating: 0, count: NetmapLayout.nameSize)
    self.body = body
    self.options = options
  }

  /// The request asked for; nil for a number that is none.
  public var kind: NetmapRequestType? { NetmapRequestType(rawValue: type) }

  /// The port's name. Bytes that are not UTF-8 read as U+FFFD, which no port's name has.
  public var name: String {
    get { String(decoding: nameBytes.prefix { $0 != 0 }, as: UTF8.self) }
    set { nameBytes.put(newValue, at: 0, NetmapLayout.nameSize) }
  }

  /// As netmap does, a name without an end is cut at 63 bytes.
  mutating func setName(bytes: [UInt8]) {
    nameBytes = bytes.part(0, NetmapLayout.nameSize - 1)
    nameBytes += [UInt8](repeating: 0, count: NetmapLayout.nameSize - nameBytes.count)
  }

  /// Writes the fields of an answer into the body, which keeps its padding.
  public mutating func answer(_ fields: some NetmapBody) { fields.encode(into: &body, at: 0) }

  // MARK: Options

  public func firstOption(_ type: NetmapOptionType) -> Int? { options.firstIndex { $0.type == type.rawValue } }

  /// An option's payload; nil when the request does not have it. EINVAL for a payload of the wrong length.
  public func option<O: NetmapOption>(_ kind: O.Type) throws(NetmapError) -> O? {
    guard let i = firstOption(O.type) else { return nil }
    return try O(decoding: options[i].bytes)
  }

  /// Writes an option's status, and with `payload` its answer.
  public mutating func settle(_ type: NetmapOptionType, _ code: NetmapError.Code? = nil, payload: (any NetmapOption)? = nil) {
    guard let i = firstOption(type) else { return }
    options[i].status = UInt32(code?.rawValue ?? 0)
    if let bytes = payload?.encoded(), bytes.count == options[i].bytes.count { options[i].bytes = bytes }
  }

  public mutating func append(_ option: some NetmapOption) {
    options.append(Option(type: Swift.type(of: option).type.rawValue, bytes: option.encoded()))
  }

  /// Bytes that netmap counts against its limit of 4096: body, and options with their headers.
  var weight: Int { options.reduce(body.count) { $0 + NetmapLayout.optionHeaderSize + $1.bytes.count } }
}

// MARK: Bytes

extension FlatRequest {
  private static let prefix = NetmapLayout.headerSize + 8

  /// EINVAL unless the bytes are one request and nothing more; EMSGSIZE for more than 4096 bytes of body and options.
  /// What the request asks for is looked at by `admit`.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count >= Self.prefix else { throw wrongLength("A control request", bytes.count, Self.prefix) }
    guard bytes.u32(4) == 0, bytes.u64(72) == 0, bytes.u64(80) == 0 else {
      throw NetmapError(.EINVAL, "A reserved field of the control request is not zero.")
    }
    let body = Int(bytes.u32(NetmapLayout.headerSize))
    let count = Int(bytes.u32(NetmapLayout.headerSize + 4))
    guard body <= NetmapLayout.mostBytes, count <= NetmapLayout.mostBytes / NetmapLayout.optionHeaderSize else { throw Self.tooLong() }
    guard body <= bytes.count - Self.prefix else { throw wrongLength("A control request", bytes.count, Self.prefix + body) }
    self.init(rawType: bytes.u16(2), version: bytes.u16(0), body: bytes.part(Self.prefix, body))
    setName(bytes: bytes.part(8, NetmapLayout.nameSize))
    var at = Self.prefix + body
    for _ in 0..<count {
      guard bytes.count - at >= NetmapLayout.optionHeaderSize, bytes.u64(at) == 0 else {
        throw NetmapError(.EINVAL, "Option \(options.count) of the control request is cut short, or points elsewhere.")
      }
      let size = bytes.u64(at + 16)
      guard size <= NetmapLayout.mostBytes else { throw Self.tooLong() }
      let padded = (Int(size) + 7) & ~7
      guard bytes.count - at - NetmapLayout.optionHeaderSize >= padded else {
        throw wrongLength("Option \(options.count) of the control request", bytes.count - at, NetmapLayout.optionHeaderSize + padded)
      }
      options.append(
        Option(type: bytes.u32(at + 8), status: bytes.u32(at + 12), bytes: bytes.part(at + NetmapLayout.optionHeaderSize, Int(size))))
      at += NetmapLayout.optionHeaderSize + padded
    }
    guard at == bytes.count else { throw wrongLength("A control request", bytes.count, at) }
    guard weight <= NetmapLayout.mostBytes else { throw Self.tooLong() }
  }

  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.prefix)
    bytes.put(version, at: 0)
    bytes.put(type, at: 2)
    bytes.replaceSubrange(8..<72, with: nameBytes)
    bytes.put(UInt32(truncatingIfNeeded: body.count), at: NetmapLayout.headerSize)
    bytes.put(UInt32(truncatingIfNeeded: options.count), at: NetmapLayout.headerSize + 4)
    bytes += body
    for option in options {
      var header = [UInt8](repeating: 0, count: NetmapLayout.optionHeaderSize)
      header.put(option.type, at: 8)
      header.put(option.status, at: 12)
      header.put(UInt64(option.bytes.count), at: 16)
      bytes += header + option.bytes + [UInt8](repeating: 0, count: -option.bytes.count & 7)
    }
    return bytes
  }

  static func tooLong() -> NetmapError {
    NetmapError(.EMSGSIZE, "Body and options of a request have at most \(NetmapLayout.mostBytes) bytes. Is the list of options a loop?")
  }
}
