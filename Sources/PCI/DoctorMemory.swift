// The doctor's part on memory: what may be locked, and which hugepages there are.

extension Doctor {
  /// VFIO counts mapped memory against RLIMIT_MEMLOCK unless the process has CAP_IPC_LOCK.
  func memlock() -> [Finding] {
    let subject = "locked memory"
    let capabilities = line("self/status", "CapEff:").flatMap { UInt64($0[1], radix: 16) } ?? 0
    if capabilities & 1 << 14 != 0 { return [Finding(subject, .ok, "no limit for a process with CAP_IPC_LOCK")] }
    guard let fields = line("self/limits", "Max locked memory"), fields.count >= 4 else {
      return [Finding(subject, .warn, "the limit cannot be read", remedy: "ulimit -l")]
    }
    if fields[3] == "unlimited" { return [Finding(subject, .ok, "no limit")] }
    let limit = Int(fields[3]) ?? 0
    let reserved = pools().reduce(0) { $0 + $1.total * $1.kilobytes * 1024 }
    let text = "the limit is \(limit >> 10) kB for this login"
    let remedy = "echo \"\(callerName()) - memlock unlimited\" > /etc/security/limits.d/ringway.conf"
    if limit < 64 << 20 {
      return [Finding(subject, .fail, "\(text); a card with its buffers takes 65536 kB", remedy: remedy)]
    }
    if limit < reserved {
      return [Finding(subject, .warn, "\(text); the hugepages are \(reserved >> 10) kB", remedy: remedy)]
    }
    return [Finding(subject, .ok, text)]
  }

  struct Pool {
    let node: Int
    let kilobytes: Int
    let total: Int
    let free: Int
    let path: String
  }

  /// Hugepages by node and size (Documentation/admin-guide/mm/hugetlbpage.rst).
  func pools() -> [Pool] {
    func pools(in folder: String, node: Int) -> [Pool] {
      SystemFiles.list(folder).compactMap { name in
        guard name.hasPrefix("hugepages-"), name.hasSuffix("kB"),
          let size = Int(name.dropFirst("hugepages-".count).dropLast(2)),
          let total = SystemFiles.integer("\(folder)/\(name)/nr_hugepages"),
          let free = SystemFiles.integer("\(folder)/\(name)/free_hugepages")
        else { return nil }
        return Pool(node: node, kilobytes: size, total: total, free: free, path: "\(folder)/\(name)/nr_hugepages")
      }
    }
    let nodes = SystemFiles.list(roots.sys + "/devices/system/node").compactMap { name in
      name.hasPrefix("node") ? Int(name.dropFirst(4)) : nil
    }.sorted()
    // A kernel without NUMA has one pool for all.
    if nodes.isEmpty { return pools(in: roots.sys + "/kernel/mm/hugepages", node: 0) }
    return nodes.flatMap { pools(in: "\(roots.sys)/devices/system/node/node\($0)/hugepages", node: $0) }
  }

  func hugepages() -> [Finding] {
    let pools = pools()
    guard !pools.isEmpty else {
      return [Finding("hugepages", .fail, "this kernel has none", remedy: "apt-get install linux-image-amd64 && reboot")]
    }
    let smallest = pools.map(\.kilobytes).min() ?? 2048
    guard pools.contains(where: { $0.total > 0 }) else {
      let path = pools.first { $0.kilobytes == smallest }?.path ?? ""
      return [Finding("hugepages", .fail, "none are reserved", remedy: "echo 128 > \(path)")]
    }
    var findings: [Finding] = []
    for pool in pools where pool.total > 0 {
      let text = "\(pool.free) of \(pool.total) pages of \(pool.kilobytes) kB are free"
      let subject = "hugepages node \(pool.node)"
      findings.append(
        pool.free > 0
          ? Finding(subject, .ok, text)
          : Finding(subject, .warn, text, remedy: "echo \(pool.total * 2) > \(pool.path)"))
    }
    // A card's buffers belong on its own node.
    let functions = (try? SysfsPCI(roots: roots).networkFunctions(supported: supported)) ?? []
    for node in Set(functions.filter { $0.ringwayDriver != nil }.compactMap(\.device.numaNode)).sorted() {
      let here = pools.filter { $0.node == node }
      if let pool = here.first, here.allSatisfy({ $0.total == 0 }) {
        findings.append(
          Finding(
            "hugepages node \(node)", .warn, "a card is on this node, but none are reserved here",
            remedy: "echo 128 > \(pool.path)"))
      }
    }
    return findings
  }

  /// The caller's login name, for commands that root will run for it.
  func callerName() -> String {
    let id = line("self/status", "Uid:").map { $0[1] } ?? "0"
    for entry in (SystemFiles.text(roots.etc + "/passwd") ?? "").split(separator: "\n") where id != "0" {
      let fields = entry.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count > 2, fields[2] == id { return String(fields[0]) }
    }
    return "$SUDO_USER"
  }

  /// The fields of the first line in /proc/`file` that begins so.
  private func line(_ file: String, _ start: String) -> [String]? {
    (SystemFiles.text("\(roots.proc)/\(file)") ?? "").split(separator: "\n").first { $0.hasPrefix(start) }?
      .split(whereSeparator: \.isWhitespace).map(String.init)
  }
}
