// Files that outlive a bind: the udev rule that opens the card to an account, and what takes the
// card again at the next boot.
//
// Why a list and a unit, and not a udev rule that sets driver_override: the rule would come too
// late for drivers in the initial ram disk, would leave an override behind, and would take whatever
// card sits at the address after others were added. The unit runs the same checked and journalled
// bind as a person would, before the network comes up.

enum BindFiles {
  static func rulePath(_ address: PCIAddress, _ roots: SystemRoots) -> String {
    "\(roots.etc)/udev/rules.d/70-ringway-\(address).rules"
  }

  /// The rule names the card, not its group's number, which may change from boot to boot. `%k` is
  /// the group's number where udev handles /dev/vfio/NUMBER; the second line is for iommufd's nodes.
  static func ruleText(_ address: PCIAddress, _ account: BindAccount) -> String {
    let parts = [
      account.user.map { "OWNER=\"\($0)\"" }, account.group.map { "GROUP=\"\($0)\"" },
      "MODE=\"0\(String(account.mode, radix: 8))\"",
    ]
    let give = parts.compactMap { $0 }.joined(separator: ", ")
    return """
      # Written by ringway bind; `ringway unbind \(address)` removes it.
      SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/%k/devices/\(address)", \(give)
      SUBSYSTEM=="vfio-dev", KERNELS=="\(address)", \(give)

      """
  }

  static func listFolder(_ roots: SystemRoots) -> String { roots.etc + "/ringway/bind.d" }
  static func listPath(_ address: PCIAddress, _ roots: SystemRoots) -> String { "\(listFolder(roots))/\(address)" }
  static func unitPath(_ roots: SystemRoots) -> String { roots.etc + "/systemd/system/ringway-bind.service" }
  static func wantPath(_ roots: SystemRoots) -> String {
    roots.etc + "/systemd/system/multi-user.target.wants/ringway-bind.service"
  }

  /// systemd.exec(5) reads backslashes, quotes and percent signs of its own.
  private static func quoted(_ text: String) -> String {
    text.reduce("") { $0 + ($1 == "\\" || $1 == "\"" ? "\\\($1)" : $1 == "%" ? "%%" : String($1)) }
  }

  static func unitText(program: String) -> String {
    """
    # Written by `ringway bind --persist`; goes with the last card in /etc/ringway/bind.d.
    [Unit]
    Description=Take Ringway's network cards from the kernel
    Documentation=man:ringway-bind(1)
    DefaultDependencies=no
    After=local-fs.target systemd-modules-load.service systemd-udev-trigger.service
    Before=network-pre.target shutdown.target
    Wants=network-pre.target
    Conflicts=shutdown.target

    [Service]
    Type=oneshot
    RemainAfterExit=yes
    ExecStartPre=-/sbin/modprobe vfio-pci
    ExecStart="\(quoted(program))" bind --persisted

    [Install]
    WantedBy=multi-user.target

    """
  }

  /// Makes a card last over boots.
  static func persistSteps(_ journal: BindJournal, program: String, _ roots: SystemRoots) -> [BindStep] {
    let card = PersistedCard(address: journal.address, card: journal.card, driver: journal.driver)
    return [
      .writeFile(path: listPath(journal.address, roots), text: card.text),
      .writeFile(path: unitPath(roots), text: unitText(program: program)),
      .link(path: wantPath(roots), target: "/etc/systemd/system/ringway-bind.service"),
    ]
  }

  /// The files that are one card's own.
  static func ownPaths(_ address: PCIAddress, _ roots: SystemRoots) -> [String] {
    [rulePath(address, roots), listPath(address, roots)]
  }

  /// Removes them; the unit goes with the last card of the list.
  static func removeSteps(_ paths: [String], of address: PCIAddress, _ roots: SystemRoots) -> [BindStep] {
    let isLast = SystemFiles.list(listFolder(roots)).allSatisfy { $0.hasPrefix(address.description) }
    let unit = paths.contains(listPath(address, roots)) && isLast ? [wantPath(roots), unitPath(roots)] : []
    return (unit + paths).map { .removeFile(path: $0) }
  }

  static func forgetSteps(_ address: PCIAddress, _ roots: SystemRoots) -> [BindStep] {
    removeSteps(ownPaths(address, roots), of: address, roots)
  }
}

/// A card to take at every boot: one file each in /etc/ringway/bind.d, named by the address.
public struct PersistedCard: Hashable, Sendable {
  public let address: PCIAddress
  /// `vendor:device`: another card at the same address is left alone.
  public let card: String
  /// The driver to give it back to, for a boot at which that driver has not come yet.
  public let driver: String?

  var text: String {
    """
    # Written by `ringway bind --persist`; `ringway unbind \(address)` removes it.
    card \(card)

    """ + (driver.map { "driver \($0)\n" } ?? "")
  }

  init(address: PCIAddress, card: String, driver: String?) {
    self.address = address
    self.card = card
    self.driver = driver
  }

  init(address: PCIAddress, roots: SystemRoots) throws(BindError) {
    let path = BindFiles.listPath(address, roots)
    var fields: [String: String] = [:]
    let lines = (SystemFiles.text(path) ?? "").split(separator: "\n", omittingEmptySubsequences: false)
    for (index, line) in lines.enumerated() where !line.isEmpty && !line.hasPrefix("#") {
      let parts = line.split(separator: " ", maxSplits: 1)
      guard parts.count == 2, parts[0] == "card" || parts[0] == "driver" else {
        throw .badConfiguration(path: path, line: index + 1, reason: "\"card VENDOR:DEVICE\" or \"driver NAME\" expected")
      }
      fields[String(parts[0])] = String(parts[1])
    }
    guard let card = fields["card"] else {
      throw .badConfiguration(path: path, line: lines.count, reason: "the line \"card VENDOR:DEVICE\" is missing")
    }
    self.init(address: address, card: card, driver: fields["driver"])
  }

  /// Every card that was made to persist; names that are no addresses are skipped.
  static func all(_ roots: SystemRoots) -> [PCIAddress] {
    SystemFiles.list(BindFiles.listFolder(roots)).compactMap { try? PCIAddress($0) }.sorted()
  }
}
