// Looking up by packet: each worker in its own view, other threads in a shared one.

public import Netisr
public import Packet
internal import Platform
public import Wire

/// The views. Netisr holds them as well, so they know nothing of the table.
final class ViewHolder: Sendable {
  let slots: WorkerSlots<TableView>
  private let shared: Guarded<TableView>

  init(_ numbers: WorkerNumbers) {
    let empty = TableView([], limit: 1)
    slots = WorkerSlots(numbers, empty)
    shared = Guarded(empty)
  }

  func setShared(_ view: TableView) { shared.withLock { $0 = view } }

  /// Lends the calling worker's view, or the shared one. `body` only looks: it changes nothing and calls nobody.
  @inline(__always) func look<T>(_ body: (TableView) -> T) -> T {
    if let found = slots.withCurrent(body) { return found }
    return body(shared.withLock { $0 })
  }

  @inline(__always) func interface(_ index: InterfaceIndex) -> Interface? { look { $0.interface(index) } }
}

extension InterfaceTable {
  /// The interface with this index and generation; nil when it is gone. On a worker no lock is taken.
  public func interface(_ index: InterfaceIndex) -> Interface? { views.interface(index) }

  /// The interface that has this number now, whatever its generation.
  public func interface(number: Int) -> Interface? { views.look { $0.interface(number: number) } }

  /// Whether an address is one of this stack's own. On a worker no lock is taken.
  public func isLocal(_ address: IPv4Address, vnet: Vnet = .base) -> Bool { views.look { $0.isLocal(address, vnet) } }

  /// The same for IPv6; link-local addresses are those of `interface` alone.
  public func isLocal(_ address: IPv6Address, on interface: Interface) -> Bool { views.look { $0.isLocal(address, interface) } }

  /// The interface address that this is; nil: none of ours. On a worker no lock is taken.
  public func localAddress(_ address: IPv4Address, vnet: Vnet = .base) -> InterfaceAddress? {
    views.look { $0.local(address, vnet) }
  }

  /// The same for IPv6; link-local addresses are those of `interface` alone.
  public func localAddress(_ address: IPv6Address, on interface: Interface) -> InterfaceAddress? {
    views.look { $0.local(address, on: interface) }
  }

  /// Whether an interface has joined a group. On a worker no lock is taken.
  public func isMember(of group: IPv4Address, on interface: Interface) -> Bool { views.look { $0.isMember(group, interface) } }
  public func isMember(of group: IPv6Address, on interface: Interface) -> Bool { views.look { $0.isMember(group, interface) } }
}
