// Switches and persistent ports: requests of the command line to the daemon's netmap.

internal import CRingway
internal import NetmapAPI
internal import NetmapClient

/// What can be asked of netmap beside ports: as `vale-ctl` does.
public struct NetmapControl: ~Copyable {
  private let descriptor: Int32

  /// Connects to the daemon's netmap socket (`RINGWAY_NETMAP_SOCKET`, or the default).
  public init() throws(RingwayError) {
    do throws(NetmapClientError) { descriptor = try NetmapChannel.connect(NetmapEnvironment.socket) } catch { throw .netmap(errno: error.errno, problem: error.sentence) }
  }

  deinit { close(descriptor) }

  private borrowing func ask(_ request: FlatRequest) throws(RingwayError) -> FlatRequest {
    do throws(NetmapClientError) {
      let answer = try NetmapChannel.ask(descriptor, NetmapRequestHead(.ioctl, number: NetmapIoctl.control), request.encoded())
      guard answer.errno == 0 else {
        throw NetmapClientError(answer.errno, answer.text.isEmpty ? "The daemon refuses with errno \(answer.errno)." : answer.text)
      }
      do throws(NetmapError) { return try FlatRequest(decoding: answer.payload) } catch { throw NetmapClientError(error.code.rawValue, error.problem) }
    } catch { throw .netmap(errno: error.errno, problem: error.sentence) }
  }

  /// The number of the region that a port's rings lie in, or would.
  borrowing func region(of port: String) throws(RingwayError) -> UInt16 {
    let answer = try ask(FlatRequest(.portInfo, name: port, body: PortInfo()))
    do throws(NetmapError) { return try PortInfo(decoding: answer.body).memoryID } catch { throw .netmap(errno: error.code.rawValue, problem: error.problem) }
  }

  /// Attaches an interface, and its host rings if wanted, to a switch: "vale0:ix0".
  public borrowing func attach(_ name: String, host: Bool) throws(RingwayError) {
    var body = ValeAttach()
    body.register.mode = host ? 3 : 1  // NR_REG_NIC_SW, NR_REG_ALL_NIC
    _ = try ask(FlatRequest(.valeAttach, name: name, body: body))
  }

  public borrowing func detach(_ name: String) throws(RingwayError) {
    _ = try ask(FlatRequest(.valeDetach, name: name, body: ValeDetach()))
  }

  /// Makes a port that stays without a program: "v0".
  /// - Parameters: 0 leaves a number to the daemon.
  public borrowing func create(_ name: String, rings: Int, slots: Int) throws(RingwayError) {
    var body = ValeNewInterface()
    body.transmitSlots = UInt32(clamping: slots)
    body.receiveSlots = UInt32(clamping: slots)
    body.transmitRings = UInt16(clamping: rings)
    body.receiveRings = UInt16(clamping: rings)
    _ = try ask(FlatRequest(.valeNewInterface, name: name, body: body))
  }

  public borrowing func destroy(_ name: String) throws(RingwayError) {
    _ = try ask(FlatRequest(.valeDeleteInterface, name: name))
  }
}
