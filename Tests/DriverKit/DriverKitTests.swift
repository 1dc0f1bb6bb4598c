import DMAMemory
import Packet
import Testing

@testable import DriverKit

@Suite struct RingShadowTests {
  @safe final class Buffers {
    let base = UnsafeMutableRawPointer.allocate(byteCount: 8 * 256, alignment: 64)
    deinit { unsafe base.deallocate() }
  }
  let buffers = Buffers()
  var pool: PacketPool {
    unsafe PacketPool(unsafe: buffers.base, stride: 256, iova: IOVA(rawValue: 0x8000), indices: Array(0..<8))
  }

  @Test func aShadowGivesBackWhatItHolds() throws {
    let pool = pool
    do {
      let shadow = RingShadow(count: 4)
      unsafe shadow.slots[1] = PoolState.get(pool.state)
      unsafe shadow.slots[3] = PoolState.get(pool.state)
      let held = shadow.held
      #expect(held == 2)
      #expect(pool.available == 6)
      shadow.releaseAll()
      #expect(pool.available == 8)
      let left = shadow.held
      #expect(left == 0)
      unsafe shadow.slots[0] = PoolState.get(pool.state)
    }
    #expect(pool.available == 8, "a shadow that goes away gives back what it still holds")
  }
}

@Suite struct DriverErrorTests {
  /// Every sentence names the card or the thing it happened to, so that a person can act on it.
  @Test(arguments: [
    DriverError.timeout(card: "0000:03:00.0", waitingFor: "reset"), .gone(card: "0000:03:00.0"),
    .option(card: "0000:03:00.0", name: "mtu", value: "99999", allowed: "68 to 9216"),
    .pool(card: "0000:03:00.0", wanted: 512, available: 3), .device(card: "0000:03:00.0", problem: "x"),
    .unsupported(card: "0000:03:00.0", what: "y"), .function(.gone(function: "0000:03:00.0")),
  ])
  func errorsNameTheCard(error: DriverError) { #expect(error.description.contains("0000:03:00.0")) }
}
