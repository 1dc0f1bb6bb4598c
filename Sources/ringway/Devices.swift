// `ringway devices`: what is plugged in, who has it, and which of our drivers would serve it.

import ArgumentParser
import FoundationEssentials
import PCI
import PCINames
import Ringway

struct Devices: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List network cards: names, drivers, IOMMU groups, and which driver of ours serves each.")

  @Flag(help: "Print a JSON array.")
  var json = false
  @Argument(help: "Only these PCI addresses.", transform: PCIAddress.init)
  var addresses: [PCIAddress] = []

  func run() throws {
    let scanner = SysfsPCI()
    var functions = try scanner.networkFunctions(supported: DriverTable.supportedCards)
    if !addresses.isEmpty {
      for address in addresses { _ = try scanner.device(at: address) }
      functions = functions.filter { addresses.contains($0.device.address) }
    }
    let names = PCINameTable()
    let cards = functions.map { CardListing($0, names: names) }
    if json { return try printJSON(cards) }
    if cards.isEmpty { return print("no network cards on the PCI bus") }
    print(Table.text([CardListing.heading] + cards.map(\.row)))
    for card in cards where !card.group_members.isEmpty {
      let members = card.group_members.map { "\($0.address) (\($0.driver ?? "no driver"))" }
      print("\(card.address) shares IOMMU group \(card.iommu_group ?? -1) with \(members.joined(separator: ", "))")
    }
  }
}

/// A card as printed; the property names are the JSON keys.
struct CardListing: Encodable {
  struct Member: Encodable {
    let address: String
    let `class`: String
    let driver: String?
  }

  let address: String
  let vendor: String
  let device: String
  let subsystem: String
  let vendor_name: String?
  let device_name: String?
  let driver: String?
  let driver_override: String?
  let interfaces: [String]
  let iommu_group: Int?
  let group_members: [Member]
  let numa_node: Int?
  let ringway_driver: String?

  init(_ function: NetworkFunction, names: borrowing PCINameTable) {
    let identity = function.device.identity
    address = function.device.address.description
    vendor = hex(identity.vendor, digits: 4)
    device = hex(identity.device, digits: 4)
    subsystem = "\(hex(identity.subsystemVendor, digits: 4)):\(hex(identity.subsystemDevice, digits: 4))"
    vendor_name = names.vendor(identity.vendor)
    device_name = names.device(vendor: identity.vendor, device: identity.device)
    driver = function.device.driver
    driver_override = function.device.driverOverride
    interfaces = function.device.interfaces
    iommu_group = function.device.iommuGroup
    group_members = function.groupMembers.map { member in
      Member(
        address: member.address.description, class: hex(member.identity.classCode, digits: 6), driver: member.driver)
    }
    numa_node = function.device.numaNode
    ringway_driver = function.ringwayDriver
  }

  static let heading = ["ADDRESS", "CARD", "DRIVER", "INTERFACES", "GROUP", "NODE", "RINGWAY"]

  var row: [String] {
    let name = [vendor_name, device_name].compactMap { $0 }.joined(separator: " ")
    return [
      address, (name.isEmpty ? "" : name + " ") + "[\(vendor):\(device)]", driver ?? "-",
      interfaces.isEmpty ? "-" : interfaces.joined(separator: ","), iommu_group.map(String.init) ?? "-",
      numa_node.map(String.init) ?? "-", ringway_driver ?? "-",
    ]
  }
}

/// Columns padded to their widest cell.
enum Table {
  static func text(_ rows: [[String]]) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
      let cells = row.enumerated().map { index, cell in
        index == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[index] - cell.count)
      }
      return cells.joined(separator: "  ")
    }.joined(separator: "\n")
  }
}

/// Prints `value` as JSON with sorted keys, so that two runs compare; what is unknown is left out.
func printJSON(_ value: some Encodable) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

extension PCIScanError: CommandFailure {
  var exit: Exit {
    switch self {
    case .noPCIBus: .configuration
    case .noSuchDevice: .deviceMissing
    }
  }
}

extension PCIAddressError: CommandFailure { var exit: Exit { .usage } }
