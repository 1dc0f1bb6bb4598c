// What stands in a driver's place when its card has left.

internal import DMAMemory
internal import DeviceIO
internal import DriverKit
internal import NetmapCore
internal import Packet
internal import Wire

/// A card that is gone: it receives and sends nothing.
final class GoneDriver: NetDriver, Sendable {
  static let driverName = "none"
  static let interfacePrefix = "none"
  static let matches: [PCIMatch] = []
  static let shared = GoneDriver()

  private init() {}
  init(_ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource)
    throws(DriverError)
  {
    throw .unsupported(card: function.name, what: "it has no driver")
  }

  let options = PortOptions()
  var capabilities: DriverCapabilities { [] }
  var macAddress: MACAddress { MACAddress(rawValue: 0) }
  var queueCount: Int { 0 }
  var link: LinkState { LinkState(status: .down) }
  var health: PortHealth { .gone }
  var maximumFrame: Int { 0 }
  func start(pools: [PacketPool]) throws(DriverError) { throw .gone(card: "the card") }
  func stop() {}
  func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int { 0 }
  func send(queue: Int, _ batch: inout PacketBatch) -> Int { 0 }
  func reclaim(queue: Int) {}
  func eventDescriptor(queue: Int) -> Int32 { -1 }
  var controlDescriptor: Int32 { -1 }
  func armInterrupt(queue: Int) -> Bool { false }
  func maskInterrupt(queue: Int) {}
  func serviceControl() -> DriverEvents { .lost }
  func tick() -> DriverEvents { .lost }
  func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError) { throw .gone(card: "the card") }
  func setMACAddress(_ address: MACAddress) throws(DriverError) { throw .gone(card: "the card") }
  func statistics() -> [Statistic] { [] }
}
