// Groups of interfaces: made with their first member, gone with their last. Everybody is in "all".

public import Netisr

extension Interface {
  /// Joins a group (AIFGROUP).
  /// - Throws: EINVAL ("" or a digit at the end: that would be an interface), ENAMETOOLONG, EEXIST (a member already),
  ///   ENXIO (detached).
  public func join(group: String) throws(InterfaceError) {
    guard let last = group.utf8.last, !(48...57).contains(last) else {
      throw InterfaceError(.EINVAL, "a group cannot be called \"\(group)\": a name that ends in a digit is an interface's")
    }
    guard group.utf8.count <= InterfaceTable.maximumNameLength else {
      throw InterfaceError(.ENAMETOOLONG, "the group \"\(group)\" has more than \(InterfaceTable.maximumNameLength) characters")
    }
    try table.control { [self] () throws(InterfaceError) in
      if isDying { throw InterfaceError(.ENXIO, "\(name) is gone") }
      guard addToGroup(group) else { throw InterfaceError(.EEXIST, "\(name) is in the group \(group) already") }
      table.announce(.groupsChanged, self)
    }
  }

  /// Leaves a group (DIFGROUP).
  /// - Throws: ENOENT (no member)
  public func leave(group: String) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      guard removeFromGroup(group) else { throw InterfaceError(.ENOENT, "\(name) is not in a group \"\(group)\"") }
      table.announce(.groupsChanged, self)
    }
  }

  @discardableResult func addToGroup(_ group: String) -> Bool {
    let isNew = state.withLock { state -> Bool in
      if state.groups.contains(group) { return false }
      state.groups.append(group)
      return true
    }
    if isNew { table.state.withLock { $0.groups[group, default: []].append(self) } }
    return isNew
  }

  @discardableResult private func removeFromGroup(_ group: String) -> Bool {
    let wasMember = state.withLock { state -> Bool in
      guard let at = state.groups.firstIndex(of: group) else { return false }
      state.groups.remove(at: at)
      return true
    }
    guard wasMember else { return false }
    table.state.withLock { state in
      state.groups[group]?.removeAll { $0 === self }
      if state.groups[group]?.isEmpty == true { state.groups[group] = nil }
    }
    return true
  }

  func leaveAllGroups() { for group in groups { removeFromGroup(group) } }
}

extension InterfaceTable {
  /// Names of the groups there are, sorted.
  public var groupNames: [String] { state.withLock { $0.groups.keys.sorted() } }

  /// The members of a group that a stack instance sees.
  /// - Throws: ENOENT
  public func members(of group: String, vnet: Vnet? = nil) throws(InterfaceError) -> [Interface] {
    guard let members = state.withLock({ $0.groups[group] }) else {
      throw InterfaceError(.ENOENT, "there is no group \"\(group)\"")
    }
    return members.filter { vnet == nil || $0.vnet == vnet }
  }
}
