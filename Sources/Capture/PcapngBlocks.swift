// The bodies of the blocks that are written once: control path, plain arrays.

extension PcapngWriter {
  /// Section header block (4.1): byte order, version 1.0, length unknown.
  static func sectionHeader(application: String) -> [UInt8] {
    var body = BlockBody()
    body.append32(0x1a2b_3c4d)
    body.append16(1)
    body.append16(0)
    body.append64(.max)
    body.option(3, text: "Linux")  // shb_os
    body.option(4, text: application)  // shb_userappl
    body.endOptions()
    return body.bytes
  }

  /// Interface description block (4.2).
  static func description(of interface: CaptureInterface, snapLength: Int) -> [UInt8] {
    var body = BlockBody()
    body.append16(1)  // LINKTYPE_ETHERNET
    body.append16(0)
    body.append32(UInt32(snapLength))
    body.option(2, text: interface.name)  // if_name
    body.option(3, text: interface.description)  // if_description
    if interface.macAddress.count == 6 { body.option(6, interface.macAddress) }  // if_MACaddr
    if interface.speed > 0 { body.option64(8, UInt64(interface.speed) * 1_000_000) }  // if_speed
    body.option(9, [9])  // if_tsresol: ten to the minus nine
    if !interface.filter.isEmpty { body.option(11, [0] + interface.filter.utf8) }  // if_filter, a libpcap string
    body.endOptions()
    return body.bytes
  }

  /// Interface statistics block (4.6).
  static func statistics(_ statistics: CaptureStatistics, interface: Int) -> [UInt8] {
    var body = BlockBody()
    body.append32(UInt32(interface))
    body.appendTime(statistics.end)
    body.optionTime(2, statistics.start)  // isb_starttime
    body.optionTime(3, statistics.end)  // isb_endtime
    body.option64(4, statistics.received)  // isb_ifrecv
    body.option64(5, statistics.dropped)  // isb_ifdrop
    if let accepted = statistics.accepted { body.option64(6, accepted) }  // isb_filteraccept
    body.endOptions()
    return body.bytes
  }
}

/// Bytes of a block's body, little endian.
private struct BlockBody {
  var bytes: [UInt8] = []

  mutating func append16(_ value: UInt16) { bytes += [UInt8(value & 0xff), UInt8(value >> 8)] }

  mutating func append32(_ value: UInt32) {
    append16(UInt16(truncatingIfNeeded: value))
    append16(UInt16(truncatingIfNeeded: value >> 16))
  }

  mutating func append64(_ value: UInt64) {
    append32(UInt32(truncatingIfNeeded: value))
    append32(UInt32(truncatingIfNeeded: value >> 32))
  }

  /// High half first.
  mutating func appendTime(_ value: UInt64) {
    append32(UInt32(truncatingIfNeeded: value >> 32))
    append32(UInt32(truncatingIfNeeded: value))
  }

  /// An option: code, length, value filled up to four bytes. Values over 4096 bytes are cut.
  mutating func option(_ code: UInt16, _ value: some Sequence<UInt8>) {
    let value = Array(value.prefix(4096))
    append16(code)
    append16(UInt16(value.count))
    bytes += value
    while bytes.count % 4 != 0 { bytes.append(0) }
  }

  /// Text; empty text is left out.
  mutating func option(_ code: UInt16, text: String) { if !text.isEmpty { option(code, text.utf8) } }

  mutating func option64(_ code: UInt16, _ value: UInt64) {
    append16(code)
    append16(8)
    append64(value)
  }

  mutating func optionTime(_ code: UInt16, _ value: UInt64) {
    append16(code)
    append16(8)
    appendTime(value)
  }

  mutating func endOptions() { append32(0) }
}
