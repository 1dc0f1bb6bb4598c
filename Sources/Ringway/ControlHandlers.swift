// The control socket's calls, answered by a stack. Those about the daemon itself are the daemon's.

internal import Control
internal import Ifnet
internal import Netisr

extension ControlContext {
  /// Who asks, as the interface layer wants to know it.
  var credentials: Credentials {
    Credentials(uid: peer?.uid ?? UInt32.max, gids: peer?.groups ?? [], isPrivileged: isPrivileged)
  }
}

extension Stack {
  /// Answers every call about interfaces, routes, neighbours, netisr, controls, statistics, captures and netmap.
  public func serve(on server: ControlServer) {
    serveInterfaces(server)
    serveRoutes(server)
    serveStatistics(server)
    serveCaptures(server)
    serveNetmap(server)
    publishEvents(to: server)
  }

  private func serveInterfaces(_ server: ControlServer) {
    server.handle(InterfaceList.self) { [self] (request, _) throws(ControlError) in
      var chosen = interfaces.interfaces
      if let group = request.group { chosen = chosen.filter { $0.groups.contains(group) } }
      return chosen.sorted { $0.index.index < $1.index.index }.map { record(of: $0) }
    }
    server.handle(InterfaceGet.self) { [self] (request, _) throws(ControlError) in record(of: try interface(request.interface)) }
    server.handle(InterfaceSet.self) { [self] (request, context) throws(ControlError) in
      try change(request.interface, request.changes, by: context.credentials)
    }
    server.handle(InterfaceCreate.self) { [self] (request, context) throws(ControlError) in
      return InterfaceCreated(name: try create(request.name, request.options, by: context.credentials))
    }
    server.handle(InterfaceDestroy.self) { [self] (request, context) throws(ControlError) in
      _ = try perform(.destroy(name: request.name), by: context.credentials)
      return ControlDone()
    }
    server.handle(InterfaceCloners.self) { [self] (_, context) throws(ControlError) in
      guard case .cloners(let names, _) = try perform(.cloners(count: 1024), by: context.credentials) else { return [] }
      return names
    }
    server.handle(GroupList.self) { [self] (request, _) throws(ControlError) in
      guard let group = request.group else { return interfaces.groupNames }
      do throws(InterfaceError) { return try interfaces.members(of: group).map(\.name) } catch { throw ControlError(error) }
    }
    server.handle(DriverStatistics.self) { [self] (request, _) throws(ControlError) in
      try driverStatistics(of: try interface(request.interface))
    }
  }

  private func serveRoutes(_ server: ControlServer) {
    server.handle(RouteList.self) { [self] (request, _) throws(ControlError) in try routeRecords(family: request.family) }
    server.handle(RouteGet.self) { [self] (request, _) throws(ControlError) in try route(to: request.address) }
    server.handle(RouteAdd.self) { [self] (request, _) throws(ControlError) in try setRoute(request.route, replacing: false) }
    server.handle(RouteChange.self) { [self] (request, _) throws(ControlError) in try changeRoute(request.route) }
    server.handle(RouteDelete.self) { [self] (request, _) throws(ControlError) in try deleteRoute(request.prefix) }
    server.handle(RouteFlush.self) { [self] (request, _) throws(ControlError) in CountReply(count: try flushRoutes(family: request.family)) }
    server.handle(NeighbourList.self) { [self] (request, _) throws(ControlError) in
      try neighbourRecords(family: request.family, interface: request.interface)
    }
    server.handle(NeighbourSet.self) { [self] (request, _) throws(ControlError) in try setNeighbour(request) }
    server.handle(NeighbourDelete.self) { [self] (request, _) throws(ControlError) in
      try deleteNeighbour(request)
      return ControlDone()
    }
    server.handle(NeighbourFlush.self) { [self] (request, _) throws(ControlError) in CountReply(count: try flushNeighbours(request)) }
  }

  private func serveStatistics(_ server: ControlServer) {
    server.handle(NetisrTables.self) { [self] (_, _) throws(ControlError) in netisrRecord() }
    server.handle(SysctlList.self) { [self] (request, _) throws(ControlError) in try sysctlRecords(request.prefix) }
    server.handle(SysctlWrite.self) { [self] (request, _) throws(ControlError) in try setSysctl(request.name, request.value) }
    server.handle(Statistics.self) { [self] (request, _) throws(ControlError) in try statistics(proto: request.proto) }
    server.handle(Drops.self) { [self] (request, _) throws(ControlError) in try dropRecords(interface: request.interface) }
    server.handle(TopSample.self) { [self] (_, _) throws(ControlError) in try topRecord() }
  }
}
