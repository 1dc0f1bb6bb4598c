// Who has a card open: descriptors in /proc that point to the group's node.

enum VFIOHolders {
  /// "process 412 (ringway)" for each; a caller without privilege sees its own processes only.
  static func processes(holdingGroup group: Int, roots: SystemRoots) -> [String] {
    let nodes: Set = ["\(roots.dev)/vfio/\(group)", "\(roots.dev)/vfio/noiommu-\(group)"]
    return SystemFiles.list(roots.proc).compactMap { name -> (Int, String)? in
      guard let id = Int(name) else { return nil }
      let folder = "\(roots.proc)/\(name)"
      let holds = SystemFiles.list(folder + "/fd").contains { descriptor in
        SystemFiles.link("\(folder)/fd/\(descriptor)").map(nodes.contains) ?? false
      }
      return holds ? (id, SystemFiles.text(folder + "/comm") ?? "?") : nil
    }.sorted { $0.0 < $1.0 }.map { "process \($0.0) (\($0.1))" }
  }
}
