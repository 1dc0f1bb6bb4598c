// The model's register file, from the 82574 datasheet's register map (10.1.2), and what reading and
// writing each register does. Written without looking at the driver's offsets: a wrong offset that
// both share would pass every test.

import CRingway
public import DeviceIO

/// Offsets of the registers with a meaning to the model.
enum At {
  static let deviceControl = 0x0000, deviceStatus = 0x0008, eepromControl = 0x0010, eepromRead = 0x0014
  static let extendedControl = 0x0018, phyAccess = 0x0020, etherType = 0x0038
  static let causeRead = 0x00c0, causeSet = 0x00c8, maskSet = 0x00d0, maskClear = 0x00d8
  static let autoClear = 0x00dc, autoMask = 0x00e0, vectorAllocation = 0x00e4, throttle = 0x00e8
  static let receiveControl = 0x0100, transmitControl = 0x0400, packetBuffer = 0x1000
  static let receiveBase = 0x2800, receiveLength = 0x2808, receiveHead = 0x2810, receiveTail = 0x2818
  static let transmitBase = 0x3800, transmitLength = 0x3808, transmitHead = 0x3810, transmitTail = 0x3818
  static let transmitArbitration = 0x3840
  static let statisticsStart = 0x4000, statisticsEnd = 0x4128
  static let receiveChecksum = 0x5000, receiveFilter = 0x5008, multicastTable = 0x5200
  static let addressTable = 0x5400, vlanTable = 0x5600, multipleQueues = 0x5818, semaphore = 0x5b50
  static let redirection = 0x5c00, hashKey = 0x5c80
  static let nextQueue = 0x100
}

/// Statistics registers (10.2.7) that the model counts in.
enum Count {
  static let missed = 0x4010, shorts = 0x40a4, longs = 0x40ac, noBuffers = 0x40a0, crcErrors = 0x4000
  static let received = 0x4074, receivedBroadcast = 0x4078, receivedMulticast = 0x407c, sent = 0x4080
  static let receivedBytes = 0x4088, sentBytes = 0x4090, sentMulticast = 0x40f0, sentBroadcast = 0x40f4
}

/// The registers as the driver's side sees them. Reads and writes take effect at once; the tail
/// registers are plain memory, which the model looks at in `step`.
@safe public final class E1000eModelRegisters: RegisterSpace {
  public let count = 0x20000
  let memory: UnsafeMutableRawPointer
  unowned let model: E1000eModel
  /// Offsets written through the space, in order: tests look at it.
  public private(set) var writes: [(offset: Int, value: UInt32)] = []

  init(_ model: E1000eModel) {
    self.model = model
    unsafe memory = .allocate(byteCount: count, alignment: 4096)
    _ = unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  deinit { unsafe memory.deallocate() }

  /// The registers' memory, for device sides that must be fast.
  public var raw: UnsafeMutableRawPointer { unsafe memory }

  /// Forgets the recorded writes.
  public func forgetWrites() { writes = [] }

  /// Raw register contents, without side effects. `offset` is one of the model's own constants.
  subscript(_ offset: Int) -> UInt32 {
    // SAFETY: the offset is checked against the space.
    get { offset >= 0 && offset <= count - 4 ? unsafe rw_read32(memory + offset) : 0 }
    set { if offset >= 0 && offset <= count - 4 { unsafe rw_write32(memory + offset, newValue) } }
  }

  /// Adds to a statistics register, which sticks at its largest value.
  func tally(_ offset: Int, _ amount: UInt32 = 1) {
    let (sum, overflow) = self[offset].addingReportingOverflow(amount)
    self[offset] = overflow ? .max : sum
  }

  /// Adds to a 64-bit statistics register.
  func tallyWide(_ offset: Int, _ amount: Int) {
    let sum = (UInt64(self[offset + 4]) << 32 | UInt64(self[offset])) &+ UInt64(amount)
    self[offset] = UInt32(truncatingIfNeeded: sum)
    self[offset + 4] = UInt32(sum >> 32)
  }

  private func holds(_ offset: Int) -> Bool { offset >= 0 && offset <= count - 4 && offset & 3 == 0 }

  public func read32(at offset: Int) -> UInt32 {
    guard holds(offset), !model.faults.gone else { return .max }
    switch offset {
    case At.deviceControl:
      let value = self[offset]
      // A reset ends by itself, some time later.
      if value & 1 << 26 != 0, model.faults.stuckReset == false { self[offset] = value & ~(1 << 26) }
      return value
    case At.deviceStatus: return model.statusRegister
    case At.eepromControl:
      if model.readsUntilConfigured > 0 {
        model.readsUntilConfigured -= 1
        return self[offset] & ~(1 << 9)
      }
      return self[offset] | 1 << 9
    case At.causeRead: return model.readCauses()
    case At.causeSet: return self[At.causeRead]
    case At.maskClear: return 0
    case At.semaphore:
      let value = self[offset]
      self[offset] = value | 1
      return value
    case At.statisticsStart..<At.statisticsEnd:
      let value = self[offset]
      // The low half of a wide counter stays until its high half is read.
      let isLow = [Count.receivedBytes, Count.sentBytes, 0x40c0, 0x40c8].contains(offset)
      if !isLow { self[offset] = 0 }
      if [Count.receivedBytes, Count.sentBytes, 0x40c0, 0x40c8].contains(offset - 4) { self[offset - 4] = 0 }
      return value
    case At.transmitHead, At.transmitHead + At.nextQueue:
      return model.faults.transmitHead ?? self[offset]
    case At.receiveHead, At.receiveHead + At.nextQueue:
      return model.faults.receiveHead ?? self[offset]
    default: return self[offset]
    }
  }

  public func write32(_ value: UInt32, at offset: Int) {
    guard holds(offset), !model.faults.gone else { return }
    writes.append((offset, value))
    switch offset {
    case At.deviceControl:
      self[offset] = value
      if value & 1 << 26 != 0 { model.resetRegisters() }
    case At.deviceStatus: break
    case At.eepromRead:
      let word = Int(value >> 2 & 0x3fff)
      guard value & 1 != 0, word < model.nonVolatile.count else { return self[offset] = value & ~2 }
      self[offset] = UInt32(model.nonVolatile[word]) << 16 | UInt32(word) << 2 | 2
    case At.phyAccess: model.accessPHY(value)
    case At.causeRead: model.clearCauses(value)
    case At.causeSet: model.raise(value)
    case At.maskSet: model.setMask(value)
    case At.maskClear: model.clearMask(value)
    case At.statisticsStart..<At.statisticsEnd: break
    default: self[offset] = value
    }
  }

  // Registers are 32 bits wide; narrower reads see a part of them, narrower writes do nothing.
  public func read8(at offset: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: read32(at: offset & ~3) >> (UInt32(offset & 3) * 8))
  }
  public func read16(at offset: Int) -> UInt16 {
    UInt16(truncatingIfNeeded: read32(at: offset & ~3) >> (UInt32(offset & 2) * 8))
  }
  public func write8(_ value: UInt8, at offset: Int) {}
  public func write16(_ value: UInt16, at offset: Int) {}

  public func doorbell(at offset: Int) -> Doorbell? {
    guard [At.receiveTail, At.transmitTail].contains(offset & ~At.nextQueue) else { return nil }
    return unsafe Doorbell(unsafe: memory + offset)
  }
}
