// What can be set: a value that is copied to every worker.

/// The settings of net.inet6; FreeBSD's names stand in `Sysctls.swift`.
public struct Inet6Settings: Sendable, Equatable {
  /// Packets for others go on: this machine is a router.
  public var forwarding = false
  /// Hop limit of what this host sends (RFC 1700's successor, IANA: 64).
  public var hopLimit = 64
  /// A host takes router advertisements. A router never does.
  public var acceptRouterAdvertisements = true
  /// A router sends them.
  public var sendRouterAdvertisements = false
  public var sendRedirects = true
  public var acceptRedirects = true
  /// Every interface that comes up gets a link-local address.
  public var autoLinkLocal = true
  /// Probes before an address is taken into use; 0: none (RFC 4862, DupAddrDetectTransmits).
  public var duplicateProbes = 1
  /// Error messages a second, over all workers; 0: no limit.
  public var errorsPerSecond = 100
  /// Headers in a row, at most.
  public var headerLimit = 15
  /// Datagrams in reassembly a worker; fragments in all of them; fragments in one.
  public var reassemblyLimit = 64
  public var fragmentLimit = 512
  public var fragmentsPerDatagram = 64
  /// Seconds for a datagram's fragments to meet (RFC 8200, section 4.5).
  public var fragmentSeconds = 60
  /// Neighbours in all; packets that wait for one.
  public var neighbourLimit = 4096
  public var neighbourQueue = 16
  /// Seconds a path MTU is remembered (RFC 8201, section 4).
  public var pathMTUSeconds = 600

  public init() {}
}

/// What is fixed when the protocol is made.
public struct Inet6Configuration: Sendable {
  public var settings = Inet6Settings()
  /// Where random numbers start; nil takes the system's. A fixed one makes runs repeat.
  public var seed: UInt64?
  /// The longest of the random delays before a first message, in milliseconds (RFC 4862, section 5.4.2: 1000).
  public var initialDelay: UInt64 = 1000

  public init() {}
}
