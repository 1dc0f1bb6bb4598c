import Testing

@testable import Wire

@Suite struct RawChecksumTests {
  @Test func agreesWithTheSimpleSumAtEveryLength() {
    var bytes: [UInt8] = []
    for n in 0..<200 {
      bytes.append(UInt8(truncatingIfNeeded: n &* 73 &+ 201))
      let raw = unsafe bytes.withUnsafeBytes { unsafe InternetChecksum.sum(unsafe: $0.baseAddress!, count: $0.count, initial: 0x1234) }
      #expect(raw == InternetChecksum.sum(bytes, initial: 0x1234))
    }
  }

  @Test func manyOnesDoNotOverflow() {
    let bytes = [UInt8](repeating: 0xff, count: 65535)
    let raw = unsafe bytes.withUnsafeBytes { unsafe InternetChecksum.sum(unsafe: $0.baseAddress!, count: $0.count) }
    #expect(raw == InternetChecksum.sum(bytes))
  }

  /// The example of RFC 1624, section 4: 0x5555 becomes 0x3285 and the checksum 0xdd2f becomes 0x0000.
  @Test func incrementalUpdateOfTheRFC() {
    #expect(InternetChecksum.adjust(0xdd2f, from: 0x5555, to: 0x3285) == 0x0000)
  }

  @Test func aHopLessKeepsTheHeaderRight() throws {
    var bytes: [UInt8] = [0x45, 0, 0, 20, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 19, 255, 254]
    let ends = unsafe bytes.withUnsafeMutableBytes { buffer -> (Bool, [UInt8], Bool) in
      guard let header = unsafe IPv4Header(unsafe: buffer.baseAddress!, count: buffer.count) else { return (false, [], false) }
      header.fillChecksum()
      let filled = header.isChecksumRight
      var lives: [UInt8] = []
      var right = true
      while header.timeToLive > 0 {
        header.decrementTimeToLive()
        right = right && header.isChecksumRight
        lives.append(header.timeToLive)
      }
      return (filled, lives, right)
    }
    #expect(ends.0 && ends.2)
    #expect(ends.1 == Array((0..<64).reversed()))
  }

  @Test func arpMessagesAreReadAndWritten() {
    let message = ARPMessage(
      operation: ARPMessage.reply, senderHardware: MACAddress(2, 0, 0, 0, 0, 1), sender: IPv4Address(198, 18, 0, 1),
      targetHardware: MACAddress(2, 0, 0, 0, 0, 2), target: IPv4Address(198, 18, 0, 2))
    var bytes = [UInt8](repeating: 0, count: 28)
    unsafe bytes.withUnsafeMutableBytes { unsafe message.write(unsafe: $0.baseAddress!) }
    #expect(bytes == [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 2, 0, 0, 0, 0, 2, 198, 18, 0, 2])
    let read = unsafe bytes.withUnsafeBytes { unsafe ARPMessage(unsafe: $0.baseAddress!, count: $0.count) }
    #expect(read == message)
    for (i, value) in [(1, 7), (2, 9), (4, 8), (5, 16)] as [(Int, UInt8)] {
      var wrong = bytes
      wrong[i] = value
      #expect(unsafe wrong.withUnsafeBytes { unsafe ARPMessage(unsafe: $0.baseAddress!, count: $0.count) } == nil)
    }
    #expect(unsafe bytes.withUnsafeBytes { unsafe ARPMessage(unsafe: $0.baseAddress!, count: 27) } == nil)
  }

  @Test func floatingTimes() {
    #expect(IGMP.decode(127) == 127)
    #expect(IGMP.decode(0x80) == 128)
    #expect(IGMP.decode(0xff) == 31744)
  }
}
