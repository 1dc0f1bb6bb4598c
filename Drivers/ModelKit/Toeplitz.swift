// The receive-side scaling hash (Microsoft, "RSS hashing functions"; 82599 datasheet, 7.1.2.8.1).

/// The Toeplitz hash with a key: for each bit of the input that is set, the 32 bits of the key from
/// that position on, all of them exclusive-ored.
///
/// Four bits of the input are looked up at once: a table of 16 words for each half byte.
public struct Toeplitz: Sendable {
  /// 2 x 16 words for each byte of input.
  private let table: [UInt32]
  /// Bytes of input that the key reaches.
  public let reach: Int

  /// - Parameter key: first byte first; 40 bytes serve every kind of frame, 52 are common with
  ///   virtio. Input beyond `key.count - 4` bytes does not change the hash.
  public init(key: [UInt8]) {
    reach = max(0, key.count - 4)
    var table = [UInt32](repeating: 0, count: reach * 32)
    for at in 0..<reach {
      let window = key[at...at + 4].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      for half in 0..<2 {
        for bits in 1..<16 {
          var value: UInt32 = 0
          for bit in 0..<4 where bits & 8 >> bit != 0 {
            value ^= UInt32(truncatingIfNeeded: window >> UInt64(8 - half * 4 - bit))
          }
          table[at * 32 + half * 16 + bits] = value
        }
      }
    }
    self.table = table
  }

  /// The hash of plain input.
  public func hash(_ input: UnsafeRawBufferPointer) -> UInt32 { unsafe part(input, at: 0) }
  public func hash(_ input: [UInt8]) -> UInt32 { unsafe input.withUnsafeBytes { unsafe part($0, at: 0) } }

  private func part(_ bytes: UnsafeRawBufferPointer, at start: Int) -> UInt32 {
    let count = min(bytes.count, max(0, reach - start))
    return unsafe table.withUnsafeBufferPointer { entries in
      var value: UInt32 = 0
      for i in 0..<count {
        let byte = Int(unsafe bytes.byte(i)), row = (start + i) * 32
        // SAFETY: `start + i` is below `reach`.
        value ^= unsafe entries[row + byte >> 4] ^ entries[row + 16 + byte & 15]
      }
      return value
    }
  }

  /// What of a frame is hashed.
  public enum Input: Sendable {
    /// Source and destination address.
    case addresses
    /// Both addresses and both ports, in the order of the headers.
    case addressesAndPorts
  }

  /// The hash of a frame; nil when it has no such fields (no IP, or no ports: fragments too).
  public func hash(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, over input: Input) -> UInt32? {
    let addresses: Int, size: Int
    switch headers.network {
    case .none: return nil
    case .ipv4: (addresses, size) = (headers.networkOffset + 12, 8)
    case .ipv6: (addresses, size) = (headers.networkOffset + 8, 32)
    }
    let first = unsafe part(frame.piece(addresses, size), at: 0)
    guard case .addressesAndPorts = input else { return first }
    guard headers.transport != .none, !headers.isFragment else { return nil }
    return unsafe first ^ part(frame.piece(headers.transportOffset, 4), at: size)
  }
}
