// An IOMMU group and its container, and what one card of the group uses of them.
//
// VFIO hands out groups, and a group can be opened once. Most cards are alone in theirs. The ports
// of one card on a board that does not keep them apart (no ACS) share a group: this process opens
// it once, and they share the IOMMU domain, as they would in hardware whatever software does.
// What is mapped for both is then mapped once, and stays until the last of them lets go.

internal import CRingway
internal import DMAMemory
internal import PCI
internal import Platform
internal import Synchronization
internal import SystemPackage

/// An open group with its container. Found by its device file; closed with its last card.
final class SharedGroup: Sendable {
  let container: VFIOContainer
  private let path: String
  private let held: Mutex<Held>

  /// Changed only under the table's lock.
  private struct Held: ~Copyable {
    var descriptor: OwnedDescriptor?
    /// The addresses of those who have joined.
    var cards: Set<String>
  }

  /// The groups of this process that are open.
  private static let table = Mutex<[String: SharedGroup]>([:])

  private init(path: String, descriptor: consuming OwnedDescriptor, container: VFIOContainer, card: String) {
    self.path = path
    self.container = container
    held = Mutex(Held(descriptor: consume descriptor, cards: [card]))
  }

  /// Opens the group of `address`, or joins the one that is open. Each caller leaves once.
  static func join(_ address: PCIAddress, system: any VFIOSystem, roots: SystemRoots) throws(VFIOError) -> SharedGroup {
    let name = address.description
    let number = try VFIOGroup.number(of: address, roots: roots)
    let path = "\(roots.dev)/vfio/\(number)"
    return try table.withLock { (table: inout [String: SharedGroup]) throws(VFIOError) -> SharedGroup in
      if let group = table[path] {
        // The kernel would open the device twice: two would drive one card.
        guard group.held.withLock({ $0.cards.insert(name).inserted }) else { throw .alreadyOpen(address: name) }
        return group
      }
      let opened = try VFIOGroup(number, of: name, system: system, roots: roots)
      let container = try VFIOContainer(
        system, path: roots.dev + "/vfio/vfio", address: name, group: (path, opened.descriptor.raw))
      let group = SharedGroup(path: path, descriptor: opened.descriptor, container: container, card: name)
      table[path] = group
      return group
    }
  }

  /// Closes the group and its container when nobody else uses them.
  func leave(_ card: String) {
    SharedGroup.table.withLock { table in
      let isLast = held.withLock { held in
        held.cards.remove(card)
        if held.cards.isEmpty { held.descriptor = nil }
        return held.cards.isEmpty
      }
      guard isLast else { return }
      container.close()
      table[path] = nil
    }
  }

  /// A device of the group.
  func device(_ address: String, system: any VFIOSystem) throws(VFIOError) -> OwnedDescriptor {
    let result = held.withLock { held -> Result<Int32, Errno> in
      guard let raw = held.descriptor?.raw else { return .failure(.noDevice) }
      var name = Array(address.utf8) + [0]
      do throws(Errno) {
        return .success(try system.control(raw, RW_VFIO_GROUP_GET_DEVICE_FD, &name))
      } catch {
        return .failure(error)
      }
    }
    switch result {
    case .success(let raw): return OwnedDescriptor(taking: raw)
    case .failure(.noDevice): throw .gone(address: address)
    case .failure(.resourceBusy): throw .busy(address: address, path: path)
    case .failure(.permissionDenied), .failure(.notPermitted): throw .noPermission(path: path)
    case .failure(let errno): throw .system(operation: "open", subject: address, errno: errno)
    }
  }
}

/// The part of a group's IOMMU domain that one card uses.
final class CardMappings: DMAContext {
  private let group: SharedGroup
  private let card: String
  private let own = Mutex(Own())

  private struct Own {
    var isClosed = false
    /// Bytes by bus address.
    var mappings: [UInt64: Int] = [:]
  }

  /// Takes over one joining of the group: closing leaves it.
  init(_ group: SharedGroup, card: String) {
    self.group = group
    self.card = card
  }

  var iovaRanges: [ClosedRange<UInt64>] { group.container.info.ranges }
  var iovaPageSize: Int { group.container.info.pageSize }

  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    let (base, count) = (UInt64(UInt(bitPattern: unsafe source.base)), source.count)
    try own.withLock { (own: inout Own) throws(DMAError) in
      guard !own.isClosed else { throw .gone }
      guard own.mappings[iova.rawValue] == nil else { throw .map(errno: EEXIST, count: count, iova: iova) }
      try group.container.map(base, count, at: iova)
      own.mappings[iova.rawValue] = count
    }
  }

  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    try own.withLock { (own: inout Own) throws(DMAError) in
      guard !own.isClosed else { throw .gone }
      // Type 1 unmaps whatever lies inside; here a mapping goes as it came, or not at all.
      guard own.mappings[iova.rawValue] == count else { throw .unmap(errno: ENOENT, count: count, iova: iova) }
      try group.container.unmap(count, at: iova)
      own.mappings[iova.rawValue] = nil
    }
  }

  func unmapAll() {
    own.withLock { own in
      // A mapping that cannot be undone is undone by the kernel when the container is closed.
      for (iova, count) in own.mappings { try? group.container.unmap(count, at: IOVA(rawValue: iova)) }
      own.mappings = [:]
    }
  }

  func close() {
    unmapAll()
    let wasClosed = own.withLock { own in
      defer { own.isClosed = true }
      return own.isClosed
    }
    if !wasClosed { group.leave(card) }
  }
}
