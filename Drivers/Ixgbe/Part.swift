// The family's members, and what differs between them.

import DriverKit

/// What the driver must know of a member before it touches it.
struct Part: Equatable {
  enum Media { case sfp, qsfp, backplane, copper }
  let media: Media
  /// The 10GBASE-T sibling: other semaphores, checksum rule, packet memory and pins.
  var isX540: Bool { media == .copper }

  /// Kilobytes of receive packet memory (82599 datasheet, 8.2.3.8.9; X540 datasheet, 8.2.2.8.9).
  var receiveMemory: UInt32 { isX540 ? 384 : 512 }
  /// Kilobytes of transmit packet memory.
  var transmitMemory: UInt32 { 160 }

  /// nil for cards that are not of the family.
  static func of(vendor: UInt16, device: UInt16) -> Part? {
    guard vendor == 0x8086, let entry = table.first(where: { $0.device == device }) else { return nil }
    return Part(media: entry.media)
  }

  static let table: [(device: UInt16, media: Media, model: String)] = [
    (0x10fb, .sfp, "82599ES 10-Gigabit SFP+"),
    (0x10f7, .backplane, "82599 10-Gigabit KX4"),
    (0x10f8, .backplane, "82599 10-Gigabit backplane"),
    (0x10f9, .backplane, "82599 10-Gigabit CX4"),
    (0x10fc, .backplane, "82599 10-Gigabit XAUI"),
    (0x1507, .sfp, "82599 10-Gigabit SFP+ mezzanine"),
    (0x1514, .backplane, "82599 10-Gigabit KX4 mezzanine"),
    (0x1517, .backplane, "82599 10-Gigabit KR"),
    (0x1529, .sfp, "82599 10-Gigabit SFP+ with FCoE"),
    (0x152a, .backplane, "82599 10-Gigabit backplane with FCoE"),
    (0x154a, .sfp, "X520-4 10-Gigabit SFP+"),
    (0x154d, .sfp, "X520 10-Gigabit SFP+"),
    (0x1557, .sfp, "82599EN 10-Gigabit SFP+"),
    (0x1558, .qsfp, "X520-Q1 10-Gigabit QSFP+"),
    (0x1528, .copper, "X540-AT2 10GBASE-T"),
    (0x1560, .copper, "X540-AT1 10GBASE-T"),
  ]

  static var matches: [PCIMatch] { table.map { PCIMatch(vendor: 0x8086, device: $0.device, model: $0.model) } }
}
