// What the members of the family do differently.

import PCI

/// A member of the family.
enum Kind: Sendable {
  case i82576, i350, i210, i211

  /// Queue pairs (82576 datasheet, 1.5; I350, 1.6; I210, 1.6).
  var queues: Int {
    switch self {
    case .i82576: 16
    case .i350: 8
    case .i210: 4
    case .i211: 2
    }
  }

  /// Exact receive addresses, the card's own among them.
  var addresses: Int {
    switch self {
    case .i82576: 24
    case .i350: 32
    case .i210, .i211: 16
    }
  }

  /// Where queue `queue`'s receive entry lies in the IVAR words, the transmit entry 8 bits higher:
  /// the 82576 puts queues 8 apart into one word, the others two neighbours (8.8).
  func vectorEntry(queue: Int) -> (word: Int, shift: UInt32) {
    self == .i82576 ? (queue & 7, UInt32(queue & 8) << 1) : (queue >> 1, UInt32(queue & 1) << 4)
  }

  /// First word of the port's section in the non-volatile memory (I350, 6.2: a section a port).
  func sectionStart(port: Int) -> UInt32 { self == .i350 && port > 0 ? UInt32(0x40 + 0x40 * port) : 0 }

  /// How often a word of the VLAN table is written: on the I350 a write may be lost while frames are
  /// being filtered (I350 specification update).
  var vlanWrites: Int { self == .i350 ? 10 : 1 }
}

/// A device id: which member it is, and how it is joined to the wire.
struct Member: Sendable {
  let device: UInt16
  let kind: Kind
  /// There may be no copper PHY inside: the link mode in CTRL_EXT decides.
  let model: String

  static let all: [Member] = [
    Member(device: 0x10c9, kind: .i82576, model: "82576 Gigabit"),
    Member(device: 0x10e6, kind: .i82576, model: "82576 Gigabit (fiber)"),
    Member(device: 0x10e7, kind: .i82576, model: "82576 Gigabit (SerDes)"),
    Member(device: 0x10e8, kind: .i82576, model: "82576 Gigabit (quad copper)"),
    Member(device: 0x1526, kind: .i82576, model: "82576 Gigabit (ET2 quad)"),
    Member(device: 0x150a, kind: .i82576, model: "82576NS Gigabit"),
    Member(device: 0x1518, kind: .i82576, model: "82576NS Gigabit (SerDes)"),
    Member(device: 0x150d, kind: .i82576, model: "82576 Gigabit (quad SerDes)"),
    Member(device: 0x1521, kind: .i350, model: "I350 Gigabit"),
    Member(device: 0x1522, kind: .i350, model: "I350 Gigabit (fiber)"),
    Member(device: 0x1523, kind: .i350, model: "I350 Gigabit (SerDes)"),
    Member(device: 0x1524, kind: .i350, model: "I350 Gigabit (SGMII)"),
    Member(device: 0x1533, kind: .i210, model: "I210 Gigabit"),
    Member(device: 0x1536, kind: .i210, model: "I210 Gigabit (fiber)"),
    Member(device: 0x1537, kind: .i210, model: "I210 Gigabit (SerDes)"),
    Member(device: 0x1538, kind: .i210, model: "I210 Gigabit (SGMII)"),
    Member(device: 0x157b, kind: .i210, model: "I210 Gigabit (without flash)"),
    Member(device: 0x157c, kind: .i210, model: "I210 Gigabit (SerDes, without flash)"),
    Member(device: 0x1539, kind: .i211, model: "I211 Gigabit"),
  ]

  static func of(_ identity: PCIIdentity) -> Member? {
    identity.vendor == 0x8086 ? all.first { $0.device == identity.device } : nil
  }
}
