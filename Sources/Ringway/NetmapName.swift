// Ports that the daemon offers, by netmap's names.

internal import CRingway
internal import DriverKit
internal import DeviceIO
internal import NetmapAPI
public import NetmapClient
internal import Packet
internal import Wire

/// Which names of ports are netmap's.
public enum NetmapName {
  /// "netmap:ix0-1/T", "netmap:p{1", "vale0:a". PCI addresses and "vfio-user:" are none.
  public static func isOne(_ name: String) -> Bool { name.hasPrefix("netmap:") || name.hasPrefix("vale") }

  /// Registers a port of the daemon's.
  /// - Parameter name: see `PortSpecification` for what may follow.
  public static func open(_ name: String) throws(RingwayError) -> NetmapClient.NetmapPort {
    let wanted: PortSpecification
    do throws(NetmapError) { wanted = try NetmapPortName.parse(name) } catch { throw .netmap(errno: error.code.rawValue, problem: error.problem) }
    guard wanted.external == nil else {
      throw .netmap(errno: EOPNOTSUPP, problem: "\(name): memory of one's own is for programs; leave out @extmem, or name a region with @share.")
    }
    var register = wanted.register
    if let other = wanted.share { register.memoryID = try NetmapControl().region(of: other) }
    do throws(NetmapClientError) {
      return try NetmapClient.NetmapPort(wanted.name, register, options: wanted.request.options)
    } catch { throw .netmap(errno: error.errno, problem: error.sentence) }
  }
}

extension Port {
  /// Opens a netmap port of the daemon's: frames are copied to and from its rings.
  convenience init(netmap name: String, options: PortOptions, memory: PortMemory, clock: any TimeSource) throws(RingwayError) {
    let port = try NetmapName.open(name)
    let driver = NetmapDriver(port, address: Self.address(of: port), options: options)
    try self.init(driver, function: nil, claim: try CardClaim(name), memory: memory, clock: clock)
  }

  /// The interface's own address, or one of this program's for ports that have none (switches, pipes).
  private static func address(of port: NetmapClient.NetmapPort) -> MACAddress {
    if let reply = try? NetmapChannel.query(port.name, on: port.descriptor), reply.address.count == 6, reply.address.contains(where: { $0 != 0 }) {
      return MACAddress(reply.address[0], reply.address[1], reply.address[2], reply.address[3], reply.address[4], reply.address[5])
    }
    var hash: UInt32 = 2_166_136_261
    for byte in port.name.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
    return MACAddress(0x02, 0x52, UInt8(truncatingIfNeeded: hash >> 24), UInt8(truncatingIfNeeded: hash >> 16), UInt8(truncatingIfNeeded: hash >> 8), UInt8(truncatingIfNeeded: hash))
  }
}
