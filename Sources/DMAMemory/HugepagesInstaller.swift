// Applies hugepages.conf to the machine.
//
//   pages  ─> nr_hugepages of the kernel's pool (all nodes, or one)     raised, never lowered:
//   mount  ─> directory, mount(2), group and mode                       others may use them too
//   persist ─> /etc/tmpfiles.d/ringway-hugepages.conf, written at boot by systemd-tmpfiles(8),
//              and a systemd.mount(5) unit for each mount

internal import CRingway
internal import Glibc
internal import Platform
internal import SystemPackage

/// Plans and carries out what a configuration asks for.
public struct HugepagesInstaller {
  public let configuration: HugepagesConfiguration
  /// Put before every path: "" for the machine itself, a directory for tests and firmware images.
  public let root: String
  private let mounter: any HugetlbMounter

  public init(_ configuration: HugepagesConfiguration, root: String = "", mounter: any HugetlbMounter = MountCall()) {
    self.configuration = configuration
    self.root = root
    self.mounter = mounter
  }

  /// What `apply` would do now. Changes nothing.
  /// - Parameter persist: also write what makes it last over boots.
  public func plan(persist: Bool = false) throws(HugepagesFailure) -> [HugepagesStep] {
    var steps: [HugepagesStep] = []
    for reservation in configuration.reservations { steps += try plan(reservation) }
    for mount in configuration.mounts { steps += try plan(mount) }
    if persist { steps += try planPersistence() }
    return steps
  }

  /// Carries out steps in order. A reservation that fails does not keep the others from being made;
  /// what builds on a failed step fails by itself and says so.
  public func apply(_ steps: [HugepagesStep]) -> [HugepagesReport] {
    steps.map { step in
      do throws(HugepagesFailure) {
        try perform(step)
        return HugepagesReport(step: step, failure: nil)
      } catch {
        return HugepagesReport(step: step, failure: error)
      }
    }
  }

  // MARK: Planning

  private func plan(_ reservation: HugepagesConfiguration.Reservation) throws(HugepagesFailure) -> [HugepagesStep] {
    let nodes: [Int?] =
      switch reservation.nodes {
      case .any: [nil]
      case .each: HugepagePool.nodes(root: root).map { $0 }
      case .node(let node): [node]
      }
    var steps: [HugepagesStep] = []
    for node in nodes { steps.append(try plan(reservation, on: node)) }
    return steps
  }

  private func plan(_ reservation: HugepagesConfiguration.Reservation, on wanted: Int?) throws(HugepagesFailure) -> HugepagesStep {
    guard HugepagePool.read(pageSize: reservation.pageSize, root: root) != nil else {
      throw .memory(.noSuchPageSize(pageSize: reservation.pageSize, available: HugepagePool.pageSizes(root: root)))
    }
    var node = wanted
    // A kernel without NUMA has no directories for nodes, and all memory is node 0's.
    if node == 0, !Files.exists(root + "/sys/devices/system/node/node0") { node = nil }
    guard let pool = HugepagePool.read(pageSize: reservation.pageSize, node: node, root: root) else {
      throw .memory(.noSuchNode(node: wanted ?? 0))
    }
    if pool.total >= reservation.count {
      let place = node.map { " on node \($0)" } ?? ""
      return .keep("\(pool.total) pages of \(ByteCount(reservation.pageSize)) are reserved\(place), \(reservation.count) wanted")
    }
    let file = HugepagePool.directory(pageSize: reservation.pageSize, node: node) + "/nr_hugepages"
    return .reserve(file: file, count: reservation.count, present: pool.total, pageSize: reservation.pageSize, node: node)
  }

  private func plan(_ mount: HugepagesConfiguration.Mount) throws(HugepagesFailure) -> [HugepagesStep] {
    guard HugepagePool.read(pageSize: mount.pageSize, root: root) != nil else {
      throw .memory(.noSuchPageSize(pageSize: mount.pageSize, available: HugepagePool.pageSizes(root: root)))
    }
    let group = try groupID(of: mount)
    guard let entry = MountEntry.table(root: root).last(where: { $0.path == mount.path }) else {
      let call = HugepagesStep.mount(path: mount.path, pageSize: mount.pageSize, group: group, mode: mount.mode)
      return Files.exists(root + mount.path) ? [call] : [.makeDirectory(mount.path), call]
    }
    guard entry.type == "hugetlbfs" else { throw .otherMount(path: mount.path, what: "a file system of type \(entry.type)", line: mount.line) }
    if let present = entry.pageSize, present != mount.pageSize {
      throw .otherMount(path: mount.path, what: "a hugetlbfs with pages of \(ByteCount(present))", line: mount.line)
    }
    var status = stat()
    // SAFETY: stat fills the local structure.
    if unsafe stat(root + mount.path, &status) == 0, status.st_gid == group, status.st_mode & 0o7777 == mount.mode {
      return [.keep("\(mount.path) is mounted with pages of \(ByteCount(mount.pageSize))")]
    }
    return [.permit(path: mount.path, group: group, mode: mount.mode)]
  }

  /// The number of a mount's group, from /etc/group (group(5)) below the root; 0 when none is named.
  func groupID(of mount: HugepagesConfiguration.Mount) throws(HugepagesFailure) -> UInt32 {
    guard let name = mount.group else { return 0 }
    if let number = UInt32(name) { return number }
    let text = (try? Files.read(root + "/etc/group")) ?? ""
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count >= 3, fields[0] == name, let number = UInt32(fields[2]) { return number }
    }
    throw .noSuchGroup(name, line: mount.line)
  }

  // MARK: Carrying out

  private func perform(_ step: HugepagesStep) throws(HugepagesFailure) {
    switch step {
    case .keep: return
    case .reserve(let file, let count, _, let pageSize, let node):
      try reserve(root + file, count: count, pageSize: pageSize, node: node)
    case .makeDirectory(let path): try makeDirectories(path)
    case .mount(let path, let pageSize, let group, let mode):
      let options = MountCall.options(pageSize: pageSize, group: group, mode: mode)
      let code = mounter.mount(path: root + path, options: options)
      if code != 0 { throw .system(operation: "mount hugetlbfs on", path: path, errno: code) }
    case .permit(let path, let group, let mode):
      // SAFETY: the path is a null-terminated string for the length of each call.
      try call("set the group of", path) { unsafe chown(root + path, uid_t.max, group) }
      try call("set the mode of", path) { unsafe chmod(root + path, mode) }
    case .write(let path, let text): try writeWhole(text, to: path)
    case .link(let path, let target):
      try makeDirectories(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
      // SAFETY: as above.
      _ = unsafe unlink(root + path)
      try call("make the link", path) { unsafe symlink(target, root + path) }
    case .remove(let path): try call("remove", path) { unsafe unlink(root + path) }
    }
  }

  private func reserve(_ file: String, count: Int, pageSize: Int, node: Int?) throws(HugepagesFailure) {
    var got = 0
    for attempt in 0..<2 {
      do throws(SystemError) {
        // Somebody else may have raised it since the plan was made.
        got = Int(try Files.line(file)) ?? 0
        if got >= count { return }
        // Moving pages together makes room for more hugepages (compact_memory, sysctl/vm.rst).
        if attempt > 0 { try? Files.write("1", to: root + "/proc/sys/vm/compact_memory") }
        try Files.write("\(count)", to: file)
        got = Int(try Files.line(file)) ?? 0
      } catch {
        throw HugepagesFailure(error)
      }
      if got >= count { return }
    }
    throw .pagesNotFound(wanted: count, got: got, pageSize: pageSize, node: node)
  }

  /// mkdir -p.
  private func makeDirectories(_ path: String) throws(HugepagesFailure) {
    var partial = ""
    for part in path.split(separator: "/") {
      partial += "/" + part
      if Files.exists(root + partial) { continue }
      // SAFETY: the path is a null-terminated string for the length of the call.
      try call("make directory", partial) { unsafe mkdir(root + partial, 0o755) }
    }
  }

  /// A reader sees the old file or the new one, never half of it.
  private func writeWhole(_ text: String, to path: String) throws(HugepagesFailure) {
    try makeDirectories(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
    let fresh = root + path + ".ringway-new"
    do throws(SystemError) { try Files.write(text, to: fresh, create: true) } catch { throw HugepagesFailure(error) }
    // SAFETY: as above.
    try call("put in place", path) { unsafe rename(fresh, root + path) }
  }

  private func call(_ operation: String, _ path: String, _ body: () -> Int32) throws(HugepagesFailure) {
    if body() != 0 { throw .system(operation: operation, path: path, errno: rw_errno()) }
  }
}
