// What the registers' bits mean, in the order of Registers.swift. Only what is used is declared.

import DeviceIO

/// Device Control (8.2.3.1.1).
struct Ctrl: OptionSet {
  let rawValue: UInt32
  /// The function issues no new requests to memory.
  static let masterDisable = Ctrl(rawValue: 1 << 2)
  /// Resets the link as well.
  static let linkReset = Ctrl(rawValue: 1 << 3)
  static let reset = Ctrl(rawValue: 1 << 26)
}

/// Device Status (8.2.3.1.2).
struct Status: OptionSet {
  let rawValue: UInt32
  static let masterEnabled = Status(rawValue: 1 << 19)
  /// Which port of the chip this is: 0 or 1.
  var port: Int { Int(rawValue >> 2 & 3) }
}

/// Extended Device Control (8.2.3.1.3).
struct CtrlExt: OptionSet {
  let rawValue: UInt32
  static let resetDone = CtrlExt(rawValue: 1 << 14)
  /// No "no snoop" in requests to memory.
  static let noSnoopDisable = CtrlExt(rawValue: 1 << 16)
  /// Frames carry two tags: not used.
  static let doubleVLAN = CtrlExt(rawValue: 1 << 26)
  /// The host's driver is in charge, not the firmware.
  static let driverLoaded = CtrlExt(rawValue: 1 << 28)
}

/// Software Defined Pins (8.2.3.1.4), as Intel's boards wire them to a pluggable module.
struct Esdp: OptionSet {
  let rawValue: UInt32
  /// QSFP boards: asks for the management bus / has it.
  static let busRequest = Esdp(rawValue: 1 << 0)
  static let busGrant = Esdp(rawValue: 1 << 1)
  static let transmitDisable = Esdp(rawValue: 1 << 3)
  /// High selects the module's faster rate.
  static let rateSelect = Esdp(rawValue: 1 << 5)
  static let busRequestOut = Esdp(rawValue: 1 << 8)
  static let busGrantOut = Esdp(rawValue: 1 << 9)
  static let transmitDisableOut = Esdp(rawValue: 1 << 11)
  static let rateSelectOut = Esdp(rawValue: 1 << 13)
  /// Pins 0 and 1 in their native mode.
  static let native01 = Esdp(rawValue: 1 << 16 | 1 << 17)
}

/// The module's management bus, bit by bit (8.2.3.1.6).
struct I2cctl: OptionSet {
  let rawValue: UInt32
  static let clockIn = I2cctl(rawValue: 1 << 0)
  static let clockOut = I2cctl(rawValue: 1 << 1)
  static let dataIn = I2cctl(rawValue: 1 << 2)
  static let dataOut = I2cctl(rawValue: 1 << 3)
}

/// EEPROM/Flash Control (8.2.3.2.1).
struct Eec: OptionSet {
  let rawValue: UInt32
  static let present = Eec(rawValue: 1 << 8)
  /// The card has taken its configuration from the EEPROM.
  static let autoReadDone = Eec(rawValue: 1 << 9)
}

/// Manageability EEPROM Control (8.2.3.2.4).
struct Eemngctl: OptionSet {
  let rawValue: UInt32
  /// The firmware has configured port 0 or 1.
  static func configurationDone(_ port: Int) -> Eemngctl { Eemngctl(rawValue: 1 << UInt32(18 + (port & 1))) }
}

/// Software Semaphore (8.2.3.4.11).
struct Swsm: OptionSet {
  let rawValue: UInt32
  /// Between drivers: a read that finds it clear sets it.
  static let driver = Swsm(rawValue: 1 << 0)
  /// Between drivers and firmware: stays set only for who got it. Not on the X540.
  static let firmware = Swsm(rawValue: 1 << 1)
}

/// What software and firmware share: bits of software; the firmware's lie five above (8.2.3.4.13).
struct SharedResources: OptionSet {
  let rawValue: UInt32
  static let nonVolatileMemory = SharedResources(rawValue: 1 << 0)
  static let macRegisters = SharedResources(rawValue: 1 << 3)
  /// The X540's flash, taken by its hardware.
  static let flashByHardware = SharedResources(rawValue: 1 << 4)
  /// The X540's lock on this register (X540 datasheet, 8.2.2.4.12).
  static let registerLock = SharedResources(rawValue: 1 << 31)
  /// The port's PHY, or its module's management bus.
  static func phy(_ port: Int) -> SharedResources { SharedResources(rawValue: port & 1 == 0 ? 1 << 1 : 1 << 2) }
  var ofFirmware: SharedResources { SharedResources(rawValue: rawValue << 5) }
}

/// PCIe Control Extended (8.2.3.4.3).
struct GcrExt: OptionSet {
  let rawValue: UInt32
  /// Empties the buffers towards the bus.
  static let clearBuffers = GcrExt(rawValue: 1 << 30)
}

/// MAC Flow Control (8.2.3.22.34).
struct Mflcn: OptionSet {
  let rawValue: UInt32
  /// Pause frames do not go to the host.
  static let discardPause = Mflcn(rawValue: 1 << 1)
}

/// Interrupt causes: EICR, EICS, EIMS, EIMC, EIAC and EIAM share their bits (8.2.3.5.1). With MSI-X
/// the 16 lowest are vectors.
struct Cause: OptionSet {
  let rawValue: UInt32
  static let receiveMiss = Cause(rawValue: 1 << 17)
  static let linkChange = Cause(rawValue: 1 << 20)
  /// 82599: module inserted or removed, on pin 2; something to say, on pin 1.
  static let module = Cause(rawValue: 1 << 26)
  static let moduleSignal = Cause(rawValue: 1 << 25)
  static let eccError = Cause(rawValue: 1 << 28)
  static let other = Cause(rawValue: 1 << 31)
  static let vectors = Cause(rawValue: 0xffff)
  static let vectorCount = 16
  static let all = Cause(rawValue: 0x7fff_ffff)
  static func vector(_ i: Int) -> Cause { Cause(rawValue: i < 16 ? 1 << UInt32(i) : 0) }
}

/// General Purpose Interrupt Enable (8.2.3.5.18).
struct Gpie: OptionSet {
  let rawValue: UInt32
  static let pin1 = Gpie(rawValue: 1 << 1)
  static let pin2 = Gpie(rawValue: 1 << 2)
  /// A vector for each cause that IVAR names.
  static let multipleVectors = Gpie(rawValue: 1 << 4)
  /// Reading EICR clears no queue's cause.
  static let otherClearDisable = Gpie(rawValue: 1 << 5)
  /// A vector that fires masks its cause.
  static let automaticMask = Gpie(rawValue: 1 << 30)
  static let pendingBits = Gpie(rawValue: 1 << 31)
}

/// Receive Checksum Control (8.2.3.7.5).
struct Rxcsum: OptionSet {
  let rawValue: UInt32
  /// Descriptors carry the receive-side scaling hash, not the fragment checksum.
  static let hashInDescriptor = Rxcsum(rawValue: 1 << 13)
}

/// Receive Filter Control (8.2.3.7.6).
struct Rfctl: OptionSet {
  let rawValue: UInt32
  static let coalescingDisable = Rfctl(rawValue: 1 << 5)
  static let nfsWriteDisable = Rfctl(rawValue: 1 << 6)
  static let nfsReadDisable = Rfctl(rawValue: 1 << 7)
}

/// Filter Control (8.2.3.7.1).
struct Fctrl: OptionSet {
  let rawValue: UInt32
  static let multicastPromiscuous = Fctrl(rawValue: 1 << 8)
  static let unicastPromiscuous = Fctrl(rawValue: 1 << 9)
  static let acceptBroadcast = Fctrl(rawValue: 1 << 10)
}

/// VLAN Control (8.2.3.7.2).
struct Vlnctrl: OptionSet {
  let rawValue: UInt32
  /// The tag's Ethernet type, 8100h.
  static let tagType = Vlnctrl(rawValue: 0x8100)
  static let filter = Vlnctrl(rawValue: 1 << 30)
}

/// Multicast Control (8.2.3.7.3): with offset 0 the hash is bits 47 to 36 of the address.
struct Mcstctrl: OptionSet {
  let rawValue: UInt32
  static let filter = Mcstctrl(rawValue: 1 << 2)
}

/// Multiple Receive Queues Command (8.2.3.7.12).
struct Mrqc: OptionSet {
  let rawValue: UInt32
  static let scaling = Mrqc(rawValue: 1)
  static let tcpIPv4 = Mrqc(rawValue: 1 << 16)
  static let ipv4 = Mrqc(rawValue: 1 << 17)
  static let ipv6 = Mrqc(rawValue: 1 << 20)
  static let tcpIPv6 = Mrqc(rawValue: 1 << 21)
}

/// Receive and Transmit DCA Control (8.2.3.11.1 and 8.2.3.11.2).
struct DcaControl: OptionSet {
  let rawValue: UInt32
  /// Transmit: descriptors may be written back out of order with data.
  static let relaxedWriteBack = DcaControl(rawValue: 1 << 11)
  /// Receive: must be 0 when no-snoop is off (4.6.7).
  static let reserved12 = DcaControl(rawValue: 1 << 12)
  static let relaxedData = DcaControl(rawValue: 1 << 13)
  static let relaxedHeader = DcaControl(rawValue: 1 << 15)
}

/// Split Receive Control (8.2.3.8.7).
struct Srrctl: OptionSet {
  let rawValue: UInt32
  static let oneBuffer = Srrctl(rawValue: 1 << 25)
  /// A full queue loses its frames instead of stopping the others.
  static let dropEnable = Srrctl(rawValue: 1 << 28)
  /// The largest buffer the card can use in `bytes`: whole kilobytes, up to 16; nil below 2048.
  static func bufferSize(_ bytes: Int) -> (bits: Srrctl, size: Int)? {
    let kilobytes = min(16, bytes / 1024)
    return kilobytes < 2 ? nil : (Srrctl(rawValue: UInt32(kilobytes)), kilobytes * 1024)
  }
}

/// RXDCTL and TXDCTL (8.2.3.8.10 and 8.2.3.9.10).
struct QueueControl: OptionSet {
  let rawValue: UInt32
  static let enable = QueueControl(rawValue: 1 << 25)
  /// Receive: takes tags out.
  static let stripVLAN = QueueControl(rawValue: 1 << 30)
  /// Transmit: prefetch when 32 are free and 8 are wanted, report each that asks at once.
  static let transmitThresholds = QueueControl(rawValue: 32 | 8 << 8)
}

/// Receive DMA Control (8.2.3.8.8).
struct Rdrxctl: OptionSet {
  let rawValue: UInt32
  static let stripCheckSequence = Rdrxctl(rawValue: 1 << 1)
  static let initialized = Rdrxctl(rawValue: 1 << 3)
  static let coalescedFirstSize = Rdrxctl(rawValue: 0x1f << 17)
  /// The two that the datasheet wants set.
  static let reserved = Rdrxctl(rawValue: 1 << 25 | 1 << 26)
}

/// Receive Control (8.2.3.8.10).
struct Rxctrl: OptionSet {
  let rawValue: UInt32
  static let enable = Rxctrl(rawValue: 1)
}

/// DMA Transmit Control (8.2.3.9.2).
struct Dmatxctl: OptionSet {
  let rawValue: UInt32
  static let enable = Dmatxctl(rawValue: 1)
  static let doubleVLAN = Dmatxctl(rawValue: 1 << 3)
}

/// DCB Transmit Descriptor Plane Control (8.2.3.10.5).
struct Rttdcs: OptionSet {
  let rawValue: UInt32
  static let arbiterDisable = Rttdcs(rawValue: 1 << 6)
}

/// Security engine (8.2.3.12).
struct SecurityControl: OptionSet {
  let rawValue: UInt32
  /// No frames go to the receive DMA.
  static let pathDisable = SecurityControl(rawValue: 1 << 1)
}
struct SecurityStatus: OptionSet {
  let rawValue: UInt32
  /// The path is empty.
  static let ready = SecurityStatus(rawValue: 1)
}

/// MAC Core Control 0 (8.2.3.22.8).
struct Hlreg0: OptionSet {
  let rawValue: UInt32
  static let insertCheckSequence = Hlreg0(rawValue: 1 << 0)
  static let stripCheckSequence = Hlreg0(rawValue: 1 << 1)
  static let jumbo = Hlreg0(rawValue: 1 << 2)
  static let padShortPackets = Hlreg0(rawValue: 1 << 10)
  static let loopback = Hlreg0(rawValue: 1 << 15)
}
