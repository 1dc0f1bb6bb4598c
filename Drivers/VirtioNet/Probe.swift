// What a device is, found out once, at attach.

import DeviceIO
import DriverKit
import VirtioTransport
import Wire

extension DriverError {
  init(_ error: VirtioError) {
    switch error {
    case .noStructure(let device, let structure):
      self = .unsupported(
        card: device,
        what: "modern virtio: it shows no usable \(structure) structure; in QEMU, add `disable-legacy=on` to the device")
    case .missingFeatures(let device, let names):
      self = .unsupported(
        card: device,
        what:
          "DMA through an IOMMU: it does not offer \(names.joined(separator: " and ")); in QEMU, add `iommu_platform=on,disable-legacy=on` to the device"
      )
    case .featuresRefused(let device, let accepted):
      self = .device(card: device, problem: "it refused features 0x\(String(accepted, radix: 16)) that it had offered")
    case .timeout(let device, let what): self = .timeout(card: device, waitingFor: what)
    case .queue(let device, let index, let problem): self = .device(card: device, problem: "queue \(index): \(problem)")
    case .vector(let device, let vector, let what):
      self = .unsupported(
        card: device,
        what: "connecting interrupt vector \(vector) to \(what); give the device more vectors, or use fewer queues")
    case .function(let error): self = .function(error)
    case .gone(let device): self = .gone(card: device)
    }
  }
}

/// A device's features, address and sizes.
struct VirtioNetProbe {
  let features: VirtioFeatures
  let address: MACAddress
  let controlIndex: Int?
  let receiveSize: Int
  let transmitSize: Int

  /// What this driver can use. Multiqueue is taken only for several queues: without it, the
  /// control queue lies at index 2.
  static func wanted(_ options: PortOptions) -> VirtioFeatures {
    var wanted: VirtioFeatures = [
      .mac, .status, .mtu, .mergeableBuffers, .eventIndex, .controlQueue, .controlReceive, .controlMAC, .version1,
      .accessPlatform, .orderPlatform, .speedDuplex, .checksum, .hostTSO4, .hostTSO6,
    ]
    if options.queues > 1 { wanted.insert(.multiqueue) }
    return wanted
  }

  /// Negotiates, reads, and leaves the device reset.
  init(_ transport: any VirtqueueTransport, options: PortOptions, bufferSize: Int, clock: any TimeSource)
    throws(DriverError)
  {
    try Self.check(options, card: transport.name)
    do {
      var features = try transport.negotiate(wanted: Self.wanted(options), clock: clock)
      // A device that offers these without a control queue breaks clause 5.1.3.1.
      if !features.contains(.controlQueue) { features.subtract(.overControlQueue) }
      if !features.contains(.checksum) { features.subtract([.hostTSO4, .hostTSO6]) }
      self.features = features
      let card = transport.name
      address = try Self.readAddress(transport, features, card)
      try Self.checkMTU(transport, features, options, bufferSize: bufferSize)
      let most = try Self.readPairs(transport, features)
      guard options.queues <= most else {
        throw DriverError.option(card: card, name: "queues", value: "\(options.queues)", allowed: "1 to \(most)")
      }
      controlIndex = features.contains(.controlQueue) ? (features.contains(.multiqueue) ? 2 * most : 2) : nil
      receiveSize = try Self.size(transport, wanted: options.receiveDescriptors, queues: options.queues, first: 0)
      transmitSize = try Self.size(transport, wanted: options.transmitDescriptors, queues: options.queues, first: 1)
      try transport.reset(clock: clock)
    } catch let error as VirtioError {
      throw DriverError(error)
    } catch let error as DriverError {
      transport.writeStatus([])
      throw error
    } catch { throw .device(card: transport.name, problem: "\(error)") }
  }

  /// What PortOptions promises of its values.
  private static func check(_ options: PortOptions, card: String) throws(DriverError) {
    for (name, value) in [
      ("receive descriptors", options.receiveDescriptors), ("transmit descriptors", options.transmitDescriptors),
    ] where value < 64 || value > 4096 || value & (value - 1) != 0 {
      throw .option(card: card, name: name, value: "\(value)", allowed: "powers of two from 64 to 4096")
    }
    guard options.queues >= 1, options.queues <= 0x8000 else {
      throw .option(card: card, name: "queues", value: "\(options.queues)", allowed: "1 to what the device has")
    }
    guard !options.stripVLAN else {
      throw .option(card: card, name: "VLAN stripping", value: "on", allowed: "off: virtio devices leave tags in place")
    }
  }

  private static func checkMTU(
    _ transport: any VirtqueueTransport, _ features: VirtioFeatures, _ options: PortOptions, bufferSize: Int
  ) throws(DriverError) {
    var most = 65535 - 18
    if features.contains(.mtu), let limit = transport.readConfiguration({ Int($0.read16(at: NetConfiguration.mtu)) }) {
      most = min(most, limit)
    }
    if !features.contains(.mergeableBuffers) { most = min(most, bufferSize - NetHeader.size - 18) }
    guard options.mtu >= 68, options.mtu <= most else {
      throw .option(card: transport.name, name: "mtu", value: "\(options.mtu)", allowed: "68 to \(most)")
    }
  }

  private static func readPairs(_ transport: any VirtqueueTransport, _ features: VirtioFeatures) throws(DriverError)
    -> Int
  {
    guard features.contains(.multiqueue) else { return 1 }
    let most = transport.readConfiguration { Int($0.read16(at: NetConfiguration.maximumPairs)) }
    guard let most else { throw .gone(card: transport.name) }
    guard most >= 1, most <= 0x8000 else {
      throw .device(card: transport.name, problem: "it claims \(most) queue pairs")
    }
    return most
  }

  private static func readAddress(_ transport: any VirtqueueTransport, _ features: VirtioFeatures, _ card: String)
    throws(DriverError) -> MACAddress
  {
    guard features.contains(.mac) else { return madeUp() }
    let bytes = transport.readConfiguration { space in (0..<6).map { space.read8(at: NetConfiguration.mac + $0) } }
    guard let bytes, let address = MACAddress(bytes: bytes) else { throw .gone(card: card) }
    guard address.isUnicast else { throw .device(card: card, problem: "its address \(address) is no station's") }
    return address
  }

  /// A locally administered address, for devices that have none of their own (clause 5.1.5).
  private static func madeUp() -> MACAddress {
    MACAddress(rawValue: UInt64.random(in: 0...UInt64.max) & 0xfcff_ffff_ffff | 0x0200_0000_0000)
  }

  /// The largest power of two up to `wanted` that every queue of a direction takes.
  private static func size(_ transport: any VirtqueueTransport, wanted: Int, queues: Int, first: Int)
    throws(DriverError) -> Int
  {
    var size = wanted
    for pair in 0..<queues {
      let capacity = transport.queueCapacity(2 * pair + first)
      guard capacity >= 2 else {
        throw .device(card: transport.name, problem: "queue \(2 * pair + first) takes \(capacity) descriptors")
      }
      while size > capacity { size >>= 1 }
    }
    return size
  }
}
