// Why a card was not taken or not given back. Each says what to do next.

import Glibc

public enum BindError: Error, Equatable, CustomStringConvertible {
  case noSuchDevice(PCIAddress)
  case notNetwork(PCIAddress, classCode: UInt32)
  /// The IOMMU is off, so that nothing would keep the card's DMA inside our memory.
  case noIOMMU(PCIAddress)
  /// Another member of the IOMMU group has a kernel driver; the kernel opens no such group.
  case groupNotViable(PCIAddress, group: Int, members: [String])
  case vfioNotLoaded
  /// Somebody uses the card's network interfaces.
  case inUse(PCIAddress, uses: [String])
  /// Processes hold the card.
  case held(PCIAddress, processes: [String])
  case notBoundByUs(PCIAddress, driver: String?)
  /// The card has a kernel driver and is not ours to give back.
  case notOurs(PCIAddress, driver: String)
  /// The driver to go back to is not loaded.
  case originalDriverMissing(PCIAddress, driver: String)
  /// The kernel would not bind the driver that was asked for.
  case driverRefused(PCIAddress, wanted: String, found: String?)
  /// The watcher that was to put things back has not started.
  case watcherFailed(PCIAddress)
  case nothingToConfirm(PCIAddress)
  case tooLateToConfirm(PCIAddress)
  case unknownAccount(kind: String, name: String)
  /// At boot: another card sits at the address that was made to persist.
  case otherCard(PCIAddress, expected: String, found: String)
  case badJournal(path: String, line: Int, reason: String)
  case badConfiguration(path: String, line: Int, reason: String)
  /// The journals' directory belongs to somebody else, or others may write to it.
  case untrusted(path: String)
  case locked(path: String, holder: String)
  case effect(EffectError)

  public var description: String {
    switch self {
    case .noSuchDevice(let address):
      "there is no PCI device \(address). `ringway devices` lists the network cards."
    case .notNetwork(let address, let classCode):
      "\(address) is no network card: its class is \(hex(classCode, digits: 6)). `ringway devices` lists the network cards."
    case .noIOMMU(let address):
      "\(address) is in no IOMMU group: the IOMMU is off or missing. `ringway doctor` says how to switch it on."
    case .groupNotViable(let address, let group, let members):
      """
      \(address) cannot be opened: IOMMU group \(group) also holds \(members.joined(separator: ", ")). Bind network \
      cards of one group in one command; take other drivers off their devices; or put the card in another slot.
      """
    case .vfioNotLoaded: "the kernel module vfio-pci is not loaded. Run `modprobe vfio-pci`."
    case .inUse(let address, let uses):
      """
      \(address) is in use: \(uses.joined(separator: "; ")). Take addresses and routes off it first, or add --force, \
      best together with `--confirm 60s`.
      """
    case .held(let address, let processes):
      "\(address) is held by \(processes.joined(separator: ", ")). End it first, or add --force."
    case .notBoundByUs(let address, let driver):
      """
      no journal says which driver \(address) had before; it has \(driver ?? "none") now. \
      `ringway unbind --default \(address)` lets the kernel choose a driver.
      """
    case .notOurs(let address, let driver):
      "\(address) has the kernel driver \(driver): there is nothing to give back. `ringway devices` lists who has what."
    case .originalDriverMissing(let address, let driver):
      """
      \(address) belonged to the driver \(driver), which is not loaded. Run `modprobe \(driver)`, then \
      `ringway unbind \(address)`.
      """
    case .driverRefused(let address, let wanted, let found):
      """
      \(address) was offered to the driver \(wanted), but has \(found ?? "no driver") now. `dmesg | tail` says why \
      the kernel refused.
      """
    case .watcherFailed(let address):
      "the watcher that would put \(address) back did not start, so nothing was changed. Try again, or without --confirm."
    case .nothingToConfirm(let address): "\(address) waits for no confirmation. `ringway devices` shows who has it."
    case .tooLateToConfirm(let address):
      "the time to confirm \(address) is over: it goes back to its kernel driver. Bind it again with a longer time."
    case .unknownAccount(let kind, let name):
      kind == "group"
        ? "there is no group \"\(name)\". Add it with `groupadd --system \(name)`."
        : "there is no user \"\(name)\". Add it with `useradd --system \(name)`."
    case .otherCard(let address, let expected, let found):
      """
      \(address) should be card \(expected) but is \(found): cards have moved, and nothing was bound. Look at \
      `ringway devices`, then `ringway unbind --forget \(address)`.
      """
    case .badJournal(let path, let line, let reason):
      """
      \(path), line \(line): \(reason). The journal cannot be trusted: rebind the card by hand, then remove the file.
      """
    case .badConfiguration(let path, let line, let reason):
      "\(path), line \(line): \(reason). Mend the line, or remove the file and bind again with --persist."
    case .untrusted(let path):
      "\(path) belongs to another user, or others may write to it. Run as root; if you do, `rm -r \(path)` first."
    case .locked(let path, let holder):
      "another bind or unbind is at work (\(holder) holds \(path)). Wait for it to end, then try again."
    case .effect(let error): error.description
    }
  }
}
