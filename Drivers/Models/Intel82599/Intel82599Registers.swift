// Where the 82599's registers are and what their bits mean (Intel 82599 10 GbE Controller Datasheet,
// chapter 8). This is the model's own list: no driver uses it, and the model uses no driver's.

/// Bytes from the start of BAR 0. Arrays say their stride where it is not 4.
enum At599 {
  // 8.2.3.1 General control
  static let control = 0x0000
  static let status = 0x0008
  static let controlExtension = 0x0018
  static let definablePins = 0x0020
  static let twoWire = 0x0028
  static let freeRunningTimer = 0x0048
  static let ledControl = 0x0200
  // 8.2.3.2 Non-volatile memory
  static let nonVolatileControl = 0x10010
  static let nonVolatileRead = 0x10014
  static let nonVolatileWrite = 0x10018
  static let managementNonVolatile = 0x10110
  // 8.2.3.4 Firmware
  static let softwareSemaphore = 0x10140
  static let firmwareSemaphore = 0x10148
  static let functionActive = 0x10150
  static let softwareFirmwareSync = 0x10160
  // 8.2.3.5 Interrupts
  static let cause = 0x0800
  static let causeSet = 0x0808
  static let autoClear = 0x0810
  static let throttleLow = 0x0820  // 0...23
  static let maskSet = 0x0880
  static let maskClear = 0x0888
  static let autoMask = 0x0890
  static let generalInterrupt = 0x0898
  static let vectors = 0x0900  // 64
  static let vectorsOther = 0x0a00
  static let causeSetExtended = 0x0a90  // 2
  static let maskSetExtended = 0x0aa0
  static let maskClearExtended = 0x0ab0
  static let autoMaskExtended = 0x0ad0
  static let throttleHigh = 0x12300  // 24...127
  // 8.2.3.8 Receive
  static let receiveQueue = 0x1000  // 0...63, stride 0x40
  static let receiveQueueHigh = 0xd000  // 64...127, stride 0x40
  static let splitControl = 0x2100  // 0...15 once more
  static let receiveCache = 0x2200  // 0...15 once more
  static let receiveStatisticsMap = 0x2300  // 32
  static let receiveDMA = 0x2f00
  static let receiveControl = 0x3000
  static let receivePacketBuffer = 0x3c00  // 8
  static let receiveChecksum = 0x5000
  static let multicastTable = 0x5200  // 128
  static let addressesLow = 0x5400  // 0...15 once more, stride 8
  static let splitTypeLow = 0x5480  // 0...15 once more
  static let filterControl = 0x5080
  static let vlanControl = 0x5088
  static let multicastControl = 0x5090
  static let etherTypeFilter = 0x5128  // 8
  static let multipleQueues = 0x5818
  static let redirection = 0x5c00  // 32
  static let hashKey = 0x5c80  // 10
  static let vlanTable = 0xa000  // 128
  static let addresses = 0xa200  // 128, stride 8
  static let splitType = 0xea00
  static let etherTypeSelect = 0xec00  // 8
  static let receiveSecurity = 0x8d00
  static let receiveSecurityStatus = 0x8d04
  // 8.2.3.21 Flow director
  static let director = 0xee00
  static let directorSource = 0xee18
  static let directorDestination = 0xee1c
  static let directorPorts = 0xee20
  static let directorVLAN = 0xee24
  static let directorHash = 0xee28
  static let directorCommand = 0xee2c
  static let directorFree = 0xee38
  static let directorDestinationMask = 0xee3c
  static let directorSourceMask = 0xee40
  static let directorTCPMask = 0xee44
  static let directorUDPMask = 0xee48
  static let directorLength = 0xee4c
  static let directorUse = 0xee50
  static let directorFailures = 0xee54
  static let directorMatches = 0xee58
  static let directorMisses = 0xee5c
  static let directorBucketKey = 0xee68
  static let directorSignatureKey = 0xee6c
  static let directorMask = 0xee70
  // 8.2.3.9 Transmit
  static let transmitQueue = 0x6000  // 128, stride 0x40
  static let transmitDMA = 0x4a80
  static let segmentFlagsLow = 0x4a88
  static let segmentFlagsHigh = 0x4a8c
  static let largestRequest = 0x8100
  static let transmitStatisticsMap = 0x8600  // 32
  static let transmitSecurityStatus = 0x8804
  static let transmitPacketBuffer = 0xcc00  // 8
  static let transmitThreshold = 0x4950  // 8
  // 8.2.3.22 MAC
  static let highLevel = 0x4240
  static let mdioCommand = 0x425c
  static let mdioData = 0x4260
  static let largestFrame = 0x4268
  static let flowControl = 0x4294
  static let autoNegotiation = 0x42a0
  static let links = 0x42a4
  static let autoNegotiation2 = 0x42a8
  static let partner = 0x42b0
  static let links2 = 0x4324
}

/// Statistics registers (8.2.3.23), cleared by reading.
enum Count599 {
  static let checkErrors = 0x4000
  static let missed = 0x3fa0  // 8
  static let received64 = 0x405c  // then 127, 255, 511, 1023, 1522
  static let goodReceived = 0x4074
  static let broadcastReceived = 0x4078
  static let multicastReceived = 0x407c
  static let goodSent = 0x4080
  static let goodBytesReceived = 0x4088  // 36 bits in two
  static let goodBytesSent = 0x4090
  static let undersized = 0x40a4
  static let oversized = 0x40ac
  static let jabbers = 0x40b0
  static let totalBytesReceived = 0x40c0
  static let totalReceived = 0x40d0
  static let totalSent = 0x40d4
  static let sent64 = 0x40d8  // then 127, 255, 511, 1023, 1522
  static let multicastSent = 0x40f0
  static let broadcastSent = 0x40f4
  static let badChecksums = 0x4120
  static let pauseOffReceived = 0x41a8
  static let pauseOnReceived = 0x41a4
  // Per statistics queue, 16 of each.
  static let queueReceived = 0x1030  // stride 0x40
  static let queueBytesReceived = 0x1034  // stride 0x40, 36 bits in two
  static let queueDropped = 0x1430  // stride 0x40
  static let queueSent = 0x6030  // stride 0x40, and 0x8680 with stride 4
  static let queueSentAgain = 0x8680
  static let queueBytesSent = 0x8700  // stride 8
}

/// Registers of one queue, from its start (8.2.3.8, 8.2.3.9).
enum Ring599 {
  static let stride = 0x40
  static let baseLow = 0x00
  static let baseHigh = 0x04
  static let length = 0x08
  static let cache = 0x0c
  static let head = 0x10
  static let split = 0x14  // receive: buffer sizes, descriptor type
  static let tail = 0x18
  static let control = 0x28
  static let headWriteBackLow = 0x38  // transmit
  static let headWriteBackHigh = 0x3c
}

/// Bits, by register.
enum Bit599 {
  // CTRL, STATUS
  static let masterDisable: UInt32 = 1 << 2
  static let linkReset: UInt32 = 1 << 3
  static let deviceReset: UInt32 = 1 << 26
  static let statusLinkUp: UInt32 = 1 << 7
  static let statusMaster: UInt32 = 1 << 19
  // RXDCTL, TXDCTL
  static let queueEnable: UInt32 = 1 << 25
  static let queueFlush: UInt32 = 1 << 26
  static let stripTags: UInt32 = 1 << 30
  static let limitLength: UInt32 = 1 << 15
  // SRRCTL
  static let dropWhenFull: UInt32 = 1 << 28
  // RXCTRL, DMATXCTL, SECRXCTRL
  static let receiveEnable: UInt32 = 1
  static let transmitEnable: UInt32 = 1
  static let securityDisable: UInt32 = 1 << 1
  // RDRXCTL
  static let stripCheck: UInt32 = 1 << 1
  static let initialised: UInt32 = 1 << 3
  // HLREG0
  static let highStripCheck: UInt32 = 1 << 1
  static let jumbo: UInt32 = 1 << 2
  static let pad: UInt32 = 1 << 10
  static let loopback: UInt32 = 1 << 15
  // FCTRL
  static let storeBad: UInt32 = 1 << 1
  static let multicastPromiscuous: UInt32 = 1 << 8
  static let unicastPromiscuous: UInt32 = 1 << 9
  static let broadcastAccept: UInt32 = 1 << 10
  // MFLCN
  static let discardPause: UInt32 = 1 << 1
  // VLNCTRL
  static let vlanFilter: UInt32 = 1 << 30
  static let canonicalFilter: UInt32 = 1 << 29
  static let canonicalValue: UInt32 = 1 << 28
  // RXCSUM
  static let hashInsteadOfChecksum: UInt32 = 1 << 13
  // GPIE
  static let multipleVectors: UInt32 = 1 << 4
  static let otherClearDisable: UInt32 = 1 << 5
  static let immediate: UInt32 = 1 << 6
  static let extendedAutoMask: UInt32 = 1 << 30
  static let pinEnable2: UInt32 = 1 << 2
  // EICR
  static let causeMissed: UInt32 = 1 << 17
  static let causeLink: UInt32 = 1 << 20
  static let causePin2: UInt32 = 1 << 26
  static let causeTimer: UInt32 = 1 << 30
  // AUTOC
  static let forceLinkUp: UInt32 = 1
  static let restart: UInt32 = 1 << 12
  static let linkModeShift: UInt32 = 13
  // FDIRCTRL, FDIRCMD
  static let directorDone: UInt32 = 1 << 3
  static let directorPerfect: UInt32 = 1 << 4
  static let directorReport: UInt32 = 1 << 5
}

/// Write-back of a receive descriptor, status word (7.1.6.2).
enum Done599 {
  static let done: UInt32 = 1
  static let end: UInt32 = 1 << 1
  static let directorMatch: UInt32 = 1 << 2
  static let tagStripped: UInt32 = 1 << 3
  static let udpChecked: UInt32 = 1 << 4
  static let transportChecked: UInt32 = 1 << 5
  static let networkChecked: UInt32 = 1 << 6
  static let inexact: UInt32 = 1 << 7
  static let loopback: UInt32 = 1 << 18
  static let checkError: UInt32 = 1 << 24
  static let macError: UInt32 = 1 << 29
  static let transportError: UInt32 = 1 << 30
  static let networkError: UInt32 = 1 << 31
}

/// Transmit descriptors, third word (7.2.3.2).
enum Send599 {
  static let end: UInt32 = 1 << 24
  static let insertCheck: UInt32 = 1 << 25
  static let legacyChecksum: UInt32 = 1 << 26
  static let report: UInt32 = 1 << 27
  static let advanced: UInt32 = 1 << 29
  static let insertTag: UInt32 = 1 << 30
  static let segment: UInt32 = 1 << 31
  static let kindMask: UInt32 = 0xf << 20
  static let context: UInt32 = 2 << 20
}
