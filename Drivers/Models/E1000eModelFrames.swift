// What the card's parser sees in a frame, and the arithmetic it does on it.

import Wire

/// Where the headers of a frame are.
struct ParsedFrame {
  var network = 14
  var isIPv4 = false
  var isIPv6 = false
  var transport: Int?
  var networkProtocol: UInt8 = 0
  var isFragment = false

  init(_ bytes: [UInt8]) {
    guard bytes.count >= 18 else { return }
    var type = UInt16(bytes[12]) << 8 | UInt16(bytes[13])
    if type == Ethernet.typeVLAN {
      type = UInt16(bytes[16]) << 8 | UInt16(bytes[17])
      network = 18
    }
    if type == Ethernet.typeIPv4, bytes.count >= network + 20, bytes[network] >> 4 == 4 {
      isIPv4 = true
      networkProtocol = bytes[network + 9]
      isFragment = (UInt16(bytes[network + 6]) << 8 | UInt16(bytes[network + 7])) & 0x3fff != 0
      transport = network + Int(bytes[network] & 15) * 4
    } else if type == Ethernet.typeIPv6, bytes.count >= network + 40 {
      isIPv6 = true
      networkProtocol = bytes[network + 6]
      transport = network + 40
    }
    if let start = transport, start + (networkProtocol == 6 ? 20 : 8) > bytes.count { transport = nil }
  }

  var isTCP: Bool { networkProtocol == 6 && transport != nil }
  var isUDP: Bool { networkProtocol == 17 && transport != nil }

  /// Whether the IPv4 header adds up; nil without one.
  func headerIsRight(_ bytes: [UInt8]) -> Bool? {
    guard isIPv4 else { return nil }
    let end = min(bytes.count, network + Int(bytes[network] & 15) * 4)
    return InternetChecksum.sum(bytes[network..<end]) == 0xffff
  }

  /// Whether TCP's or UDP's checksum adds up; nil when there is nothing to check.
  func transportIsRight(_ bytes: [UInt8]) -> Bool? {
    guard let start = transport, isTCP || isUDP, !isFragment else { return nil }
    let length: Int
    let addresses: ArraySlice<UInt8>
    if isIPv4 {
      length = Int(bytes[network + 2]) << 8 + Int(bytes[network + 3]) - (start - network)
      addresses = bytes[network + 12..<network + 20]
    } else {
      length = Int(bytes[network + 4]) << 8 + Int(bytes[network + 5])
      addresses = bytes[network + 8..<network + 40]
    }
    guard length >= 8, start + length <= bytes.count else { return nil }
    if isUDP, bytes[start + 6] == 0, bytes[start + 7] == 0 { return nil }
    let pseudo = Array(addresses) + [0, networkProtocol, UInt8(length >> 8), UInt8(length & 255)]
    return InternetChecksum.sum(pseudo + Array(bytes[start..<start + length])) == 0xffff
  }

  /// Type and input of the receive-side scaling hash (7.1.2.10.1), as far as MRQC enables it.
  func hashInput(_ bytes: [UInt8], enabled: UInt32) -> (type: UInt32, input: [UInt8])? {
    if isIPv4 {
      let addresses = Array(bytes[network + 12..<network + 20])
      if isTCP, !isFragment, enabled & 1 << 16 != 0, let start = transport {
        return (1, addresses + bytes[start..<start + 4])
      }
      return enabled & 1 << 17 != 0 ? (2, addresses) : nil
    }
    if isIPv6 {
      let addresses = Array(bytes[network + 8..<network + 40])
      if isTCP, enabled & 1 << 18 != 0, let start = transport { return (3, addresses + bytes[start..<start + 4]) }
      return enabled & 1 << 20 != 0 ? (5, addresses) : nil
    }
    return nil
  }
}

/// The Toeplitz hash: for each bit of the input that is set, the 32 bits of the key from there.
func toeplitz(_ input: [UInt8], key: [UInt8]) -> UInt32 {
  var result: UInt32 = 0
  var window = UInt32(key[0]) << 24 | UInt32(key[1]) << 16 | UInt32(key[2]) << 8 | UInt32(key[3])
  for (i, byte) in input.enumerated() {
    for bit in 0..<8 {
      if byte & 0x80 >> UInt8(bit) != 0 { result ^= window }
      let incoming = i + 4 < key.count ? UInt32(key[i + 4] >> UInt8(7 - bit) & 1) : 0
      window = window << 1 | incoming
    }
  }
  return result
}
