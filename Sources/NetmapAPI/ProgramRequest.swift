// A control request in a program's memory: read through its pointers, and written back.
//
// The memory is the caller's business: it hands in a closure that copies bytes out, nil where it cannot, and gets pairs of
// address and bytes to write. Everything is read once, so that a program that changes its request meanwhile cheats itself.

public struct ProgramRequest: Sendable {
  /// The request, laid flat. Whoever sends it on may change payloads; `take` brings the answer back.
  public var request: FlatRequest
  /// Why the request must not be sent on; statuses are to be written back all the same.
  public let refusal: NetmapError?
  private let header: UInt64
  private let originalName: [UInt8]
  private let bodyAddress: UInt64
  private let optionAddresses: [UInt64]

  /// A write into the program's memory.
  public struct Write: Equatable, Sendable {
    public let address: UInt64
    public let bytes: [UInt8]
  }

  fileprivate init(
    _ request: FlatRequest, _ refusal: NetmapError?, header: UInt64, name: [UInt8] = [], body: UInt64 = 0, options: [UInt64] = []
  ) {
    self.request = request
    self.refusal = refusal
    self.header = header
    self.originalName = name
    self.bodyAddress = body
    self.optionAddresses = options
  }

  /// Takes the daemon's answer: EIO unless it has the request's shape.
  public mutating func take(answer: [UInt8]) throws(NetmapError) {
    let flat = try FlatRequest(decoding: answer)
    guard flat.body.count == request.body.count, flat.options.count == request.options.count,
      zip(flat.options, request.options).allSatisfy({ $0.type == $1.type && $0.bytes.count == $1.bytes.count })
    else { throw NetmapError(.EIO, "The daemon's answer does not fit the request. Use daemon and library of the same version.") }
    request = flat
  }

  /// What to write: the name where the answer has another, the body unless there was an error, every option's status, and
  /// the payload of options that answer (EXTMEM's pools, OFFSETS) where they were taken.
  /// - Parameter errno: the request's result; 0 when it was done.
  public func writeBack(errno: Int32) -> [Write] {
    var writes: [Write] = []
    if !originalName.isEmpty, request.nameBytes != originalName {
      writes.append(Write(address: header &+ 8, bytes: request.nameBytes))
    }
    if errno == 0, bodyAddress != 0, !request.body.isEmpty { writes.append(Write(address: bodyAddress, bytes: request.body)) }
    for (address, option) in zip(optionAddresses, request.options) {
      var status = [UInt8](repeating: 0, count: 4)
      status.put(option.status, at: 0)
      writes.append(Write(address: address &+ 12, bytes: status))
      guard errno == 0, option.status == 0 else { continue }
      let payload = address &+ UInt64(NetmapLayout.optionHeaderSize)
      switch NetmapOptionType(rawValue: option.type) {
      // The memory's address stays the program's: on the way it was an offset.
      case .externalMemory: writes.append(Write(address: payload &+ 8, bytes: option.bytes.part(8, option.bytes.count)))
      case .offsets: writes.append(Write(address: payload, bytes: option.bytes))
      case .loopEvents, .controlBlocks, .loopMode, nil: break
      }
    }
    return writes
  }
}

extension FlatRequest {
  /// Flattens the `struct nmreq_header` at `address`.
  ///
  /// The result's `refusal` is EFAULT for a pointer that cannot be read, EINVAL for a version outside 14...15, a reserved
  /// field that is not 0, a body where none is expected or none where one is, an unknown request, an option of type 0
  /// or one that is there twice; EMSGSIZE for a looped list or more than 4096 bytes.
  /// - Parameter memory: copies so many bytes out of the program; nil where it cannot.
  public static func read(at address: UInt64, from memory: (_ address: UInt64, _ count: Int) -> [UInt8]?) -> ProgramRequest {
    var request = FlatRequest(rawType: 0, version: 0)
    guard let head = memory(address, NetmapLayout.headerSize), head.count == NetmapLayout.headerSize else {
      return ProgramRequest(request, unreadable("The request's header", address), header: address)
    }
    request.version = head.u16(0)
    request.type = head.u16(2)
    request.setName(bytes: head.part(8, NetmapLayout.nameSize))
    guard NetmapLayout.versions.contains(request.version) else {
      return ProgramRequest(request, wrongVersion(request.version), header: address)
    }
    guard head.u32(4) == 0 else {
      return ProgramRequest(request, NetmapError(.EINVAL, "`nr_reserved` of the request's header is not zero."), header: address)
    }
    let body = head.u64(80)
    let size = request.kind?.bodySize ?? 0
    guard (size > 0) == (body != 0) else {
      let problem = size > 0 ? "Request \(request.type) needs a body and has none." : "Request \(request.type) has a body where none is expected."
      return ProgramRequest(request, NetmapError(.EINVAL, problem), header: address)
    }
    let name = head.part(8, NetmapLayout.nameSize)
    if size > 0 {
      guard let bytes = memory(body, size), bytes.count == size else {
        return ProgramRequest(request, unreadable("The request's body", body), header: address, name: name)
      }
      request.body = bytes
    }
    var addresses: [UInt64] = []
    var refusal: NetmapError?
    do throws(NetmapError) {
      try request.readOptions(at: head.u64(72), into: &addresses, from: memory)
      for i in request.options.indices { request.options[i].status = notSupported }
      if request.kind == nil { refusal = NetmapError(.EINVAL, "There is no control request \(request.type); they are 1 to 15.") }
    } catch { refusal = error }
    return ProgramRequest(request, refusal, header: address, name: name, body: body, options: addresses)
  }

  private mutating func readOptions(
    at first: UInt64, into addresses: inout [UInt64], from memory: (UInt64, Int) -> [UInt8]?
  ) throws(NetmapError) {
    var next = first
    while next != 0 {
      guard weight + NetmapLayout.optionHeaderSize <= NetmapLayout.mostBytes else {
        // It may be a loop: nothing is written into it.
        addresses = []
        throw Self.tooLong()
      }
      guard let header = memory(next, NetmapLayout.optionHeaderSize), header.count == NetmapLayout.optionHeaderSize else {
        throw Self.unreadable("Option \(options.count)", next)
      }
      let type = NetmapOptionType(rawValue: header.u32(8))
      options.append(Option(type: header.u32(8)))
      addresses.append(next)
      try readPayload(type, size: header.u64(16), at: next, from: memory)
      next = header.u64(0)
    }
  }

  /// The payload of the option that was read last.
  private mutating func readPayload(
    _ type: NetmapOptionType?, size: UInt64, at address: UInt64, from memory: (UInt64, Int) -> [UInt8]?
  ) throws(NetmapError) {
    let last = options.count - 1
    // Types and doubles first, as netmap does; the payload is not there yet.
    guard let type, options[..<last].allSatisfy({ $0.type != options[last].type }) else { return try checkOption(last) }
    guard size <= NetmapLayout.mostBytes else { throw Self.tooLong() }
    let count = type.payloadSize ?? max(0, Int(size) - NetmapLayout.optionHeaderSize)
    guard weight + count <= NetmapLayout.mostBytes else { throw Self.tooLong() }
    guard count > 0 else { return }
    let payload = address &+ UInt64(NetmapLayout.optionHeaderSize)
    guard let bytes = memory(payload, count), bytes.count == count else { throw Self.unreadable("The payload of option \(last)", payload) }
    options[last].bytes = bytes
  }

  private static func unreadable(_ what: String, _ address: UInt64) -> NetmapError {
    NetmapError(.EFAULT, "\(what) at 0x\(String(address, radix: 16)) cannot be read.")
  }
}
