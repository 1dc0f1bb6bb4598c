// What happens in a stack, as lines of `ringway monitor`.

internal import Control
internal import Ifnet
internal import Inet
internal import Inet6
internal import Netisr
internal import Packet
internal import Routes

extension Stack {
  /// Tells the server's subscribers of every change from here on, on the thread on which it happens.
  func publishEvents(to server: ControlServer) {
    _ = interfaces.subscribe { [weak server] event, interface in
      guard let server else { return }
      let name = interface.name
      let (category, word, detail) = Self.words(event)
      server.publish(category, interface: name) {
        ChangeRecord(
          time: WallClock.seconds(), category: category, event: word, interface: name, index: Int(interface.index.index), detail: detail)
      }
    }
    _ = routes.subscribe { [weak server, weak interfaces] event in
      guard let server else { return }
      let (word, index, detail) = Self.words(event)
      let name = interfaces?.interface(index)?.name
      server.publish(.route, interface: name) {
        ChangeRecord(time: WallClock.seconds(), category: .route, event: word, interface: name, index: Int(index.index), detail: detail)
      }
    }
    inet6.onEvent { [weak server, weak interfaces] event in
      guard let server else { return }
      let (word, index, detail) = Self.words(event)
      let name = interfaces?.interface(index)?.name
      server.publish(.address, interface: name) {
        ChangeRecord(time: WallClock.seconds(), category: .address, event: word, interface: name, index: Int(index.index), detail: detail)
      }
    }
    inet.onEvent { [weak server, weak interfaces] event in
      guard let server else { return }
      let (word, index, detail) = Self.words(event)
      let name = interfaces?.interface(index)?.name
      server.publish(.neighbour, interface: name) {
        ChangeRecord(time: WallClock.seconds(), category: .neighbour, event: word, interface: name, index: Int(index.index), detail: detail)
      }
    }
  }

  private static func words(_ event: Inet6Event) -> (String, InterfaceIndex, String) {
    switch event {
    case .ready(let address, let interface): ("ready", interface, "\(address)")
    case .duplicated(let address, let interface): ("duplicated", interface, "\(address) is used by somebody else")
    }
  }

  private static func words(_ event: InterfaceEvent) -> (EventCategory, String, String?) {
    switch event {
    case .attach: (.interface, "attach", nil)
    case .arrival: (.interface, "arrival", nil)
    case .departure: (.interface, "departure", nil)
    case .detach: (.interface, "detach", nil)
    case .up: (.interface, "up", nil)
    case .down: (.interface, "down", nil)
    case .link(let status): (.link, "\(status)", nil)
    case .renamed(let old): (.interface, "renamed", "from \(old)")
    case .addressAdded(let address): (.address, "added", "\(address)")
    case .addressRemoved(let address): (.address, "removed", "\(address)")
    case .multicastAdded(let group): (.multicast, "added", "\(group)")
    case .multicastRemoved(let group): (.multicast, "removed", "\(group)")
    case .linkAddress(let address): (.address, "changed", "\(address)")
    case .mtu(let bytes): (.interface, "mtu", "\(bytes)")
    case .flags(let flags): (.interface, "flags", flags.names.joined(separator: ","))
    case .groupsChanged: (.interface, "groups", nil)
    }
  }

  private static func words(_ event: RouteEvent) -> (String, InterfaceIndex, String) {
    func text(_ prefix: String, _ gateway: String?) -> String { gateway.map { "\(prefix) via \($0)" } ?? prefix }
    return switch event {
    case .added4(let route): ("added", route.interface, text("\(route.prefix)", route.gateway.map { "\($0)" }))
    case .removed4(let route): ("removed", route.interface, text("\(route.prefix)", route.gateway.map { "\($0)" }))
    case .changed4(let route): ("changed", route.interface, text("\(route.prefix)", route.gateway.map { "\($0)" }))
    case .added6(let route): ("added", route.interface, text("\(route.prefix)", route.gateway.map { "\($0)" }))
    case .removed6(let route): ("removed", route.interface, text("\(route.prefix)", route.gateway.map { "\($0)" }))
    case .changed6(let route): ("changed", route.interface, text("\(route.prefix)", route.gateway.map { "\($0)" }))
    }
  }

  private static func words(_ event: InetEvent) -> (String, InterfaceIndex, String) {
    switch event {
    case .conflict(let address, let station, let interface): ("conflict", interface, "\(address) is used by \(station)")
    case .resolved(let address, let station, let interface): ("resolved", interface, "\(address) at \(station)")
    case .moved(let address, let old, let new, let interface): ("moved", interface, "\(address) from \(old) to \(new)")
    case .expired(let address, let interface): ("expired", interface, "\(address)")
    case .unresolved(let address, let interface): ("unresolved", interface, "\(address)")
    }
  }
}
