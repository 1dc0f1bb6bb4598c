// A drop has a reason: which interface, which queue, which protocol, why.
//
// received = delivered + the sum of drops, for every interface, at every moment at which nothing is
// on its way. Whoever frees a packet that should have gone on does it through the ledger.

/// Why a packet was dropped. The names are what people and metrics see: they stay as they are.
public enum DropReason: UInt8, CaseIterable, Sendable, CustomStringConvertible {
  // Cards and rings
  case receiveRing = 1, receiveError, noBuffer, transmitRing, deviceReset, tooLong, tooShort
  // netisr
  case netisrQueueFull = 16, netisrNoPlacement, netisrDisabled, netisrUnregistered, netisrPurged, tooManyMessages
  // Interfaces
  case interfaceDown = 32, interfaceGone, sendQueueFull, sendQueuePushedOut, sendQueuePurged, outputOnly, notForUs
  case hostRingFull, netmapRingFull, modeChange, sendNoBuffer, sendInterfaceGone, hostRingClosed, sendTooLong
  // Links
  case unknownEtherType = 64, unknownVLAN, badEthernetHeader, ownFrame, bridgeNoTarget, bridgeFiltered, bridgeLoop, peerGone
  // ARP and neighbours
  case arpMalformed = 80, arpConflict, arpNotForUs, arpUnresolved, arpQueueFull, neighbourUnresolved, neighbourMalformed
  case neighbourQueueFull, neighbourNotForUs
  // IPv4, IPv6
  case ipMalformed = 96, ipBadChecksum, ipBadAddress, ipNotForUs, ipNoRoute, ipTimeToLive, ipTooBig, ipOptions
  case ipForwardingOff, ipProhibited, ipRedirectOnly
  case fragmentMalformed, fragmentOverlap, fragmentLimit, fragmentTimeout
  case ipUnknownProtocol, ipv6ExtensionHeaders, ipv6HopByHop, ipConsumed
  // ICMP, IGMP, MLD
  case icmpMalformed = 128, icmpBadChecksum, icmpRateLimited, icmpUnknown, igmpMalformed, igmpBadChecksum, mldMalformed
  case icmpSuppressed
  /// Taken apart by whoever it was for: delivered, not lost. Never counted as a drop.
  case other = 255

  /// As in "netisr-queue-full".
  public var description: String { Self.names[self] ?? "\(rawValue)" }

  /// Lost on the way out: counted for the interface that was to send the packet, not for the one that received it.
  public var isOutput: Bool {
    switch self {
    case .sendQueueFull, .sendQueuePushedOut, .sendQueuePurged, .transmitRing, .outputOnly, .sendNoBuffer, .sendInterfaceGone,
      .arpUnresolved, .arpQueueFull, .neighbourUnresolved, .neighbourQueueFull, .peerGone, .sendTooLong:
      true
    default: false
    }
  }

  private static let names: [DropReason: String] = [
    .receiveRing: "receive-ring", .receiveError: "receive-error", .noBuffer: "no-buffer",
    .transmitRing: "transmit-ring", .deviceReset: "device-reset", .tooLong: "too-long", .tooShort: "too-short",
    .netisrQueueFull: "netisr-queue-full", .netisrNoPlacement: "netisr-no-placement",
    .netisrDisabled: "netisr-disabled", .netisrUnregistered: "netisr-unregistered", .netisrPurged: "netisr-purged",
    .tooManyMessages: "too-many-messages", .interfaceDown: "interface-down", .interfaceGone: "interface-gone",
    .sendQueueFull: "send-queue-full", .sendQueuePushedOut: "send-queue-pushed-out",
    .sendQueuePurged: "send-queue-purged", .outputOnly: "output-only", .notForUs: "not-for-us",
    .hostRingFull: "host-ring-full", .netmapRingFull: "netmap-ring-full", .modeChange: "mode-change", .hostRingClosed: "host-ring-closed", .sendNoBuffer: "send-no-buffer",
    .sendInterfaceGone: "send-interface-gone", .sendTooLong: "send-too-long",
    .unknownEtherType: "unknown-ether-type", .unknownVLAN: "unknown-vlan",
    .badEthernetHeader: "bad-ethernet-header", .ownFrame: "own-frame", .bridgeNoTarget: "bridge-no-target",
    .bridgeFiltered: "bridge-filtered", .bridgeLoop: "bridge-loop", .peerGone: "peer-gone",
    .arpMalformed: "arp-malformed", .arpConflict: "arp-conflict", .arpNotForUs: "arp-not-for-us",
    .arpUnresolved: "arp-unresolved", .arpQueueFull: "arp-queue-full", .neighbourUnresolved: "neighbour-unresolved",
    .neighbourMalformed: "neighbour-malformed", .neighbourQueueFull: "neighbour-queue-full",
    .neighbourNotForUs: "neighbour-not-for-us", .ipMalformed: "ip-malformed", .ipBadChecksum: "ip-bad-checksum",
    .ipBadAddress: "ip-bad-address", .ipNotForUs: "ip-not-for-us", .ipNoRoute: "ip-no-route",
    .ipTimeToLive: "ip-time-to-live", .ipTooBig: "ip-too-big", .ipOptions: "ip-options",
    .ipForwardingOff: "ip-forwarding-off", .ipProhibited: "ip-prohibited", .ipRedirectOnly: "ip-redirect-only",
    .fragmentMalformed: "fragment-malformed", .fragmentOverlap: "fragment-overlap", .fragmentLimit: "fragment-limit",
    .fragmentTimeout: "fragment-timeout", .ipUnknownProtocol: "ip-unknown-protocol",
    .ipv6ExtensionHeaders: "ipv6-extension-headers", .ipv6HopByHop: "ipv6-hop-by-hop", .ipConsumed: "ip-consumed",
    .icmpMalformed: "icmp-malformed", .icmpBadChecksum: "icmp-bad-checksum", .icmpRateLimited: "icmp-rate-limited",
    .icmpUnknown: "icmp-unknown", .igmpMalformed: "igmp-malformed", .igmpBadChecksum: "igmp-bad-checksum",
    .mldMalformed: "mld-malformed", .icmpSuppressed: "icmp-suppressed", .other: "other",
  ]
}

/// One line of the ledger.
public struct DropCount: Hashable, Sendable {
  public var interface: InterfaceIndex
  public var queue: UInt8
  /// netisr's number of the protocol; 0 where none is concerned.
  public var proto: UInt8
  public var reason: DropReason
  public var packets: UInt64
  public var bytes: UInt64
}

/// Sees what is dropped while it is still there: captures.
public protocol DropObserver: AnyObject, Sendable {
  /// Called on the thread that drops, with the packet lent. Must be quick.
  func dropped(_ packet: borrowing Packet, reason: DropReason, interface: InterfaceIndex, queue: UInt8, proto: UInt8)
}
