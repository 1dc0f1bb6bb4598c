// What sits in the card's cage, and the two-wire bus that reads it (SFF-8472; the I2C-bus
// specification, UM10204, section 3.1).

/// A module or cable in the SFP+ cage.
public enum Intel82599Module: Equatable, Sendable, CaseIterable {
  /// Fibre, 850 nm, 10 Gb/s.
  case shortRange
  /// Fibre, 1310 nm, 10 Gb/s.
  case longRange
  /// A copper cable without electronics.
  case passiveCable
  /// Fibre at 10 Gb/s or 1 Gb/s.
  case dualSpeed
  /// Copper, 1 Gb/s.
  case gigabitCopper
  /// Nothing.
  case absent
  /// Like `shortRange`, of a vendor that the card's maker has not tested.
  case otherVendor
  /// Something that is no SFP.
  case unknown

  var isPresent: Bool { self != .absent }
  var takes10Gigabit: Bool { isPresent && self != .gigabitCopper && self != .unknown }
  var takes1Gigabit: Bool { self == .gigabitCopper || self == .dualSpeed }

  /// Page A0h of the module's memory (SFF-8472, table 4-1).
  var memory: [UInt8] {
    var page = [UInt8](repeating: 0, count: 256)
    guard isPresent else { return page }
    page[0] = self == .unknown ? 0x0d : 0x03
    page[1] = 0x04
    page[2] = self == .passiveCable ? 0x21 : self == .gigabitCopper ? 0x22 : 0x07
    switch self {
    case .shortRange, .otherVendor: page[3] = 0x10
    case .longRange: page[3] = 0x20
    case .dualSpeed: (page[3], page[6]) = (0x10, 0x01)
    case .gigabitCopper: page[6] = 0x08
    case .passiveCable: page[8] = 0x04
    case .absent, .unknown: break
    }
    page[12] = takes10Gigabit ? 103 : 13
    let isOther = self == .otherVendor
    Self.put(isOther ? "OTHER VENDOR" : "RINGWAY", 20, 16, &page)
    page.replaceSubrange(37..<40, with: isOther ? [0x02, 0x00, 0x01] : [0x00, 0x1b, 0x21])
    Self.put("MODEL-SFP", 40, 16, &page)
    Self.put("A", 56, 4, &page)
    Self.put("RW0000000001", 68, 16, &page)
    Self.put("260101", 84, 8, &page)
    page[63] = page[0..<63].reduce(0, &+)
    page[95] = page[64..<95].reduce(0, &+)
    return page
  }

  private static func put(_ text: String, _ at: Int, _ count: Int, _ page: inout [UInt8]) {
    let bytes = Array(text.utf8)
    for i in 0..<count { page[at + i] = i < bytes.count ? bytes[i] : 0x20 }
  }
}

/// The target's side of the two wires: sees the initiator's clock and data, pulls data low to
/// acknowledge and to send zeros.
struct Intel82599TwoWire {
  private enum Phase { case idle, address, offset, data, sending }

  private var pages: [UInt8: [UInt8]] = [:]
  private var clock = true, data = true
  /// What the target lets the data line be.
  private var pull = true
  private var phase = Phase.idle
  private var shift: UInt8 = 0
  private var bits = 0
  private var device: UInt8 = 0
  private var offset: UInt8 = 0
  private var refused = false

  init(_ module: Intel82599Module) {
    guard module.isPresent else { return }
    pages[0xa0] = module.memory
    pages[0xa2] = [UInt8](repeating: 0, count: 256)
  }

  /// The lines as the initiator reads them.
  var clockLine: Bool { clock }
  var dataLine: Bool { data && pull }

  /// The initiator lets go of a line (true) or pulls it low.
  mutating func drive(clock newClock: Bool, data newData: Bool) {
    let wasClock = clock, wasData = data
    clock = newClock
    data = newData
    if wasClock && newClock && wasData != newData {
      phase = newData ? .idle : .address
      bits = 0
      pull = true
    } else if !wasClock && newClock {
      rise(newData)
    } else if wasClock && !newClock {
      fall()
    }
  }

  private mutating func rise(_ value: Bool) {
    guard phase != .idle else { return }
    if bits < 8, phase != .sending { shift = shift << 1 | (value ? 1 : 0) }
    if bits == 8, phase == .sending { refused = value }
    bits += 1
  }

  private mutating func fall() {
    switch phase {
    case .idle: return
    case .sending:
      if bits == 9 {
        guard !refused else {
          phase = .idle
          pull = true
          return
        }
        load()
      }
      pull = bits == 8 ? true : shift >> UInt8(7 - bits) & 1 == 1
    case .address, .offset, .data:
      if bits == 8 {
        if phase == .address { device = shift & 0xfe }
        pull = pages[device] == nil
      } else if bits == 9 {
        finishByte()
      }
    }
  }

  private mutating func finishByte() {
    let answered = !pull
    pull = true
    bits = 0
    guard answered else {
      phase = .idle
      return
    }
    switch phase {
    case .address where shift & 1 == 1:
      phase = .sending
      load()
      pull = shift >> 7 & 1 == 1
    case .address: phase = .offset
    case .offset:
      offset = shift
      phase = .data
    case .data:
      pages[device]?[Int(offset)] = shift
      offset &+= 1
    case .idle, .sending: break
    }
  }

  private mutating func load() {
    shift = pages[device]?[Int(offset)] ?? 0xff
    offset &+= 1
    bits = 0
  }
}
