import Testing

@testable import Packet

@Suite struct DropReasonTests {
  @Test func everyReasonHasANameOfItsOwn() {
    #expect(DropReason.netisrQueueFull.description == "netisr-queue-full")
    #expect(DropReason.ipBadChecksum.description == "ip-bad-checksum")
    let names = DropReason.allCases.map(\.description)
    #expect(Set(names).count == names.count)
    #expect(names.allSatisfy { $0.first?.isLetter == true })
  }
}
