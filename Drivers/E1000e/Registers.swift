// The 82574's registers that this driver uses.
//
// Offsets, names and sections: Intel 82574 GbE Controller Family Datasheet, revision 3.4, chapter
// 10 ("10.2.2.1" and so on). Queue 1's ring registers lie 0x100 bytes behind queue 0's.

import DeviceIO

/// Registers by their datasheet names.
enum Reg {
  // 10.2.2: general control
  static let ctrl = Register<Ctrl>("CTRL", 0x00000)
  static let status = Register<Status>("STATUS", 0x00008)
  static let eecd = Register<Eecd>("EECD", 0x00010)
  static let eerd = Register<Plain>("EERD", 0x00014)
  static let ctrlExt = Register<CtrlExt>("CTRL_EXT", 0x00018)
  static let mdic = Register<Mdic>("MDIC", 0x00020)
  static let fcal = Register<Plain>("FCAL", 0x00028)
  static let fcah = Register<Plain>("FCAH", 0x0002c)
  static let fct = Register<Plain>("FCT", 0x00030)
  static let vet = Register<Plain>("VET", 0x00038)
  static let fcttv = Register<Plain>("FCTTV", 0x00170)
  static let extendedConfiguration = Register<ExtendedConfiguration>("EXTCNF_CTRL", 0x00f00)
  static let packetBuffer = Register<Plain>("PBA", 0x01000)

  // 10.2.4: interrupts
  static let icr = Register<Cause>("ICR", 0x000c0)
  static let ics = Register<Cause>("ICS", 0x000c8)
  static let ims = Register<Cause>("IMS", 0x000d0)
  static let imc = Register<Cause>("IMC", 0x000d8)
  static let eiac = Register<Cause>("EIAC", 0x000dc)
  static let iam = Register<Cause>("IAM", 0x000e0)
  static let ivar = Register<Plain>("IVAR", 0x000e4)
  /// One for each vector, 4 bytes apart (10.2.4.9).
  static let eitr = Register<Plain>("EITR", 0x000e8)
  static let itr = Register<Plain>("ITR", 0x000c4)

  // 10.2.5: receive
  static let rctl = Register<Rctl>("RCTL", 0x00100)
  static let fcrtl = Register<Plain>("FCRTL", 0x02160)
  static let fcrth = Register<Plain>("FCRTH", 0x02168)
  static let rdbal = Register<Plain>("RDBAL", 0x02800)
  static let rdbah = Register<Plain>("RDBAH", 0x02804)
  static let rdlen = Register<Plain>("RDLEN", 0x02808)
  static let rdh = Register<Plain>("RDH", 0x02810)
  static let rdt = Register<Plain>("RDT", 0x02818)
  static let rdtr = Register<Plain>("RDTR", 0x02820)
  static let rxdctl = Register<Plain>("RXDCTL", 0x02828)
  static let radv = Register<Plain>("RADV", 0x0282c)
  static let rxcsum = Register<Rxcsum>("RXCSUM", 0x05000)
  static let rfctl = Register<Rfctl>("RFCTL", 0x05008)
  /// 128 words: the multicast hash table (10.2.5.32).
  static let mta = Register<Plain>("MTA", 0x05200)
  /// 16 pairs, 8 bytes apart (10.2.5.33).
  static let ral = Register<Plain>("RAL", 0x05400)
  static let rah = Register<Plain>("RAH", 0x05404)
  /// 128 words: a bit for each VLAN identifier (10.2.5.35).
  static let vfta = Register<Plain>("VFTA", 0x05600)
  static let mrqc = Register<Plain>("MRQC", 0x05818)
  /// 32 words of four entries (10.2.5.38).
  static let reta = Register<Plain>("RETA", 0x05c00)
  /// 10 words (10.2.5.39).
  static let rssrk = Register<Plain>("RSSRK", 0x05c80)

  // 10.2.6: transmit
  static let tctl = Register<Tctl>("TCTL", 0x00400)
  static let tipg = Register<Plain>("TIPG", 0x00410)
  static let tdbal = Register<Plain>("TDBAL", 0x03800)
  static let tdbah = Register<Plain>("TDBAH", 0x03804)
  static let tdlen = Register<Plain>("TDLEN", 0x03808)
  static let tdh = Register<Plain>("TDH", 0x03810)
  static let tdt = Register<Plain>("TDT", 0x03818)
  static let tidv = Register<Plain>("TIDV", 0x03820)
  static let txdctl = Register<Plain>("TXDCTL", 0x03828)
  static let tadv = Register<Plain>("TADV", 0x0382c)
  static let tarc = Register<Plain>("TARC", 0x03840)

  // 10.2.3 and 10.2.8: PCI Express control, semaphores
  static let gcr = Register<Plain>("GCR", 0x05b00)
  static let swsm = Register<Swsm>("SWSM", 0x05b50)
  static let gcr2 = Register<Plain>("GCR2", 0x05b64)

  /// Bytes from a ring register of queue 0 to queue 1's.
  static let queueStride = 0x100
  /// Bytes of registers behind base address register 0.
  static let spaceSize = 0x20000
}

/// Device Control (10.2.2.1).
struct Ctrl: OptionSet {
  let rawValue: UInt32
  static let fullDuplex = Ctrl(rawValue: 1 << 0)
  /// The function issues no new requests to memory.
  static let masterDisable = Ctrl(rawValue: 1 << 2)
  /// Must be 0 on this card: the speed comes from the PHY.
  static let autoSpeedDetection = Ctrl(rawValue: 1 << 5)
  static let setLinkUp = Ctrl(rawValue: 1 << 6)
  static let invertLossOfSignal = Ctrl(rawValue: 1 << 7)
  static let forceSpeed = Ctrl(rawValue: 1 << 11)
  static let forceDuplex = Ctrl(rawValue: 1 << 12)
  static let reset = Ctrl(rawValue: 1 << 26)
  static let receiveFlowControl = Ctrl(rawValue: 1 << 27)
  static let transmitFlowControl = Ctrl(rawValue: 1 << 28)
  /// Cleared on this card, or transmission may stall.
  static let reserved29 = Ctrl(rawValue: 1 << 29)
  /// VLAN mode: tags are stripped on receive and inserted where a descriptor asks.
  static let vlanMode = Ctrl(rawValue: 1 << 30)
  static let phyReset = Ctrl(rawValue: 1 << 31)
}

/// Device Status (10.2.2.2).
struct Status: OptionSet {
  let rawValue: UInt32
  static let fullDuplex = Status(rawValue: 1 << 0)
  static let linkUp = Status(rawValue: 1 << 1)
  static let masterEnabled = Status(rawValue: 1 << 19)
  /// Megabits a second.
  var speed: Int {
    switch rawValue >> 6 & 3 {
    case 0: 10
    case 1: 100
    default: 1000
    }
  }
}

/// EEPROM/Flash Control (10.2.2.3).
struct Eecd: OptionSet {
  let rawValue: UInt32
  /// The card has taken its configuration from the non-volatile memory.
  static let autoReadDone = Eecd(rawValue: 1 << 9)
}

/// Extended Device Control (10.2.2.5).
struct CtrlExt: OptionSet {
  let rawValue: UInt32
  /// Set as the specification update asks (bits 22 and 23).
  static let reserved22 = CtrlExt(rawValue: 1 << 22)
  static let reserved23 = CtrlExt(rawValue: 1 << 23)
  /// A vector that fires masks the causes in IAM.
  static let automaticMask = CtrlExt(rawValue: 1 << 24)
  /// Reading ICR masks the causes in IAM: not with MSI-X.
  static let automaticMaskOnRead = CtrlExt(rawValue: 1 << 27)
  /// The host's driver is in charge, not the firmware.
  static let driverLoaded = CtrlExt(rawValue: 1 << 28)
  /// Pending bits of MSI-X are cleared by IMS writes.
  static let clearPending = CtrlExt(rawValue: 1 << 31)
}

/// MDI Control (10.2.2.7): the way to the PHY's registers.
struct Mdic: OptionSet {
  let rawValue: UInt32
  static let ready = Mdic(rawValue: 1 << 28)
  static let error = Mdic(rawValue: 1 << 30)
  var data: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
  /// The card's own PHY answers at address 1.
  static func read(_ register: UInt32) -> Mdic { Mdic(rawValue: 2 << 26 | 1 << 21 | (register & 31) << 16) }
  static func write(_ register: UInt32, _ data: UInt16) -> Mdic {
    Mdic(rawValue: 1 << 26 | 1 << 21 | (register & 31) << 16 | UInt32(data))
  }
}

/// Extended Configuration Control (10.2.2.17).
struct ExtendedConfiguration: OptionSet {
  let rawValue: UInt32
  /// Software owns the management interface and the non-volatile memory.
  static let softwareOwnership = ExtendedConfiguration(rawValue: 1 << 5)
}

/// Software Semaphore (10.2.8).
struct Swsm: OptionSet {
  let rawValue: UInt32
  static let softwareSemaphore = Swsm(rawValue: 1 << 0)
}

/// Interrupt causes: ICR, ICS, IMS, IMC and EIAC share their bits (10.2.4.1).
struct Cause: OptionSet {
  let rawValue: UInt32
  static let linkChange = Cause(rawValue: 1 << 2)
  static let receiveQueue0 = Cause(rawValue: 1 << 20)
  static let receiveQueue1 = Cause(rawValue: 1 << 21)
  static let transmitQueue0 = Cause(rawValue: 1 << 22)
  static let transmitQueue1 = Cause(rawValue: 1 << 23)
  /// Whatever is not a queue's.
  static let other = Cause(rawValue: 1 << 24)
  static let all = Cause(rawValue: .max)
  static let queues: Cause = [.receiveQueue0, .receiveQueue1, .transmitQueue0, .transmitQueue1]

  static func receive(_ queue: Int) -> Cause { Cause(rawValue: 1 << UInt32(20 + queue)) }
  static func transmit(_ queue: Int) -> Cause { Cause(rawValue: 1 << UInt32(22 + queue)) }
}

/// Receive Control (10.2.5.1).
struct Rctl: OptionSet {
  let rawValue: UInt32
  static let enable = Rctl(rawValue: 1 << 1)
  static let unicastPromiscuous = Rctl(rawValue: 1 << 3)
  static let multicastPromiscuous = Rctl(rawValue: 1 << 4)
  /// Frames longer than 1522 bytes, check sequence included.
  static let longPackets = Rctl(rawValue: 1 << 5)
  static let acceptBroadcast = Rctl(rawValue: 1 << 15)
  static let vlanFilter = Rctl(rawValue: 1 << 18)
  static let sizeExtension = Rctl(rawValue: 1 << 25)
  /// The check sequence does not go to memory.
  static let stripCheckSequence = Rctl(rawValue: 1 << 26)

  /// The largest buffer size the card knows that fits into `bytes`; nil below 2048.
  static func bufferSize(_ bytes: Int) -> (bits: Rctl, size: Int)? {
    switch bytes {
    case 16384...: ([Rctl(rawValue: 1 << 16), .sizeExtension], 16384)
    case 8192...: ([Rctl(rawValue: 2 << 16), .sizeExtension], 8192)
    case 4096...: ([Rctl(rawValue: 3 << 16), .sizeExtension], 4096)
    case 2048...: ([], 2048)
    default: nil
    }
  }
}

/// Receive Checksum Control (10.2.5.15).
struct Rxcsum: OptionSet {
  let rawValue: UInt32
  static let ip = Rxcsum(rawValue: 1 << 8)
  static let tcpUDP = Rxcsum(rawValue: 1 << 9)
  /// The descriptor carries the receive-side scaling hash, not the packet checksum.
  static let hashInDescriptor = Rxcsum(rawValue: 1 << 13)
}

/// Receive Filter Control (10.2.5.16).
struct Rfctl: OptionSet {
  let rawValue: UInt32
  static let nfsWriteDisable = Rfctl(rawValue: 1 << 6)
  static let nfsReadDisable = Rfctl(rawValue: 1 << 7)
  static let iscsiDisable = Rfctl(rawValue: 1 << 0)
  /// No interrupt cause for acknowledgements: with MSI-X it fires for nothing.
  static let acknowledgeDisable = Rfctl(rawValue: 1 << 12)
  static let extendedDescriptors = Rfctl(rawValue: 1 << 15)
}

/// Transmit Control (10.2.6.1).
struct Tctl: OptionSet {
  let rawValue: UInt32
  static let enable = Tctl(rawValue: 1 << 1)
  static let padShortPackets = Tctl(rawValue: 1 << 3)
  static let retransmitLateCollision = Tctl(rawValue: 1 << 24)
  /// Several reads from memory in flight.
  static let multipleRequests = Tctl(rawValue: 1 << 28)
  /// Collision threshold 15 and distance 63 bytes, for full duplex.
  static let collisions = Tctl(rawValue: 0xf << 4 | 0x3f << 12)
}

/// Bits of plain registers.
enum Bits {
  /// RAH: the pair is used (10.2.5.34).
  static let addressValid: UInt32 = 1 << 31
  /// EERD: start, done, where the address and the data are (10.2.2.4).
  static let eerdStart: UInt32 = 1
  static let eerdDone: UInt32 = 2
  static let eerdAddress: UInt32 = 2
  static let eerdData: UInt32 = 16
  /// IVAR: an entry's valid bit, and "every transmit write-back is a cause" (10.2.4.8).
  static let ivarValid: UInt32 = 8
  static let ivarEveryWriteBack: UInt32 = 1 << 31
  /// MRQC: receive-side scaling over two queues; TCP/IPv4, IPv4, TCP/IPv6, IPv6 (10.2.5.37).
  static let mrqcTwoQueues: UInt32 = 1 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20
  /// RETA: an entry's queue is its byte's top bit.
  static let retaQueue1: UInt32 = 0x80
  /// TARC: the queue is enabled; 27 to 30 must be 0; 26 as the specification update asks.
  static let tarcEnable: UInt32 = 1 << 10
  static let tarcMustBeZero: UInt32 = 0xf << 27
  static let tarcErratum: UInt32 = 1 << 26
  /// GCR 22 and GCR2 0: completion errors under ASPM; GCR 27: L1 without L0s.
  static let gcrErratum: UInt32 = 1 << 22
  static let gcrL1WithoutL0s: UInt32 = 1 << 27
  static let gcr2Erratum: UInt32 = 1
  /// RXDCTL and TXDCTL count in descriptors.
  static let thresholdInDescriptors: UInt32 = 1 << 24
  /// TXDCTL 22: must be set.
  static let txdctlMustBeOne: UInt32 = 1 << 22
}

/// The PHY's registers (IEEE 802.3-2022, 22.2.4).
enum PHY {
  static let control: UInt32 = 0
  static let status: UInt32 = 1
  static let advertisement: UInt32 = 4
  static let gigabitControl: UInt32 = 9
  static let gigabitStatus: UInt32 = 10
  /// Errors since the last read; this PHY's own (82574 datasheet, 10.1.2.7).
  static let receiveErrors: UInt32 = 21
  static let powerDown: UInt16 = 1 << 11
  static let autonegotiate: UInt16 = 1 << 12
  static let restart: UInt16 = 1 << 9
  static let complete: UInt16 = 1 << 5
}
