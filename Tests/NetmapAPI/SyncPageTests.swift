import NetmapAPI
import Testing

@Suite("The sync page")
struct SyncPageTests {
  @Test("What the two sides write never shares a cache line")
  func lines() {
    var lines: [Int: String] = [:]
    func put(_ offset: Int, _ side: String) {
      #expect(lines[offset / 64, default: side] == side)
      lines[offset / 64] = side
    }
    for offset in [SyncPage.magicOffset, SyncPage.versionOffset, SyncPage.ringCountOffset, SyncPage.doorbellCountOffset, SyncPage.stateOffset, SyncPage.flagsOffset] {
      put(offset, "daemon")
    }
    put(SyncPage.receiveArmed, "program")
    put(SyncPage.transmitArmed, "program, transmit")
    put(SyncPage.loopState, "library")
    for d in 0..<SyncPage.mostDoorbells { put(SyncPage.sleeping(d), "daemon") }
    for r in 0..<32 {
      for field in [SyncPage.request, SyncPage.waiters] { put(SyncPage.ring(r) + field, "program") }
      for field in [SyncPage.done, SyncPage.hwcur, SyncPage.hwtail, SyncPage.status] { put(SyncPage.ring(r) + field, "daemon") }
    }
    #expect(SyncPage.sleeping(SyncPage.mostDoorbells) <= SyncPage.ringsOffset)
  }

  @Test("A page is whole pages, and has room for its rings")
  func sizes() {
    #expect(SyncPage.bytes(rings: 0) == 4096)
    #expect(SyncPage.bytes(rings: 16) == 4096)
    #expect(SyncPage.bytes(rings: 17) == 8192)
    for rings in 0..<200 {
      #expect(SyncPage.bytes(rings: rings) >= SyncPage.ring(rings))
      #expect(SyncPage.bytes(rings: rings) % 4096 == 0)
    }
  }
}
