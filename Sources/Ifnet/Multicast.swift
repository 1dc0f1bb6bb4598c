// Multicast groups of an interface, and the link-level groups that they are received under.
//
//     224.1.1.1 ──┐
//                 ├──> 01:00:5e:01:01:01 (2) ──> driver: ADDMULTI with the first, DELMULTI with the last
//     225.1.1.1 ──┘

internal import Netisr
public import Wire

/// A group that an interface is in.
struct MulticastEntry: Sendable {
  var group: SocketAddress
  var references: Int
  /// The link-level group that belongs to it.
  var link: MACAddress?
}

extension Interface {
  /// Groups with their counts: link-level ones that somebody asked for by address among them.
  public var multicastGroups: [MulticastDescription] {
    state.withLock { $0.multicast.map { MulticastDescription(group: $0.group, references: $0.references, link: $0.link) } }
  }

  /// For drivers: every link-level group that is to be received, sorted.
  public var linkMulticast: [MACAddress] { state.withLock { $0.linkMulticast.keys.sorted { $0.rawValue < $1.rawValue } } }

  /// if_addmulti: joins a group, or counts one more reference to it. On worker 0 or on a thread that is no worker.
  /// - Throws: what the link layer says of the group (EADDRNOTAVAIL); what the driver says, and nothing has changed
  ///   then; ENXIO (detached).
  public func addMulticast(_ group: SocketAddress) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      if isDying { throw InterfaceError(.ENXIO, "\(name) is gone") }
      let group = normalized(group)
      let isKnown = state.withLock { state -> Bool in
        guard let at = state.multicast.firstIndex(where: { $0.group == group }) else { return false }
        state.multicast[at].references += 1
        return true
      }
      if isKnown { return }
      let link = try resolve(group)
      let isFirst = link.map { link in state.withLock { $0.linkMulticast[link] == nil } } ?? false
      state.withLock { state in
        state.multicast.append(MulticastEntry(group: group, references: 1, link: link))
        if let link { state.linkMulticast[link, default: 0] += 1 }
      }
      if let link, isFirst {
        do throws(InterfaceError) { try driver.handle(.addMulticast(link), on: self) } catch {
          state.withLock { state in
            state.multicast.removeAll { $0.group == group }
            state.linkMulticast[link] = nil
          }
          throw error
        }
      }
      table.publish()
      table.announce(.multicastAdded(group), self)
    }
  }

  /// if_delmulti: gives one reference back; with the last one the group is left.
  /// - Throws: ENOENT
  public func deleteMulticast(_ group: SocketAddress) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      let group = normalized(group)
      let references = state.withLock { state -> Int in
        guard let at = state.multicast.firstIndex(where: { $0.group == group }) else { return 0 }
        state.multicast[at].references -= 1
        return state.multicast[at].references + 1
      }
      if references == 0 { throw InterfaceError(.ENOENT, "\(name) is not in the group \(group)") }
      if references == 1 { drop(group) }
    }
  }

  /// if_delallmulti: leaves every group, however many references it has.
  func deleteAllMulticast() {
    for group in state.withLock({ $0.multicast.map(\.group) }) { drop(group) }
  }

  /// Link-level groups are the same whatever index they were asked with.
  private func normalized(_ group: SocketAddress) -> SocketAddress {
    if case .link(_, let bytes) = group { .link(index: index.index, bytes: bytes) } else { group }
  }

  private func resolve(_ group: SocketAddress) throws(InterfaceError) -> MACAddress? {
    if let found = try link?.resolveMulticast(group, on: self) { return found }
    if case .link(_, let bytes) = group, bytes.count == 6 { return MACAddress(bytes: bytes) }
    return nil
  }

  private func drop(_ group: SocketAddress) {
    let unused = state.withLock { state -> MACAddress? in
      guard let at = state.multicast.firstIndex(where: { $0.group == group }) else { return nil }
      let entry = state.multicast.remove(at: at)
      guard let link = entry.link, let count = state.linkMulticast[link] else { return nil }
      state.linkMulticast[link] = count > 1 ? count - 1 : nil
      return count > 1 ? nil : link
    }
    if !isDying { table.publish() }
    table.announce(.multicastRemoved(group), self)
    // A driver that cannot take it out hears too much, which does no harm.
    if let unused { try? driver.handle(.deleteMulticast(unused), on: self) }
  }
}
