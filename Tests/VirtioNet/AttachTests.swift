// Attaching: what the driver reads, agrees on and refuses.

import DriverKit
import ModelKit
import Models
import NetmapCore
import Packet
import Testing
import Wire

@testable import VirtioNet

@Suite struct AttachTests {
  @Test func `attach reads what the device is and leaves it quiet`() throws {
    let bench = try Bench()
    #expect(bench.driver.macAddress == bench.model.options.address)
    #expect(bench.driver.health == .stopped)
    #expect(bench.model.deviceStatus == 0)
    #expect(!bench.card.isBusMaster)
    #expect(bench.driver.options.receiveDescriptors == 256)
    #expect(bench.driver.options.transmitDescriptors == 256)
    #expect(bench.driver.maximumFrame == 1518)
    #expect(bench.driver.capabilities.contains([.multicastFilter, .setMACAddress, .jumboFrames]))
    #expect(bench.complaints.isEmpty)
  }

  @Test func `both device ids are served, and no other`() {
    #expect(VirtioNetDriver.matches.map(\.device) == [0x1041, 0x1000])
    #expect(VirtioNetDriver.matches.allSatisfy { $0.vendor == 0x1af4 })
  }

  @Test func `options that the device cannot do are refused`() throws {
    var odd = PortOptions()
    odd.receiveDescriptors = 100
    var many = PortOptions()
    many.queues = 2
    var large = PortOptions()
    large.mtu = 9000
    var strip = PortOptions()
    strip.stripVLAN = true
    var single = VirtioNetModelOptions()
    single.features &= ~VirtioModelFeature.mergeableBuffers
    for (model, options) in [
      (VirtioNetModelOptions(), odd), (VirtioNetModelOptions(), many), (single, large), (VirtioNetModelOptions(), strip),
    ] {
      let error = try #require(throws: DriverError.self) { _ = try Bench(model, options) }
      guard case .option = error else {
        Issue.record("\(error)")
        continue
      }
    }
    var limited = VirtioNetModelOptions()
    limited.features |= VirtioModelFeature.mtu
    #expect(throws: DriverError.option(card: "model:virtio-net", name: "mtu", value: "9000", allowed: "68 to 1500")) {
      _ = try Bench(limited, large)
    }
  }

  @Test func `a device behind an IOMMU that does not know of it is refused with the remedy`() throws {
    var options = VirtioNetModelOptions()
    options.features &= ~VirtioModelFeature.accessPlatform
    let error = try #require(throws: DriverError.self) { _ = try Bench(options) }
    #expect(error.description.contains("VIRTIO_F_ACCESS_PLATFORM"))
    #expect(error.description.contains("iommu_platform=on"))
  }

  @Test func `too little descriptor memory is an error, and leaves nothing mapped`() throws {
    let card = try InProcessCard(VirtioNetModel())
    let clock = BenchClock()
    clock.card = card
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: 64, minimumBuffers: 16,
        descriptorBytes: 12288),
      backing: .normalPages, reachable: [card])
    let error = try #require(throws: DriverError.self) {
      _ = try VirtioNetDriver(card, allocator: allocator, options: PortOptions(), clock: clock)
    }
    guard case .allocator = error else {
      Issue.record("\(error)")
      return
    }
    #expect(card.model.bus.memory.bytes == 0)
  }

  @Test func `the card is unmapped when the driver goes away`() throws {
    var bench: Bench? = try Bench()
    let model = try #require(bench?.model)
    try bench?.start()
    #expect(model.bus.memory.bytes > 0)
    bench = nil
    #expect(model.bus.memory.bytes == 0)
    #expect(model.deviceStatus == 0)
    #expect(model.bus.complaints.isEmpty)
  }
}
