// Which frames come in, and to which queue (datasheet, 7.1.1, 7.1.2).

import ModelKit

/// What the filters keep apart from the registers, so that a frame costs little.
struct Intel82599Filters {
  /// The registers changed.
  var isStale = true
  /// Receive addresses that are valid: six bytes, the first in the lowest place.
  var addresses: [UInt64] = []
  var toeplitz = Toeplitz(key: [UInt8](repeating: 0, count: 40))
  /// EtherType filters that are enabled, by number.
  var etherTypes: [(type: UInt16, index: Int)] = []
  /// RSS field selection (MRQC, upper half); 0: no RSS.
  var hashFields: UInt32 = 0
}

extension Intel82599Model {
  private func refreshFilters() {
    filters.isStale = false
    filters.addresses = (0..<128).compactMap { entry in
      let high = get(At599.addresses + entry * 8 + 4)
      return high >> 31 != 0 ? UInt64(get(At599.addresses + entry * 8)) | UInt64(high & 0xffff) << 32 : nil
    }
    let key = (0..<40).map { UInt8(truncatingIfNeeded: get(At599.hashKey + $0 & ~3) >> UInt32(($0 & 3) * 8)) }
    filters.toeplitz = Toeplitz(key: key)
    filters.etherTypes = (0..<8).compactMap { entry in
      let value = get(At599.etherTypeFilter + entry * 4)
      return value >> 31 != 0 ? (UInt16(truncatingIfNeeded: value), entry) : nil
    }
    let queues = get(At599.multipleQueues)
    // 1: RSS; 4, 5: RSS within traffic classes, of which the model has one; 10, 11: within pools.
    filters.hashFields = [1, 4, 5, 10, 11].contains(queues & 0xf) ? queues >> 16 : 0
  }

  /// The queue and what the write-back says; nil for a frame that is not for this card.
  func classify(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> Intel82599Arrival? {
    if filters.isStale { refreshFilters() }
    var arrival = Intel82599Arrival()
    guard unsafe passesAddress(frame, &arrival), unsafe passesTag(frame), unsafe passesPause(frame, headers) else {
      return nil
    }
    arrival.kind = packetType(headers)
    unsafe checkSums(frame, headers, &arrival)
    if headers.network == .none, let found = filters.etherTypes.first(where: { $0.type == headers.etherType }) {
      arrival.kind = UInt32(0x8000 | found.index << 4)
      let select = get(At599.etherTypeSelect + found.index * 4)
      if select >> 31 != 0 { arrival.queue = Int(select >> 16 & 0x7f) }
      return arrival
    }
    unsafe spread(frame, headers, &arrival)
    if director.isOn { unsafe direct(frame, headers, &arrival) }
    return arrival
  }

  private func passesAddress(_ frame: UnsafeRawBufferPointer, _ arrival: inout Intel82599Arrival) -> Bool {
    let address =
      UInt64(unsafe frame.big32(0).byteSwapped) | UInt64(unsafe frame.big16(4).byteSwapped) << 32
    let control = get(At599.filterControl)
    if address == 0xffff_ffff_ffff { return control & (Bit599.broadcastAccept | Bit599.multicastPromiscuous) != 0 }
    if filters.addresses.contains(address) { return true }
    guard address & 1 != 0 else { return control & Bit599.unicastPromiscuous != 0 }
    if control & Bit599.multicastPromiscuous != 0 { return true }
    let select = get(At599.multicastControl)
    guard select & 4 != 0 else { return false }
    let bit = unsafe FilterHash.multicast(frame, offset: Int(select & 3))
    guard FilterHash.contains(bit, { get(At599.multicastTable + $0 * 4) }) else { return false }
    arrival.status |= Done599.inexact
    return true
  }

  /// VLNCTRL and VFTA (7.1.1.2).
  private func passesTag(_ frame: UnsafeRawBufferPointer) -> Bool {
    let control = get(At599.vlanControl)
    guard control & Bit599.vlanFilter != 0, unsafe frame.big16(12) == UInt16(truncatingIfNeeded: control) else {
      return true
    }
    let tag = unsafe frame.big16(14)
    if control & Bit599.canonicalFilter != 0, (tag & 0x1000 != 0) != (control & Bit599.canonicalValue != 0) {
      return false
    }
    return FilterHash.contains(Int(tag & 0xfff)) { get(At599.vlanTable + $0 * 4) }
  }

  /// MAC control frames (IEEE 802.3, annex 31B): counted, and kept from the host when asked to.
  private func passesPause(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> Bool {
    guard headers.etherType == 0x8808, headers.tagCount == 0, unsafe frame.big16(14) == 1 else { return true }
    count(unsafe frame.big16(16) == 0 ? Count599.pauseOnReceived : Count599.pauseOffReceived)
    return get(At599.flowControl) & Bit599.discardPause == 0
  }

  /// 7.1.6.2, table of packet types.
  private func packetType(_ headers: ParsedHeaders) -> UInt32 {
    var type: UInt32
    switch headers.network {
    case .none: return 0
    case .ipv4: type = headers.hasExtensions ? 0x30 : 0x10
    case .ipv6: type = headers.hasExtensions ? 0xc0 : 0x40
    }
    switch headers.transport {
    case .none: break
    case .tcp: type |= 0x100
    case .udp: type |= 0x200
    case .sctp: type |= 0x400
    }
    return type
  }

  /// Receive checksum offload (7.1.11).
  private func checkSums(
    _ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, _ arrival: inout Intel82599Arrival
  ) {
    guard headers.network != .none else { return }
    defer {
      if arrival.status & (Done599.networkError | Done599.transportError) != 0 { count(Count599.badChecksums) }
    }
    if let right = unsafe FrameChecksum.ipv4HeaderIsRight(frame, headers) {
      arrival.status |= Done599.networkChecked | (right ? 0 : Done599.networkError)
    }
    guard headers.transport != .none, let right = unsafe FrameChecksum.transportIsRight(frame, headers) else { return }
    arrival.status |= Done599.transportChecked | (headers.isUDP ? Done599.udpChecked : 0)
    if !right { arrival.status |= Done599.transportError }
  }

  /// Receive-side scaling (7.1.2.8).
  private func spread(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, _ arrival: inout Intel82599Arrival) {
    let fields = filters.hashFields
    guard fields != 0, headers.network != .none else { return }
    let isIPv4 = headers.isIPv4
    var type: UInt32 = 0
    var hash: UInt32?
    if !headers.isFragment {
      if headers.isTCP, fields & (isIPv4 ? 1 : 1 << 5) != 0 {
        type = isIPv4 ? 1 : 3
      } else if headers.isUDP, fields & (isIPv4 ? 1 << 6 : 1 << 7) != 0 {
        type = isIPv4 ? 7 : 8
      }
      if type != 0 { hash = unsafe filters.toeplitz.hash(frame, headers, over: .addressesAndPorts) }
    }
    if hash == nil, fields & (isIPv4 ? 1 << 1 : 1 << 4) != 0 {
      type = isIPv4 ? 2 : 5
      hash = unsafe filters.toeplitz.hash(frame, headers, over: .addresses)
    }
    guard let hash else { return }
    if get(At599.receiveChecksum) & Bit599.hashInsteadOfChecksum != 0 {
      arrival.hash = hash
      arrival.kind |= type
    }
    let entry = Int(hash & 0x7f)
    arrival.queue = Int(get(At599.redirection + entry & ~3) >> UInt32((entry & 3) * 8) & 0xf)
  }
}
