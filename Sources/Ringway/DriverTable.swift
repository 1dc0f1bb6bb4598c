// The one place that knows every driver.

public import DriverKit
internal import E1000e
internal import Igb
internal import Ixgbe
public import PCI
internal import VirtioNet

/// Which driver serves which card.
public enum DriverTable {
  public static var drivers: [any NetDriver.Type] { [E1000eDriver.self, IgbDriver.self, IxgbeDriver.self, VirtioNetDriver.self] }

  /// Every card that is served, for listings.
  public static var supportedCards: [SupportedCard] {
    drivers.flatMap { driver in
      driver.matches.map { SupportedCard(vendor: $0.vendor, device: $0.device, driver: driver.driverName) }
    }
  }

  /// The driver for a card; nil when none of ours serves it.
  public static func driver(for identity: PCIIdentity) -> (any NetDriver.Type)? {
    drivers.first { $0.matches.contains { $0.vendor == identity.vendor && $0.device == identity.device } }
  }

  /// What people call the card: "82574L Gigabit".
  public static func model(of identity: PCIIdentity) -> String? {
    drivers.lazy.flatMap { $0.matches }.first { $0.vendor == identity.vendor && $0.device == identity.device }?.model
  }
}
