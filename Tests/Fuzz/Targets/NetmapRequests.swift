// netmap's requests as bytes: control requests laid flat and behind a program's pointers, the legacy ones, and the
// messages that carry them. Whatever is understood reads back as it was written; whatever is not is refused with a reason.

import NetmapAPI

enum NetmapRequests {
  static func run(_ input: inout FuzzInput) -> [String] {
    var problems: [String] = []
    while !input.isAtEnd, problems.isEmpty {
      switch input.below(6) {
      case 0: problems += flat(input.take(input.below(600)))
      case 1: problems += flat(almostRight(&input))
      case 2: problems += behindPointers(&input)
      case 3: problems += legacy(&input)
      default: problems += messages(&input)
      }
    }
    return problems
  }

  // MARK: Control requests

  private static func flat(_ bytes: [UInt8]) -> [String] {
    do throws(NetmapError) {
      var request = try FlatRequest(decoding: bytes)
      var problems = roundTrip(request)
      guard request.nameBytes.count == 64, request.nameBytes[63] == 0 else { return ["a name without an end"] }
      let shape = request.options.map { ($0.type, $0.bytes.count) }
      do throws(NetmapError) {
        try request.admit()
        problems += bodies(request)
      } catch { problems += spoken(error) }
      // Whether it is admitted or not: the options are those that came.
      if !zip(shape, request.options).allSatisfy({ $0.0 == $1.type && $0.1 == $1.bytes.count }) { problems.append("admit changed the options' shape") }
      return problems + roundTrip(request)
    } catch { return spoken(error) }
  }

  private static func roundTrip(_ request: FlatRequest) -> [String] {
    guard let again = try? FlatRequest(decoding: request.encoded()), again == request else { return ["\(request) is not read as it was written"] }
    return []
  }

  private static func spoken(_ error: NetmapError) -> [String] { error.problem.isEmpty ? ["an error without a sentence"] : [] }

  /// What was admitted has a body that its request can read, and answers that fit.
  private static func bodies(_ request: FlatRequest) -> [String] {
    func check<B: NetmapBody>(_ type: B.Type) -> [String] {
      guard let body = try? B(decoding: request.body) else { return ["an admitted request has a body that is refused"] }
      var answered = request
      answered.answer(body)
      guard let again = try? B(decoding: answered.body), again == body, answered.body.count == request.body.count else {
        return ["\(body) is not read as it was written"]
      }
      return []
    }
    switch request.kind {
    case .register:
      if let body = try? RegisterRequest(decoding: request.body) { _ = try? body.registerMode() }
      return check(RegisterRequest.self)
    case .portInfo: return check(PortInfo.self)
    case .valeAttach: return check(ValeAttach.self)
    case .valeDetach: return check(ValeDetach.self)
    case .valeList: return check(ValeList.self)
    case .portHeaderSet, .portHeaderGet: return check(PortHeader.self)
    case .valeNewInterface: return check(ValeNewInterface.self)
    case .valePollingEnable, .valePollingDisable: return check(ValePolling.self)
    case .poolsInfo: return check(PoolsInfo.self)
    case .syncLoopStart: return check(SyncLoopStart.self)
    case .valeDeleteInterface, .syncLoopStop, .csbEnable, nil: return request.body.isEmpty ? [] : ["a body where none is expected was admitted"]
    }
  }

  /// A request of a known kind, with options, of which a few bytes are wrong.
  private static func almostRight(_ input: inout FuzzInput) -> [UInt8] {
    let kind = NetmapRequestType(rawValue: UInt16(1 + input.below(15))) ?? .register
    var body = input.take(kind.bodySize)
    body += [UInt8](repeating: 0, count: kind.bodySize - body.count)
    var request = FlatRequest(kind, name: ["vale0:a", "ix0{1", "p}x", "", "em0"][input.below(5)], body: body)
    for _ in 0..<input.below(5) {
      let type = UInt32(input.below(8)), sizes = [72, 0, 16, 8, 32, input.below(100)]
      request.options.append(FlatRequest.Option(type: type, status: UInt32(input.byte()), bytes: input.take(sizes[input.below(6)])))
    }
    var bytes = request.encoded()
    for _ in 0..<input.below(4) { bytes[input.below(bytes.count)] = input.byte() }
    if input.below(8) == 0 { bytes.removeLast(min(bytes.count, input.below(40))) }
    return bytes
  }

  /// The request lies in a program's memory, where pointers may lead anywhere.
  private static func behindPointers(_ input: inout FuzzInput) -> [String] {
    let base: UInt64 = 0x10000
    var memory = input.take(512)
    func put(_ value: UInt64, at: Int) {
      for i in 0..<8 where at + i < memory.count { memory[at + i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * i)) }
    }
    // Mostly pointers that lead somewhere.
    if input.flag() { put(UInt64(14) | UInt64(1 + input.below(15)) << 16, at: 0) }
    if input.flag() { put(base &+ UInt64(input.below(600)), at: 72) }
    if input.flag() { put(base &+ UInt64(input.below(600)), at: 80) }
    for _ in 0..<input.below(4) {
      let at = 88 + 8 * input.below(50)
      put(input.flag() ? base &+ UInt64(input.below(600)) : 0, at: at)
      put(UInt64(input.below(7)), at: at + 8)
      put(UInt64(input.below(200)), at: at + 16)
    }
    let read = ProgramMemory(memory, base)
    var program = FlatRequest.read(at: base) { read.copy($0, $1) }
    var problems: [String] = []
    if let refusal = program.refusal { problems += spoken(refusal) } else { problems += roundTrip(program.request) }
    // An answer: the request's own shape with other values, or garbage.
    var answer = program.request
    for i in answer.options.indices { answer.options[i].status = UInt32(input.byte()) }
    answer.body = answer.body.map { $0 ^ 0x55 }
    do throws(NetmapError) { try program.take(answer: input.below(4) == 0 ? input.take(200) : answer.encoded()) } catch { problems += spoken(error) }
    for write in program.writeBack(errno: input.flag() ? 0 : 22) {
      // Nothing is written where the program's pointers did not lead.
      if !read.wasRead(write.address, write.bytes.count) { problems.append("\(write.bytes.count) bytes at \(write.address) are written, and were not read") }
    }
    return problems
  }

  // MARK: Legacy requests

  private static func legacy(_ input: inout FuzzInput) -> [String] {
    var bytes = input.take(input.below(8) == 0 ? input.below(80) : 60)
    if bytes.count == 60, input.flag() { (bytes[16], bytes[17], bytes[18], bytes[19]) = (14, 0, 0, 0) }
    if bytes.count == 60, input.flag() { (bytes[42], bytes[43]) = (UInt8(input.below(15)), 0) }
    do throws(NetmapError) {
      var request = try LegacyRequest(decoding: bytes)
      guard let again = try? LegacyRequest(decoding: request.encoded()), again == request else { return ["\(request) is not read as it was written"] }
      var problems: [String] = []
      for isInfo in [true, false] {
        do throws(NetmapError) {
          var flat = try isInfo ? request.information() : request.registration()
          problems += roundTrip(flat)
          // What it is translated to is a request like any other.
          do throws(NetmapError) { try flat.admit() } catch { problems.append("the translated request is refused: \(error)") }
          flat.body = flat.body.map { $0 ^ input.byte() }
          try request.take(flat)
          if request.encoded().count != 60 { problems.append("an answer of another size") }
        } catch { problems += spoken(error) }
      }
      return problems
    } catch { return spoken(error) }
  }

  // MARK: Messages

  private static func messages(_ input: inout FuzzInput) -> [String] {
    var bytes = input.take(32 + input.below(200))
    bytes += [UInt8](repeating: 0, count: max(0, 32 - bytes.count))
    let payload = UInt32(bytes.count - 32)
    func put(_ value: UInt32, at: Int) { for i in 0..<4 { bytes[at + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)) } }
    let isReply = input.flag()
    if input.below(4) != 0 {
      put(isReply ? NetmapReplyHead.magic : NetmapRequestHead.magic, at: 0)
      if isReply {
        let cut = UInt32(input.below(Int(payload) + 1))
        put(cut, at: 8)
        put(payload - cut, at: 12)
        for at in 16..<32 { bytes[at] = 0 }
      } else {
        put(UInt32(1 + input.below(3)), at: 4)
        put(payload, at: 16)
        put(0, at: 20)
      }
    }
    do throws(NetmapError) {
      if isReply {
        let (head, payload, text) = try NetmapReplyHead.read(packet: bytes)
        if payload.count != Int(head.payloadLength) { return ["an answer's payload has another length"] }
        let again = NetmapReplyHead.packet(errno: head.errno, payload: payload, text: text, descriptors: Int(head.descriptors))
        // Bytes that are no text are told as such: the packet may differ, and still reads.
        if (try? NetmapReplyHead.read(packet: again)) == nil { return ["an answer is not read as it was written"] }
        return attach(payload)
      }
      let (head, payload) = try NetmapRequestHead.read(packet: bytes)
      guard let again = try? NetmapRequestHead.read(packet: head.packet(payload)), again.head == head, again.payload == payload else {
        return ["\(head) is not read as it was written"]
      }
      switch head.kind {
      case .ioctl: return flat(payload)
      case .query:
        let query = try PortQuery(decoding: payload)
        return (try? PortQuery(decoding: query.encoded())) == query ? [] : ["\(query) is not read as it was written"]
      case .attach: return attach(payload)
      }
    } catch { return spoken(error) }
  }

  private static func attach(_ bytes: [UInt8]) -> [String] {
    do throws(NetmapError) {
      let reply = try NetmapAttachReply(decoding: bytes)
      guard let again = try? NetmapAttachReply(decoding: reply.encoded()), again == reply else { return ["\(reply) is not read as it was written"] }
      for ring in reply.rings where ring.doorbell >= reply.doorbells { return ["a ring has doorbell \(ring.doorbell) of \(reply.doorbells)"] }
      return []
    } catch { return spoken(error) }
  }
}

/// A program's memory, and what of it was looked at.
private final class ProgramMemory {
  private let bytes: [UInt8]
  private let base: UInt64
  private var looked: [Bool]
  init(_ bytes: [UInt8], _ base: UInt64) {
    self.bytes = bytes
    self.base = base
    looked = [Bool](repeating: false, count: bytes.count)
  }

  private func range(_ address: UInt64, _ count: Int) -> Range<Int>? {
    guard address >= base, address - base <= UInt64(bytes.count) else { return nil }
    let start = Int(address - base)
    return count >= 0 && count <= bytes.count - start ? start..<(start + count) : nil
  }
  func copy(_ address: UInt64, _ count: Int) -> [UInt8]? {
    guard let range = range(address, count) else { return nil }
    for i in range { looked[i] = true }
    return Array(bytes[range])
  }
  func wasRead(_ address: UInt64, _ count: Int) -> Bool { range(address, count)?.allSatisfy { looked[$0] } ?? false }
}
