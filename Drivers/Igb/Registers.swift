// The registers of the 82576 and its descendants that this driver uses.
//
// Offsets, names and sections: Intel 82576EB Gigabit Ethernet Controller Datasheet, revision 2.63,
// chapter 8 ("8.2.1" and so on). The I350 and the I210 keep them where nothing else is said. Ring
// registers of queue n lie n times 0x40 bytes behind queue 0's.

import DeviceIO

/// Registers by their datasheet names.
enum Reg {
  // 8.2: general control
  static let ctrl = Register<Ctrl>("CTRL", 0x00000)
  static let status = Register<Status>("STATUS", 0x00008)
  static let eecd = Register<Eecd>("EECD", 0x00010)
  static let eerd = Register<Plain>("EERD", 0x00014)
  static let ctrlExt = Register<CtrlExt>("CTRL_EXT", 0x00018)
  static let mdic = Register<Mdic>("MDIC", 0x00020)
  static let serdesControl = Register<Plain>("SCTL", 0x00024)
  static let fcal = Register<Plain>("FCAL", 0x00028)
  static let fcah = Register<Plain>("FCAH", 0x0002c)
  static let fct = Register<Plain>("FCT", 0x00030)
  static let vet = Register<Plain>("VET", 0x00038)
  static let fcttv = Register<Plain>("FCTTV", 0x00170)
  /// Management EEPROM control: the PHY is configured, a bit for each port from 18 on.
  static let eemngctl = Register<Plain>("EEMNGCTL", 0x01010)
  static let eemngctlI210 = Register<Plain>("EEMNGCTL", 0x12030)

  // 8.8: interrupts
  static let icr = Register<Cause>("ICR", 0x01500)
  static let ims = Register<Cause>("IMS", 0x01508)
  static let imc = Register<Cause>("IMC", 0x0150c)
  static let iam = Register<Cause>("IAM", 0x01510)
  static let gpie = Register<Gpie>("GPIE", 0x01514)
  static let eims = Register<Plain>("EIMS", 0x01524)
  static let eimc = Register<Plain>("EIMC", 0x01528)
  static let eiac = Register<Plain>("EIAC", 0x0152c)
  static let eiam = Register<Plain>("EIAM", 0x01530)
  static let eicr = Register<Plain>("EICR", 0x01580)
  /// One for each vector, 4 bytes apart (8.8).
  static let eitr = Register<Plain>("EITR", 0x01680)
  /// Eight words of four entries (8.8).
  static let ivar = Register<Plain>("IVAR", 0x01700)
  static let ivarMisc = Register<Plain>("IVAR_MISC", 0x01740)

  // 8.10: receive
  static let rctl = Register<Rctl>("RCTL", 0x00100)
  static let fcrtl = Register<Plain>("FCRTL0", 0x02160)
  static let fcrth = Register<Plain>("FCRTH0", 0x02168)
  static let rdbal = Register<Plain>("RDBAL", 0x0c000)
  static let rdbah = Register<Plain>("RDBAH", 0x0c004)
  static let rdlen = Register<Plain>("RDLEN", 0x0c008)
  static let srrctl = Register<Plain>("SRRCTL", 0x0c00c)
  static let rdh = Register<Plain>("RDH", 0x0c010)
  static let rdt = Register<Plain>("RDT", 0x0c018)
  static let rxdctl = Register<QueueControl>("RXDCTL", 0x0c028)
  /// Frames a queue lost for want of a descriptor (8.19); cleared by reading.
  static let rqdpc = Register<Plain>("RQDPC", 0x0c030)
  static let rxcsum = Register<Rxcsum>("RXCSUM", 0x05000)
  /// Longest frame with check sequence, in bytes (8.10).
  static let rlpml = Register<Plain>("RLPML", 0x05004)
  static let rfctl = Register<Rfctl>("RFCTL", 0x05008)
  /// 128 words: the multicast hash table (8.10).
  static let mta = Register<Plain>("MTA", 0x05200)
  /// Pairs, 8 bytes apart: entries 0 to 15, and from 16 on (8.10).
  static let ral = Register<Plain>("RAL", 0x05400)
  static let rah = Register<Plain>("RAH", 0x05404)
  static let ral16 = Register<Plain>("RAL16", 0x054e0)
  static let rah16 = Register<Plain>("RAH16", 0x054e4)
  /// 128 words: a bit for each VLAN identifier (8.10).
  static let vfta = Register<Plain>("VFTA", 0x05600)
  static let mrqc = Register<Plain>("MRQC", 0x05818)
  static let reta = Register<Plain>("RETA", 0x05c00)
  static let rssrk = Register<Plain>("RSSRK", 0x05c80)

  // 8.12: transmit
  static let tctl = Register<Tctl>("TCTL", 0x00400)
  static let tipg = Register<Plain>("TIPG", 0x00410)
  static let tdbal = Register<Plain>("TDBAL", 0x0e000)
  static let tdbah = Register<Plain>("TDBAH", 0x0e004)
  static let tdlen = Register<Plain>("TDLEN", 0x0e008)
  static let tdh = Register<Plain>("TDH", 0x0e010)
  static let tdt = Register<Plain>("TDT", 0x0e018)
  static let txdctl = Register<QueueControl>("TXDCTL", 0x0e028)
  static let tdwbal = Register<Plain>("TDWBAL", 0x0e038)
  static let tdwbah = Register<Plain>("TDWBAH", 0x0e03c)

  // PCS: SerDes and SGMII
  static let pcsControl = Register<Pcs>("PCS_LCTL", 0x04208)
  static let pcsStatus = Register<PcsStatus>("PCS_LSTS", 0x0420c)

  // 8.6: semaphores
  static let swsm = Register<Swsm>("SWSM", 0x05b50)
  static let swFwSync = Register<Plain>("SW_FW_SYNC", 0x05b5c)

  /// Bytes from a ring register of a queue to the next queue's.
  static let queueStride = 0x40
  /// Bytes of registers behind base address register 0, at least.
  static let spaceSize = 0x20000
}

/// Device Control (8.2.1).
struct Ctrl: OptionSet {
  let rawValue: UInt32
  /// The function issues no new requests to memory.
  static let masterDisable = Ctrl(rawValue: 1 << 2)
  static let setLinkUp = Ctrl(rawValue: 1 << 6)
  static let forceSpeed = Ctrl(rawValue: 1 << 11)
  static let forceDuplex = Ctrl(rawValue: 1 << 12)
  /// Laser or amplifier on (software-defined pins 0 and 1).
  static let pins = Ctrl(rawValue: 3 << 18)
  static let reset = Ctrl(rawValue: 1 << 26)
  static let receiveFlowControl = Ctrl(rawValue: 1 << 27)
  static let transmitFlowControl = Ctrl(rawValue: 1 << 28)
  /// VLAN mode: tags are stripped from received frames.
  static let vlanMode = Ctrl(rawValue: 1 << 30)
}

/// Device Status (8.2.2).
struct Status: OptionSet {
  let rawValue: UInt32
  static let fullDuplex = Status(rawValue: 1 << 0)
  static let linkUp = Status(rawValue: 1 << 1)
  static let masterEnabled = Status(rawValue: 1 << 19)
  /// Which of the chip's ports this function is: 0 to 3.
  var port: Int { Int(rawValue >> 2 & 3) }
  /// Megabits a second.
  var speed: Int {
    switch rawValue >> 6 & 3 {
    case 0: 10
    case 1: 100
    default: 1000
    }
  }
}

/// EEPROM/Flash Control (8.4.1).
struct Eecd: OptionSet {
  let rawValue: UInt32
  /// The card has taken its configuration from the non-volatile memory.
  static let autoReadDone = Eecd(rawValue: 1 << 9)
  /// I210: a flash chip is there; without one the configuration is fused into the card.
  static let flashDetected = Eecd(rawValue: 1 << 19)
}

/// Extended Device Control (8.2.3).
struct CtrlExt: OptionSet {
  let rawValue: UInt32
  /// Software-defined pin 3: power of a pluggable module's laser, active low.
  static let pin3 = CtrlExt(rawValue: 1 << 7)
  /// The host's driver is in charge, not the firmware.
  static let driverLoaded = CtrlExt(rawValue: 1 << 28)
  /// 0 internal PHY, 1 1000BASE-KX, 2 SGMII, 3 SerDes.
  var linkMode: UInt32 { rawValue >> 22 & 3 }
}

/// MDI Control (8.2.4): the way to the PHY's registers.
struct Mdic: OptionSet {
  let rawValue: UInt32
  static let ready = Mdic(rawValue: 1 << 28)
  static let error = Mdic(rawValue: 1 << 30)
  var data: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
  /// The internal PHY answers at address 1 (from the 82580 on the card knows the address itself).
  static func read(_ register: UInt32) -> Mdic { Mdic(rawValue: 2 << 26 | 1 << 21 | (register & 31) << 16) }
  static func write(_ register: UInt32, _ data: UInt16) -> Mdic {
    Mdic(rawValue: 1 << 26 | 1 << 21 | (register & 31) << 16 | UInt32(data))
  }
}

/// Software Semaphore (8.6.1).
struct Swsm: OptionSet {
  let rawValue: UInt32
  /// Set by reading: whoever reads it clear owns it among drivers.
  static let drivers = Swsm(rawValue: 1 << 0)
  /// Sticks when the firmware does not hold it.
  static let firmware = Swsm(rawValue: 1 << 1)
}

/// Interrupt causes that are no queue's: ICR, IMS and IMC share their bits (8.8).
struct Cause: OptionSet {
  let rawValue: UInt32
  static let linkChange = Cause(rawValue: 1 << 2)
  static let all = Cause(rawValue: .max)
}

/// General Purpose Interrupt Enable (8.8).
struct Gpie: OptionSet {
  let rawValue: UInt32
  /// Reading ICR clears it, whatever IMS says.
  static let nonSelectiveClear = Gpie(rawValue: 1 << 0)
  static let multipleVectors = Gpie(rawValue: 1 << 4)
  /// A vector that fires masks the bits in EIAM.
  static let automaticMask = Gpie(rawValue: 1 << 30)
  /// Pending bits of MSI-X are cleared with the cause.
  static let pendingBits = Gpie(rawValue: 1 << 31)
}

/// Receive Control (8.10).
struct Rctl: OptionSet {
  let rawValue: UInt32
  static let enable = Rctl(rawValue: 1 << 1)
  static let unicastPromiscuous = Rctl(rawValue: 1 << 3)
  static let multicastPromiscuous = Rctl(rawValue: 1 << 4)
  /// Frames up to RLPML.
  static let longPackets = Rctl(rawValue: 1 << 5)
  static let acceptBroadcast = Rctl(rawValue: 1 << 15)
  static let vlanFilter = Rctl(rawValue: 1 << 18)
  /// The check sequence does not go to memory.
  static let stripCheckSequence = Rctl(rawValue: 1 << 26)
}

/// Receive and Transmit Descriptor Control (8.10, 8.12).
struct QueueControl: OptionSet {
  let rawValue: UInt32
  static let enable = QueueControl(rawValue: 1 << 25)
  /// Prefetch and host thresholds, in descriptors; each one is written back at once.
  static let receiveThresholds = QueueControl(rawValue: 8 | 8 << 8 | 1 << 16)
  /// Write-back threshold 0: reports are asked for by the descriptors alone.
  static let transmitThresholds = QueueControl(rawValue: 8 | 1 << 8)
}

/// Receive Checksum Control (8.10).
struct Rxcsum: OptionSet {
  let rawValue: UInt32
  static let ip = Rxcsum(rawValue: 1 << 8)
  static let tcpUDP = Rxcsum(rawValue: 1 << 9)
  /// The descriptor carries the receive-side scaling hash, not the fragment checksum.
  static let hashInDescriptor = Rxcsum(rawValue: 1 << 13)
}

/// Receive Filter Control (8.10).
struct Rfctl: OptionSet {
  let rawValue: UInt32
  static let iscsiDisable = Rfctl(rawValue: 1 << 0)
  static let nfsWriteDisable = Rfctl(rawValue: 1 << 6)
  static let nfsReadDisable = Rfctl(rawValue: 1 << 7)
}

/// Transmit Control (8.12).
struct Tctl: OptionSet {
  let rawValue: UInt32
  static let enable = Tctl(rawValue: 1 << 1)
  static let padShortPackets = Tctl(rawValue: 1 << 3)
  static let retransmitLateCollision = Tctl(rawValue: 1 << 24)
  static let collisionFields = Tctl(rawValue: 0xff << 4 | 0x3ff << 12)
  /// Collision threshold 15 and distance 64 bytes.
  static let collisions = Tctl(rawValue: 0xf << 4 | 0x40 << 12)
}

/// PCS Link Control (chapter 8, PCS), for SerDes and SGMII.
struct Pcs: OptionSet {
  let rawValue: UInt32
  static let forcedUp = Pcs(rawValue: 1 << 0)
  static let speed1000 = Pcs(rawValue: 2 << 1)
  static let fullDuplex = Pcs(rawValue: 1 << 3)
  static let forceSpeed = Pcs(rawValue: 1 << 4)
  static let forceLink = Pcs(rawValue: 1 << 5)
  static let autonegotiate = Pcs(rawValue: 1 << 16)
  static let restart = Pcs(rawValue: 1 << 17)
}

/// PCS Link Status (chapter 8, PCS).
struct PcsStatus: OptionSet {
  let rawValue: UInt32
  static let linkUp = PcsStatus(rawValue: 1 << 0)
  static let fullDuplex = PcsStatus(rawValue: 1 << 3)
  static let synchronized = PcsStatus(rawValue: 1 << 4)
  /// Megabits a second.
  var speed: Int {
    switch rawValue >> 1 & 3 {
    case 0: 10
    case 1: 100
    default: 1000
    }
  }
}

/// Bits of plain registers.
enum Bits {
  /// RAH: the pair is used.
  static let addressValid: UInt32 = 1 << 31
  /// EERD: start, done, where the address and the data are (8.4.2).
  static let eerdStart: UInt32 = 1
  static let eerdDone: UInt32 = 2
  static let eerdAddress: UInt32 = 2
  static let eerdData: UInt32 = 16
  /// IVAR: an entry's valid bit.
  static let ivarValid: UInt32 = 0x80
  /// EITR: the interval's place, in microseconds; the counter is left alone.
  static let eitrInterval: UInt32 = 2
  static let eitrKeepCounter: UInt32 = 1 << 31
  /// SRRCTL: one buffer a descriptor of the advanced kind; frames of a full queue are dropped, so
  /// that it does not hold up the others (8.10).
  static let srrctlOneBuffer: UInt32 = 1 << 25
  static let srrctlDrop: UInt32 = 1 << 31
  /// MRQC: receive-side scaling; TCP/IPv4, IPv4, TCP/IPv6 with extensions, IPv6, TCP/IPv6, UDP/IPv4,
  /// UDP/IPv6 (8.10).
  static let mrqcScaling: UInt32 = 2 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23
  /// SW_FW_SYNC: the non-volatile memory; a PHY is bit 1, 2, 5 or 6. The firmware's lie 16 higher.
  static let syncNVM: UInt32 = 1 << 0
  static let syncFirmwareShift: UInt32 = 16
}

/// The PHY's registers (IEEE 802.3-2022, 22.2.4).
enum PHY {
  static let control: UInt32 = 0
  static let status: UInt32 = 1
  static let advertisement: UInt32 = 4
  static let gigabitControl: UInt32 = 9
  static let powerDown: UInt16 = 1 << 11
  static let autonegotiate: UInt16 = 1 << 12
  static let restart: UInt16 = 1 << 9
  static let complete: UInt16 = 1 << 5
}
