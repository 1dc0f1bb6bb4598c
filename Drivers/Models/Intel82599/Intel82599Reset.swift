// What reset brings (datasheet, 4.2 and the initial values of chapter 8).

extension Intel82599Model {
  public func reset() {
    linkIsUp = false
    memory.clear()
    put(At599.twoWire, 0xa)
    resetRegisters(link: true)
  }

  /// A reset by CTRL: software reset keeps the link, link reset restarts it.
  func resetRegisters(link: Bool) {
    resets += 1
    let kept = [
      At599.softwareSemaphore, At599.softwareFirmwareSync, At599.definablePins, At599.twoWire,
    ].map { ($0, get($0)) }
    memory.clear()
    for (at, value) in kept { put(at, value) }
    for (at, value) in Self.initialValues { put(at, value) }
    put(At599.autoNegotiation, isBackplane ? 0xc09c_8284 : 0xc09c_6004)
    put(At599.autoNegotiation2, isBackplane ? 0 : 0x000a_0000)
    for queue in 0..<64 { put(At599.receiveQueue + queue * Ring599.stride + Ring599.split, 0x402) }
    for queue in 0..<64 { put(At599.receiveQueueHigh + queue * Ring599.stride + Ring599.split, 0x402) }
    let address = nonVolatile.address
    put(At599.addresses, address.low)
    put(At599.addresses + 4, address.high | 1 << 31)
    interrupts = Intel82599Interrupts()
    director = Intel82599Director()
    filters = Intel82599Filters()
    packetBuffer.removeAll()
    forgetQueues()
    faults.deviceWasReset()
    updateLink(restarted: link)
  }

  private static let initialValues: [(Int, UInt32)] = [
    (At599.ledControl, 0x0302_0100),
    // Present, read, 16 address bits, 4096 words.
    (At599.nonVolatileControl, 0x0000_0710 | 6 << 11),
    (At599.managementNonVolatile, 0x800c_0000),
    (At599.firmwareSemaphore, 0x8000),
    (At599.receiveDMA, Bit599.initialised),
    (At599.receivePacketBuffer, 0x0008_0000),
    (At599.transmitPacketBuffer, 0x0002_8000),
    (At599.transmitThreshold, 0x0000_00a0),
    (At599.vlanControl, 0x8100),
    (At599.transmitDMA, 0x8100_0000),
    (At599.segmentFlagsLow, 0x0f76_0ff6),
    (At599.segmentFlagsHigh, 0x0000_0f7f),
    (At599.largestRequest, 0x10),
    (At599.transmitSecurityStatus, 1),
    (At599.receiveSecurityStatus, 1),
    (At599.highLevel, 0x0801_0403),
    (At599.largestFrame, 1518 << 16),
    (At599.partner, 0x0008_0000),
    (At599.directorBucketKey, 0x8000_0001),
    (At599.directorSignatureKey, 0x8000_0001),
  ]
}
