// What makes reservations and mounts last over boots: files for systemd, which every one of them
// can be read and removed by hand.

internal import Platform

extension HugepagesInstaller {
  /// First line of every file that this installer writes; without it a file is somebody else's.
  static let marker = "# Written by `ringway hugepages apply --persist`; `ringway hugepages forget` removes it."
  static let tmpfiles = "/etc/tmpfiles.d/ringway-hugepages.conf"
  static let units = "/etc/systemd/system"
  static let wants = units + "/sysinit.target.wants"

  /// The files for the present configuration, and the removal of those it no longer asks for.
  func planPersistence() throws(HugepagesFailure) -> [HugepagesStep] {
    guard Files.exists(root + Self.units) else { throw .noSystemd }
    var steps: [HugepagesStep] = []
    var wanted: Set<String> = []
    if !configuration.reservations.isEmpty {
      wanted.insert(Self.tmpfiles)
      steps.append(try write(Self.tmpfiles, tmpfilesText()))
    }
    for mount in configuration.mounts {
      let name = Self.unitName(mount.path)
      let path = "\(Self.units)/\(name)"
      wanted.insert(path)
      steps.append(try write(path, try unitText(mount)))
      let link = "\(Self.wants)/\(name)"
      if (try? Files.linkTarget(root + link)) != "../\(name)" { steps.append(.link(path: link, target: "../\(name)")) }
    }
    return steps + planForgetting(except: wanted)
  }

  /// Removes what earlier calls wrote, and nothing else.
  public func planForgetting() -> [HugepagesStep] { planForgetting(except: []) }

  private func planForgetting(except wanted: Set<String>) -> [HugepagesStep] {
    var steps: [HugepagesStep] = []
    let names = ((try? Files.list(root + Self.units)) ?? []).filter { $0.hasSuffix(".mount") }
    for path in [Self.tmpfiles] + names.map({ "\(Self.units)/\($0)" }) where !wanted.contains(path) && isOurs(path) {
      steps.append(.remove(path))
      guard path != Self.tmpfiles else { continue }
      let link = "\(Self.wants)/\(path.dropFirst(Self.units.count + 1))"
      if (try? Files.linkTarget(root + link)) != nil { steps.append(.remove(link)) }
    }
    return steps
  }

  private func isOurs(_ path: String) -> Bool { (try? Files.read(root + path))?.hasPrefix(Self.marker) ?? false }

  private func write(_ path: String, _ text: String) throws(HugepagesFailure) -> HugepagesStep {
    if Files.exists(root + path) {
      guard isOurs(path) else { throw .notOurs(path) }
      if (try? Files.read(root + path)) == text { return .keep("\(path) is up to date") }
    }
    return .write(path: path, text: text)
  }

  /// tmpfiles.d(5): one `w` line writes one number at boot.
  private func tmpfilesText() -> String {
    var lines = [Self.marker]
    for reservation in configuration.reservations {
      let nodes: [Int?] =
        switch reservation.nodes {
        case .any: [nil]
        case .each: HugepagePool.nodes(root: root).map { $0 }
        case .node(let node): [node]
        }
      for node in nodes {
        lines.append("w \(HugepagePool.directory(pageSize: reservation.pageSize, node: node))/nr_hugepages - - - - \(reservation.count)")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// systemd.mount(5).
  private func unitText(_ mount: HugepagesConfiguration.Mount) throws(HugepagesFailure) -> String {
    let group = try groupID(of: mount)
    let path = mount.path.map { $0 == "%" ? "%%" : String($0) }.joined()
    return """
      \(Self.marker)
      [Unit]
      Description=Hugepages of \(ByteCount(mount.pageSize)) for Ringway
      DefaultDependencies=no
      Before=sysinit.target
      ConditionPathExists=/sys/kernel/mm/hugepages

      [Mount]
      What=hugetlbfs
      Where=\(path)
      Type=hugetlbfs
      Options=\(MountCall.options(pageSize: mount.pageSize, group: group, mode: mount.mode)),nosuid,nodev,noexec

      [Install]
      WantedBy=sysinit.target

      """
  }

  /// The name systemd wants for a mount's unit (systemd.unit(5), "String escaping").
  static func unitName(_ path: String) -> String {
    var name = ""
    for (index, byte) in path.utf8.dropFirst().enumerated() {
      let scalar = Character(Unicode.Scalar(byte))
      if byte == UInt8(ascii: "/") {
        name += "-"
      } else if byte < 0x80 && (scalar.isLetter || scalar.isNumber || scalar == "_" || scalar == ":" || (scalar == "." && index > 0)) {
        name.append(scalar)
      } else {
        let digits = String(byte, radix: 16)
        name += "\\x" + (digits.count < 2 ? "0" : "") + digits
      }
    }
    return name + ".mount"
  }
}
