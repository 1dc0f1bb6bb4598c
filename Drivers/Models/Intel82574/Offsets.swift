// Where the registers are (82574 datasheet, 10.1.2), written down for the device's side alone: a wrong
// offset that a driver shared would pass every test.

extension E1000eModel {
  /// Offsets in BAR0. Queue 1's ring registers lie `nextQueue` behind queue 0's.
  enum At {
    static let deviceControl = 0x0000, deviceStatus = 0x0008, nvmControl = 0x0010, nvmRead = 0x0014
    static let extendedControl = 0x0018, phyAccess = 0x0020, flowAddressLow = 0x0028, flowAddressHigh = 0x002c
    static let flowType = 0x0030, tagType = 0x0038
    static let causeRead = 0x00c0, throttle = 0x00c4, causeSet = 0x00c8, maskSet = 0x00d0, maskClear = 0x00d8
    static let autoClear = 0x00dc, autoMask = 0x00e0, vectorAllocation = 0x00e4, vectorThrottle = 0x00e8
    static let receiveControl = 0x0100, flowTimer = 0x0170, transmitConfiguration = 0x0178
    static let transmitControl = 0x0400, interPacketGap = 0x0410
    static let ledControl = 0x0e00, externalConfiguration = 0x0f00
    static let packetBuffer = 0x1000, nvmManagement = 0x1010, nvmWrite = 0x102c
    static let flowLow = 0x2160, flowHigh = 0x2168, splitControl = 0x2170
    static let receiveBase = 0x2800, receiveLength = 0x2808, receiveHead = 0x2810, receiveTail = 0x2818
    static let receiveDelay = 0x2820, receiveDescriptorControl = 0x2828, receiveAbsoluteDelay = 0x282c
    static let smallPacket = 0x2c00
    static let transmitBase = 0x3800, transmitLength = 0x3808, transmitHead = 0x3810, transmitTail = 0x3818
    static let transmitDelay = 0x3820, transmitDescriptorControl = 0x3828, transmitAbsoluteDelay = 0x382c
    static let transmitArbitration = 0x3840
    static let statisticsStart = 0x4000, statisticsEnd = 0x4128
    static let receiveChecksum = 0x5000, receiveFilter = 0x5008, multicastTable = 0x5200
    static let addressTable = 0x5400, vlanTable = 0x5600, multipleQueues = 0x5818
    static let semaphore = 0x5b50, firmwareSemaphore = 0x5b54, pendingClear = 0x5b68
    static let redirection = 0x5c00, hashKey = 0x5c80
    static let timeLow = 0xb600, timeHigh = 0xb604, timeIncrement = 0xb608
    static let nextQueue = 0x100
    static let end = 0x20000
  }

  /// Statistics registers (10.2.7). All are cleared by reading.
  enum Count {
    static let checkSequenceErrors = 0x4000, receiveErrors = 0x400c, missed = 0x4010
    static let lengthErrors = 0x4040, pauseOnReceived = 0x4048, pauseOnSent = 0x404c
    static let pauseOffReceived = 0x4050, pauseOffSent = 0x4054, flowUnsupported = 0x4058
    /// By size with the check sequence: 64, 65-127, 128-255, 256-511, 512-1023, 1024 and more.
    static let receivedBySize = 0x405c, sentBySize = 0x40d8
    static let received = 0x4074, receivedBroadcast = 0x4078, receivedMulticast = 0x407c, sent = 0x4080
    static let receivedBytes = 0x4088, sentBytes = 0x4090, noBuffers = 0x40a0, shorts = 0x40a4, fragments = 0x40a8
    static let longs = 0x40ac, jabbers = 0x40b0
    static let allReceivedBytes = 0x40c0, allSentBytes = 0x40c8, allReceived = 0x40d0, allSent = 0x40d4
    static let sentMulticast = 0x40f0, sentBroadcast = 0x40f4, segmentations = 0x40f8, failedSegmentations = 0x40fc
    static let interrupts = 0x4100, receiveTimerInterrupts = 0x4104, receiveAbsoluteInterrupts = 0x4108
    static let transmitTimerInterrupts = 0x410c, transmitAbsoluteInterrupts = 0x4110, transmitEmptyInterrupts = 0x4118
    static let transmitLowInterrupts = 0x411c, receiveLowInterrupts = 0x4120, overrunInterrupts = 0x4124
    /// Low halves of counters 64 bits wide.
    static func isWide(_ offset: Int) -> Bool {
      offset == receivedBytes || offset == sentBytes || offset == allReceivedBytes || offset == allSentBytes
    }
  }

  /// Interrupt causes (10.2.4.1).
  enum Cause {
    static let transmitted: UInt32 = 1 << 0, transmitEmpty: UInt32 = 1 << 1, linkChange: UInt32 = 1 << 2
    static let receiveLow: UInt32 = 1 << 4, overrun: UInt32 = 1 << 6, receiveTimer: UInt32 = 1 << 7
    static let phyAccessed: UInt32 = 1 << 9, transmitLow: UInt32 = 1 << 15, smallPacket: UInt32 = 1 << 16
    static let acknowledgement: UInt32 = 1 << 17, management: UInt32 = 1 << 18
    static let receiveQueue: UInt32 = 1 << 20, transmitQueue: UInt32 = 1 << 22
    static let other: UInt32 = 1 << 24, asserted: UInt32 = 1 << 31
    /// Those that are reported by OTHER where each queue has a vector.
    static let others = linkChange | overrun | phyAccessed | smallPacket | acknowledgement | management
    static let all: UInt32 = 0x03ff_ffff
  }

  /// Older offsets of the same registers (10.1.2, "alias").
  static func canonical(_ offset: Int) -> Int {
    switch offset {
    case 0x0004: At.deviceControl
    case 0x0040..<0x00c0: At.addressTable + offset - 0x40
    case 0x0108: At.receiveDelay
    case 0x0110..<0x0130: At.receiveBase + offset - 0x110
    case 0x0138..<0x0158: At.receiveBase + At.nextQueue + offset - 0x138
    case 0x0160: At.flowLow
    case 0x0168: At.flowHigh
    case 0x0200..<0x0400: At.multicastTable + offset - 0x200
    case 0x0420..<0x0440: At.transmitBase + offset - 0x420
    case 0x0440: At.transmitDelay
    case 0x0600..<0x0800: At.vlanTable + offset - 0x600
    case 0x8000..<0x8010: 0x2410 + offset - 0x8000
    case 0x8010..<0x8020: 0x3410 + offset - 0x8010
    default: offset
    }
  }

  /// The bits of a register that a driver's write changes; the others read 0.
  static func writable(_ offset: Int) -> UInt32 {
    switch offset {
    case At.flowAddressHigh, At.flowType, At.tagType, At.flowTimer, At.transmitDelay, At.transmitAbsoluteDelay,
      At.receiveAbsoluteDelay, At.receiveHead, At.receiveHead + At.nextQueue, At.receiveTail,
      At.receiveTail + At.nextQueue, At.transmitHead, At.transmitHead + At.nextQueue, At.transmitTail,
      At.transmitTail + At.nextQueue, At.throttle:
      0xffff
    case At.receiveDelay: 0x8000_ffff
    case At.receiveLength, At.receiveLength + At.nextQueue, At.transmitLength, At.transmitLength + At.nextQueue:
      0x000f_ff80
    case At.receiveBase, At.receiveBase + At.nextQueue, At.transmitBase, At.transmitBase + At.nextQueue: 0xffff_fff0
    case At.flowHigh, At.flowLow: 0x8000_fff8
    case At.interPacketGap: 0x3fff_ffff
    case At.addressTable..<At.addressTable + 128: offset & 4 == 0 ? .max : 0x8003_ffff
    default: .max
    }
  }
}
