import Testing

@testable import Wire

@Suite struct WireTests {
  @Test(arguments: [
    ("52:54:00:12:34:56", 0x5254_0012_3456 as UInt64), ("ff-ff-ff-ff-ff-ff", 0xffff_ffff_ffff), ("0:1:2:3:4:5", 0x0001_0203_0405),
  ])
  func macAddressesAreRead(text: String, value: UInt64) throws {
    let mac = try #require(MACAddress(text))
    #expect(mac.rawValue == value)
    #expect(MACAddress(mac.description) == mac)
    #expect(MACAddress(bytes: mac.bytes) == mac)
  }

  @Test(arguments: ["", "52:54:00:12:34", "52:54:00:12:34:567", "52:54:00:12:34:5g", "+2:54:00:12:34:56", "52:54:00:12:34:56:", "525400123456"])
  func otherTextIsNot(text: String) { #expect(MACAddress(text) == nil) }

  @Test func groupBit() {
    #expect(MACAddress.broadcast.isMulticast)
    #expect(MACAddress(1, 0, 0x5e, 0, 0, 1).isMulticast)
    #expect(MACAddress(2, 0, 0, 0, 0, 1).isUnicast)
    #expect(!MACAddress(rawValue: 0).isUnicast)
  }

  /// The example of RFC 1071, section 3: the sum is ddf2, so the checksum is 220d.
  @Test func checksumOfTheRFC() {
    let bytes: [UInt8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]
    #expect(InternetChecksum.sum(bytes) == 0xddf2)
    #expect(InternetChecksum.of(bytes) == 0x220d)
    #expect(InternetChecksum.sum([0x12]) == 0x1200)
  }
}
