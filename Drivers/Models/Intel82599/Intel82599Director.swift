// Flow director (datasheet, 7.1.2.7): perfect filters by address and port, and signature filters by
// two hashes of 15 bits.

import ModelKit

/// A perfect filter.
struct Intel82599Rule: Equatable {
  var source: UInt32
  var destination: UInt32
  var ports: UInt32
  var vlan: UInt32
  /// FDIRCMD's layer 4 type (bits 6:5) and IPv6 bit (7).
  var flow: UInt32
  var bucket: UInt32
  var identifier: UInt32
  var queue: Int
  var drops: Bool
}

struct Intel82599Director {
  var isOn = false
  var rules: [Intel82599Rule] = []
  /// Signature filters: bucket and signature to queue.
  var signatures: [UInt32: Int] = [:]
}

extension Intel82599Model {
  func writeDirector(_ at: Int, _ value: UInt32) {
    switch at {
    case At599.director:
      // FDIRCTRL: any memory for filters starts it; initialisation is done at once.
      director.isOn = value & 3 != 0
      director.rules = []
      director.signatures = [:]
      put(at, director.isOn ? value | Bit599.directorDone : value & ~Bit599.directorDone)
      let memory: UInt32 = [0, 2047, 4095, 8191][Int(value & 3)]
      put(At599.directorFree, value & Bit599.directorPerfect == 0 ? memory * 4 : memory)
    case At599.directorCommand: command(value)
    case At599.directorFree, At599.directorLength, At599.directorUse, At599.directorFailures,
      At599.directorMatches, At599.directorMisses: return
    default: put(at, value)
    }
  }

  /// FDIRCMD (8.2.3.21.20): 1 adds, 2 removes, 3 asks. Done when the write returns.
  private func command(_ value: UInt32) {
    var result = value & ~3
    if value & 1 << 8 != 0 {
      director.rules = []
      director.signatures = [:]
    }
    let isPerfect = get(At599.director) & Bit599.directorPerfect != 0
    let hash = get(At599.directorHash)
    let rule = Intel82599Rule(
      source: get(At599.directorSource), destination: get(At599.directorDestination), ports: get(At599.directorPorts),
      vlan: get(At599.directorVLAN), flow: value & 0xe0, bucket: hash & 0x7fff, identifier: hash >> 16,
      queue: Int(value >> 16 & 0x7f), drops: value & 1 << 9 != 0)
    let place = director.rules.firstIndex { $0.bucket == rule.bucket && $0.identifier == rule.identifier }
    switch value & 3 {
    case 1 where isPerfect:
      if let place { director.rules[place] = rule } else { addRule(rule) }
    case 1:
      if director.signatures.count < 8192 { director.signatures[hash & 0x7fff_7fff] = rule.queue }
      countUse(added: 1, removed: 0)
    case 2:
      if isPerfect, let place {
        director.rules.remove(at: place)
        countUse(added: 0, removed: 1)
      } else if !isPerfect, director.signatures.removeValue(forKey: hash & 0x7fff_7fff) != nil {
        countUse(added: 0, removed: 1)
      } else {
        put(At599.directorFailures, get(At599.directorFailures) &+ 0x100)
      }
    case 3: result = (place != nil || director.signatures[hash & 0x7fff_7fff] != nil) ? result | 4 : result & ~4
    default: break
    }
    put(At599.directorCommand, result)
  }

  private func addRule(_ rule: Intel82599Rule) {
    guard director.rules.count < 8192 else {
      put(At599.directorFailures, get(At599.directorFailures) &+ 1)
      return
    }
    director.rules.append(rule)
    countUse(added: 1, removed: 0)
  }

  /// FDIRUSTAT: additions in the lower half, removals in the upper.
  private func countUse(added: UInt32, removed: UInt32) {
    put(At599.directorUse, get(At599.directorUse) &+ (added | removed << 16))
  }

  /// Applies the filters, after receive-side scaling and before it in rank.
  func direct(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, _ arrival: inout Intel82599Arrival) {
    guard headers.network != .none, !headers.isFragment else { return }
    let control = get(At599.director)
    let isPerfect = control & Bit599.directorPerfect != 0
    var report: UInt32 = 0
    if isPerfect {
      guard headers.isIPv4, let found = director.rules.first(where: { unsafe matches($0, frame, headers) }) else {
        return put(At599.directorMisses, get(At599.directorMisses) &+ 1)
      }
      arrival.queue = found.drops ? Int(control >> 8 & 0x7f) : found.queue
      report = found.identifier << 16 | found.bucket
    } else {
      guard headers.transport != .none else { return }
      report = unsafe signature(frame, headers)
      guard let queue = director.signatures[report] else {
        return put(At599.directorMisses, get(At599.directorMisses) &+ 1)
      }
      arrival.queue = queue
    }
    put(At599.directorMatches, get(At599.directorMatches) &+ 1)
    arrival.status |= Done599.directorMatch
    if control & Bit599.directorReport != 0 {
      arrival.hash = report
      arrival.kind &= ~0xf
    }
  }

  /// Bucket (bits 14:0) and signature (30:16) of a frame (7.1.2.7.4): the input of 352 bits, folded
  /// into 32, hashed with the two keys.
  func signature(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> UInt32 {
    var high = unsafe frame.big32(headers.transportOffset)
    let addresses = headers.isIPv4 ? 2 : 8, from = headers.networkOffset + (headers.isIPv4 ? 12 : 8)
    for i in 0..<addresses { high ^= unsafe frame.big32(from + 4 * i) }
    // The flexible word: two bytes from the place that FDIRCTRL names.
    high ^= UInt32(unsafe frame.big16(Int(get(At599.director) >> 16 & 0x1f) * 2)) << 16
    let transport: UInt32 =
      switch headers.transport { case .none: 0; case .udp: 1; case .tcp: 2; case .sctp: 3 }
    let mask = get(At599.directorMask)
    let tag = UInt32(headers.tag) & ~(mask & 1 != 0 ? 0xfff : 0) & ~(mask & 2 != 0 ? 0xe000 : 0)
    let flow = (transport | (headers.isIPv6 ? 4 : 0)) << 16 | tag
    let first = high >> 16 | high << 16
    high ^= flow ^ flow >> 16
    func hash(_ key: UInt32) -> UInt32 {
      // Bit 0 of the input is no part of it: the flow comes in behind it.
      var low = first, value: UInt32 = 0
      for bit in 0..<UInt32(16) {
        if key >> bit & 1 != 0 { value ^= low >> bit }
        if key >> (bit + 16) & 1 != 0 { value ^= high >> bit }
        if bit == 0 { low ^= flow ^ flow << 16 }
      }
      return value & 0x7fff
    }
    return hash(get(At599.directorSignatureKey)) << 16 | hash(get(At599.directorBucketKey))
  }

  /// The registers hold addresses and ports most significant byte first; a bit of a mask that is set is
  /// not compared.
  private func matches(_ rule: Intel82599Rule, _ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> Bool {
    let mask = get(At599.directorMask)
    let source = unsafe frame.big32(headers.networkOffset + 12), target = unsafe frame.big32(headers.networkOffset + 16)
    guard (source ^ rule.source) & ~get(At599.directorSourceMask) == 0,
      (target ^ rule.destination) & ~get(At599.directorDestinationMask) == 0
    else { return false }
    let wanted = rule.flow >> 5 & 3
    let transport: UInt32 =
      switch headers.transport { case .none: 0; case .udp: 1; case .tcp: 2; case .sctp: 3 }
    if mask & 8 == 0, wanted != transport { return false }
    if transport == 1 || transport == 2, wanted != 0 {
      let sourcePort = UInt32(unsafe frame.big16(headers.transportOffset))
      let targetPort = UInt32(unsafe frame.big16(headers.transportOffset + 2))
      let ignored = get(transport == 1 ? At599.directorUDPMask : At599.directorTCPMask)
      // The mask registers hold each port's bits in reverse order: bit 0 is its highest.
      let compared = ~reversed(ignored)
      if (rule.ports ^ (targetPort << 16 | sourcePort)) & compared != 0 { return false }
    }
    if mask & 1 == 0, (rule.vlan ^ UInt32(headers.vlan)) & 0xfff != 0 { return false }
    return true
  }

  /// Bits of each half in reverse order.
  private func reversed(_ value: UInt32) -> UInt32 {
    var result: UInt32 = 0
    for bit in 0..<32 where value >> UInt32(bit) & 1 != 0 { result |= 1 << UInt32(bit & 16 | (15 - (bit & 15))) }
    return result
  }
}
