// The 82599's registers that this driver uses.
//
// Offsets, names and sections: Intel 82599 10 GbE Controller Datasheet, revision 3.4, chapter 8
// ("8.2.3.1.1" and so on). The X540 has the same ones where nothing else is said.

import DeviceIO

/// Registers by their datasheet names.
enum Reg {
  // 8.2.3.1: general control
  static let ctrl = Register<Ctrl>("CTRL", 0x00000)
  static let status = Register<Status>("STATUS", 0x00008)
  static let ctrlExt = Register<CtrlExt>("CTRL_EXT", 0x00018)
  static let esdp = Register<Esdp>("ESDP", 0x00020)
  static let i2cctl = Register<I2cctl>("I2CCTL", 0x00028)
  static let coreControl = Register<Plain>("CORECTL", 0x14f00)

  // 8.2.3.2: EEPROM; 8.2.3.4: semaphores
  static let eec = Register<Eec>("EEC", 0x10010)
  static let eerd = Register<Plain>("EERD", 0x10014)
  static let eemngctl = Register<Eemngctl>("EEMNGCTL", 0x10110)
  static let swsm = Register<Swsm>("SWSM", 0x10140)
  static let fwsm = Register<Plain>("FWSM", 0x10148)
  static let softwareFirmwareSync = Register<SharedResources>("SW_FW_SYNC", 0x10160)
  static let gcrExt = Register<GcrExt>("GCR_EXT", 0x11050)

  // 8.2.3.3: flow control
  static let fcttv = Register<Plain>("FCTTV", 0x03200)
  static let fcrtl = Register<Plain>("FCRTL", 0x03220)
  static let fcrth = Register<Plain>("FCRTH", 0x03260)
  static let fcrtv = Register<Plain>("FCRTV", 0x032a0)
  static let fccfg = Register<Plain>("FCCFG", 0x03d00)
  static let mflcn = Register<Mflcn>("MFLCN", 0x04294)

  // 8.2.3.5: interrupts
  static let eicr = Register<Cause>("EICR", 0x00800)
  static let eics = Register<Cause>("EICS", 0x00808)
  static let eiac = Register<Cause>("EIAC", 0x00810)
  static let eims = Register<Cause>("EIMS", 0x00880)
  static let eimc = Register<Cause>("EIMC", 0x00888)
  static let eiam = Register<Cause>("EIAM", 0x00890)
  static let gpie = Register<Gpie>("GPIE", 0x00898)
  /// Two words, a bit for each of 64 vectors.
  static let eimcExtended = Register<Plain>("EIMC_EX", 0x00ab0)
  static let eiamExtended = Register<Plain>("EIAM_EX", 0x00ad0)
  /// 24 words, one for each vector; the driver uses at most 17.
  static let eitr = Register<Plain>("EITR", 0x00820)
  /// A word for each pair of queues.
  static let ivar = Register<Plain>("IVAR", 0x00900)
  static let ivarMisc = Register<Plain>("IVAR_MISC", 0x00a00)

  // 8.2.3.7: receive filters
  static let rxcsum = Register<Rxcsum>("RXCSUM", 0x05000)
  static let rfctl = Register<Rfctl>("RFCTL", 0x05008)
  static let fctrl = Register<Fctrl>("FCTRL", 0x05080)
  static let vlnctrl = Register<Vlnctrl>("VLNCTRL", 0x05088)
  static let mcstctrl = Register<Mcstctrl>("MCSTCTRL", 0x05090)
  /// 8 and 8 words: filters by Ethernet type.
  static let etqf = Register<Plain>("ETQF", 0x05128)
  static let etqs = Register<Plain>("ETQS", 0x0ec00)
  /// 128 words: the multicast hash table.
  static let mta = Register<Plain>("MTA", 0x05200)
  /// 128 pairs, 8 bytes apart.
  static let ral = Register<Plain>("RAL", 0x0a200)
  static let rah = Register<Plain>("RAH", 0x0a204)
  /// 128 pairs: which pools a receive address belongs to.
  static let mpsarLow = Register<Plain>("MPSAR", 0x0a600)
  static let mpsarHigh = Register<Plain>("MPSAR", 0x0a604)
  /// 128 words: a bit for each VLAN identifier.
  static let vfta = Register<Plain>("VFTA", 0x0a000)
  /// 128 words: filters by the five-tuple.
  static let ftqf = Register<Plain>("FTQF", 0x0e600)
  static let synqf = Register<Plain>("SYNQF", 0x0ec30)
  static let fdirctrl = Register<Plain>("FDIRCTRL", 0x0ee00)
  static let virtualization = Register<Plain>("PFVTCTL", 0x051b0)
  static let mrqc = Register<Mrqc>("MRQC", 0x05818)
  /// 32 words of four entries.
  static let reta = Register<Plain>("RETA", 0x05c00)
  /// 10 words.
  static let rssrk = Register<Plain>("RSSRK", 0x05c80)

  // 8.2.3.8: receive DMA. Queue i's registers lie 40h bytes behind those of the one before.
  static let rdbal = Register<Plain>("RDBAL", 0x01000)
  static let rdbah = Register<Plain>("RDBAH", 0x01004)
  static let rdlen = Register<Plain>("RDLEN", 0x01008)
  static let rxDca = Register<DcaControl>("DCA_RXCTRL", 0x0100c)
  static let rdh = Register<Plain>("RDH", 0x01010)
  static let srrctl = Register<Srrctl>("SRRCTL", 0x01014)
  static let rdt = Register<Plain>("RDT", 0x01018)
  static let rxdctl = Register<QueueControl>("RXDCTL", 0x01028)
  static let rscctl = Register<Plain>("RSCCTL", 0x0102c)
  static let rdrxctl = Register<Rdrxctl>("RDRXCTL", 0x02f00)
  static let rxctrl = Register<Rxctrl>("RXCTRL", 0x03000)
  /// 8 words: packet memory for each traffic class.
  static let rxpbsize = Register<Plain>("RXPBSIZE", 0x03c00)

  // 8.2.3.9: transmit DMA, with the same stride
  static let tdbal = Register<Plain>("TDBAL", 0x06000)
  static let tdbah = Register<Plain>("TDBAH", 0x06004)
  static let tdlen = Register<Plain>("TDLEN", 0x06008)
  static let txDca = Register<DcaControl>("DCA_TXCTRL", 0x0600c)
  static let tdh = Register<Plain>("TDH", 0x06010)
  static let tdt = Register<Plain>("TDT", 0x06018)
  static let txdctl = Register<QueueControl>("TXDCTL", 0x06028)
  static let tdwbal = Register<Plain>("TDWBAL", 0x06038)
  static let tdwbah = Register<Plain>("TDWBAH", 0x0603c)
  static let dmatxctl = Register<Dmatxctl>("DMATXCTL", 0x04a80)
  static let dtxtcpflgl = Register<Plain>("DTXTCPFLGL", 0x04a88)
  static let dtxtcpflgh = Register<Plain>("DTXTCPFLGH", 0x04a8c)
  static let dtxmxszrq = Register<Plain>("DTXMXSZRQ", 0x08100)
  static let mtqc = Register<Plain>("MTQC", 0x08120)
  /// 8 words each.
  static let txpbsize = Register<Plain>("TXPBSIZE", 0x0cc00)
  static let txpbthresh = Register<Plain>("TXPBTHRESH", 0x04950)

  // 8.2.3.10: arbitration between traffic classes; 8.2.3.12: the security engines
  static let rtrpcs = Register<Plain>("RTRPCS", 0x02430)
  static let rttdcs = Register<Rttdcs>("RTTDCS", 0x04900)
  static let rttpcs = Register<Plain>("RTTPCS", 0x0cd00)
  static let rtrup2tc = Register<Plain>("RTRUP2TC", 0x03020)
  static let rttup2tc = Register<Plain>("RTTUP2TC", 0x0c800)
  static let secRxCtrl = Register<SecurityControl>("SECRXCTRL", 0x08d00)
  static let secRxStat = Register<SecurityStatus>("SECRXSTAT", 0x08d04)
  static let fcrxctrl = Register<Plain>("FCRXCTRL", 0x05100)

  // 8.2.3.22: the MAC
  static let hlreg0 = Register<Hlreg0>("HLREG0", 0x04240)
  static let msca = Register<Msca>("MSCA", 0x0425c)
  static let msrwd = Register<Plain>("MSRWD", 0x04260)
  static let maxfrs = Register<Plain>("MAXFRS", 0x04268)
  static let autoc = Register<Autoc>("AUTOC", 0x042a0)
  static let links = Register<Links>("LINKS", 0x042a4)
  static let autoc2 = Register<Autoc2>("AUTOC2", 0x042a8)
  static let anlp1 = Register<Plain>("ANLP1", 0x042b0)
  static let mmngc = Register<Plain>("MMNGC", 0x042d0)

  // 8.2.3.23: counters of queues, 16 of each
  static let rqsmr = Register<Plain>("RQSMR", 0x02300)
  static let tqsm = Register<Plain>("TQSM", 0x08600)
  /// Frames lost for want of a descriptor, with the queues' stride.
  static let qprdc = Register<Plain>("QPRDC", 0x01430)

  /// Bytes from a ring register of one queue to the next one's.
  static let queueStride = 0x40
  /// Bytes of registers behind base address register 0.
  static let spaceSize = 0x20000
}

/// Bits of plain registers.
enum Bits {
  /// RAH: the pair is used (8.2.3.7.9).
  static let addressValid: UInt32 = 1 << 31
  /// EERD: start, done, where the address and the data are (8.2.3.2.2).
  static let eerdStart: UInt32 = 1
  static let eerdDone: UInt32 = 2
  static let eerdAddress: UInt32 = 2
  static let eerdData: UInt32 = 16
  /// IVAR: an entry's valid bit (8.2.3.5.16).
  static let ivarValid: UInt32 = 0x80
  /// EITR: the interval begins at bit 3 and counts 2 us; the running counter is left alone
  /// (8.2.3.5.12).
  static let eitrInterval: UInt32 = 3
  static let eitrLongest = 0x1ff
  static let eitrKeepCounter: UInt32 = 1 << 31
  /// RXPBSIZE, TXPBSIZE: kilobytes from bit 10.
  static let packetMemoryShift: UInt32 = 10
  /// ANLP1: the state of autonegotiation (8.2.3.22.25).
  static let negotiationState: UInt32 = 0xf << 16
  /// MMNGC: the management firmware keeps the link up (8.2.3.22.31).
  static let linkVeto: UInt32 = 1
}
