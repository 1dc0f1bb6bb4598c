// The status handshake, the same over every transport (virtio 1.2, clause 3.1.1).

public import DeviceIO

extension VirtqueueTransport {
  /// Resets the device and agrees on features: those of `wanted` that the device offers, with
  /// `required` and the transport's own among them. Leaves the device in FEATURES_OK.
  /// - Returns: what both sides will use.
  public func negotiate(wanted: VirtioFeatures, required: VirtioFeatures = [], clock: any TimeSource)
    throws(VirtioError) -> VirtioFeatures
  {
    try reset(clock: clock)
    writeStatus(.acknowledge)
    writeStatus([.acknowledge, .driver])
    let offered = readOfferedFeatures()
    let needed = required.union(requiredFeatures)
    if isGone { throw .gone(device: name) }
    let missing = needed.subtracting(offered)
    guard missing.isEmpty else {
      writeStatus(.failed)
      let names = missing.names
      throw .missingFeatures(
        device: name, names: names.isEmpty ? ["feature bits 0x\(String(missing.rawValue, radix: 16))"] : names)
    }
    let accepted = offered.intersection(wanted.union(needed))
    writeAcceptedFeatures(accepted)
    let status: VirtioStatus = [.acknowledge, .driver, .featuresOK]
    writeStatus(status)
    let answer = readStatus()
    if answer.isGone { throw .gone(device: name) }
    guard answer.contains(.featuresOK) else {
      writeStatus(.failed)
      throw .featuresRefused(device: name, accepted: accepted.rawValue)
    }
    return accepted
  }

  /// Declares the driver ready: the device may use the queues from now on.
  public func setDriverOK() { writeStatus([.acknowledge, .driver, .featuresOK, .driverOK]) }

  /// Reads several configuration fields as one: reads again while the device changes them
  /// (clause 2.5.3), at most 16 times.
  /// - Returns: nil when the device is gone or never holds still.
  public func readConfiguration<T>(_ body: (any RegisterSpace) -> T) -> T? {
    guard let space = configuration else { return nil }
    for _ in 0..<16 {
      let before = configurationGeneration()
      let value = body(space)
      if isGone { return nil }
      if configurationGeneration() == before { return value }
    }
    return nil
  }
}
