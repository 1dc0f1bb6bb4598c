// ioctl(2) by number: the control requests laid flat, and the legacy ones as they come.

public import NetmapAPI
internal import NetmapCore

/// What an ioctl answers: what goes back to the program, whatever the result.
public struct NetmapIoctlReply: Equatable, Sendable {
  /// 0: done.
  public var errno: Int32
  /// The structure, changed: statuses of options on errors too.
  public var payload: [UInt8]
  /// A sentence about the error.
  public var problem: String

  public init(payload: [UInt8], _ error: NetmapError? = nil) {
    self.errno = error?.code.rawValue ?? 0
    self.payload = payload
    self.problem = error?.problem ?? ""
  }
}

extension NetmapDescriptor {
  /// One ioctl.
  /// - Parameters:
  ///   - payload: `struct nmreq`, `struct nm_ifreq`, a `FlatRequest`, or nothing, as the number has it.
  ///   - external: as in `handle`.
  public func ioctl(_ number: UInt64, _ payload: [UInt8], external: ExternalRegion? = nil) -> NetmapIoctlReply {
    var payload = payload
    do throws(NetmapError) {
      switch number {
      case NetmapIoctl.control: return try control(payload, external)
      case NetmapIoctl.info, NetmapIoctl.register:
        // The name has an end from here on, whatever comes.
        var legacy = try LegacyRequest(decoding: payload)
        payload = legacy.encoded()
        var request = try number == NetmapIoctl.info ? legacy.information() : legacy.registration()
        try handle(&request)
        try legacy.take(request)
        return NetmapIoctlReply(payload: legacy.encoded())
      case NetmapIoctl.transmitSync, NetmapIoctl.receiveSync:
        try sync(number == NetmapIoctl.transmitSync ? .transmit : .receive)
        return NetmapIoctlReply(payload: [])
      case NetmapIoctl.configure:
        guard payload.count == NetmapLayout.configureSize else {
          throw NetmapError(.EINVAL, "NIOCCONFIG has \(payload.count) bytes where \(NetmapLayout.configureSize) are needed.")
        }
        throw NetmapError(.EINVAL, "No port here has a configuration of its own.")
      default: throw NetmapError(.EOPNOTSUPP, "netmap has no request 0x\(String(number, radix: 16)).")
      }
    } catch { return NetmapIoctlReply(payload: payload, error) }
  }

  private func control(_ payload: [UInt8], _ external: ExternalRegion?) throws(NetmapError) -> NetmapIoctlReply {
    var request = try FlatRequest(decoding: payload)
    do throws(NetmapError) { try handle(&request, external: external) } catch {
      return NetmapIoctlReply(payload: request.encoded(), error)
    }
    return NetmapIoctlReply(payload: request.encoded())
  }
}
