import CRingway
import Glibc
import Testing

@testable import PCI

@Suite struct NetlinkMessageTests {
  @Test func messagesSurviveTheirBytes() {
    var message = NetlinkMessage(type: 24, payload: [UInt8](repeating: 7, count: 12))
    message.append(attribute: 4, NetlinkMessage.words(5))
    message.append(attribute: 7, [1, 2, 3])
    let other = NetlinkMessage(type: 20, payload: [1])
    // Messages start on word boundaries.
    let bytes = message.bytes(flags: 0x305)
    #expect(NetlinkMessage.parse(bytes + other.bytes(flags: 0)) == [message, other])
    #expect(bytes[6] == 0x05 && bytes[7] == 0x03 && bytes.count % 4 == 0)
    #expect(message.attribute(4, after: 12).map { message.int32(at: $0.lowerBound) } == 5)
    #expect(message.attribute(7, after: 12)?.count == 3)
    #expect(message.attribute(9, after: 12) == nil)
  }

  @Test func wrongLengthsEndTheWalk() {
    var bytes = NetlinkMessage(type: 24, payload: [0, 0, 0, 0]).bytes(flags: 0)
    bytes[0] = 200
    #expect(NetlinkMessage.parse(bytes).isEmpty)
    bytes[0] = 3
    #expect(NetlinkMessage.parse(bytes).isEmpty)
    #expect(NetlinkMessage(type: 24, payload: [0, 0, 4, 0]).attribute(4, after: 0) == nil)
    #expect(NetlinkMessage(type: 24, payload: [2, 0, 4, 0]).attribute(4, after: 0) == nil)
    #expect(NetlinkMessage(type: 24, payload: []).int32(at: 0) == nil)
  }

  @Test func hexadecimalSurvives() {
    let message = NetlinkMessage(type: 0x0114, payload: [0, 255, 16])
    #expect(InterfaceKeeper.text(message) == "140100ff10")
    #expect(InterfaceKeeper.message("140100ff10") == message)
    #expect(InterfaceKeeper.message("14") == nil && InterfaceKeeper.message("1401zz") == nil)
    #expect(InterfaceKeeper.message("14010") == nil)
  }
}

/// In a network namespace of its own, where the process may make one: addresses and routes of a
/// virtual interface go and come back.
@Suite(.serialized) struct InterfaceKeeperTests {
  static let mayMakeNamespaces = (try? inNamespace {}) != nil

  /// Runs on a thread of its own, because a namespace belongs to the thread.
  private static func inNamespace(_ body: @escaping @Sendable () throws -> Void) throws {
    final class Box: @unchecked Sendable {
      var error: (any Error)?
      let body: @Sendable () throws -> Void
      init(_ body: @escaping @Sendable () throws -> Void) { self.body = body }
    }
    let box = Box(body)
    var thread = pthread_t()
    // SAFETY: the box is retained for the thread, which releases it, and outlives the join.
    let pointer = unsafe Unmanaged.passRetained(box).toOpaque()
    let status = unsafe pthread_create(
      &thread, nil,
      { argument in
        let box = unsafe Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue()
        do {
          guard rw_unshare(0x4000_0000) == 0 else {
            throw EffectError(operation: "unshare", path: "network", errno: errno)
          }
          try box.body()
        } catch { box.error = error }
        return nil
      }, pointer)
    #expect(status == 0)
    pthread_join(thread, nil)
    if let error = box.error { throw error }
  }

  @Test(.enabled(if: mayMakeNamespaces)) func addressesAndRoutesComeBackUnderTheOldName() throws {
    try Self.inNamespace {
      try Self.addInterface("spare0", up: true)
      let netlink = try Netlink()
      try netlink.talk(Self.address("spare0", [198, 18, 7, 1], 24))
      try netlink.talk(Self.route("spare0", [198, 19, 0, 0], 16, via: [198, 18, 7, 2]))
      var settings = InterfaceKeeper.capture(["spare0"], roots: SystemRoots(under: "/nowhere"))[0]
      settings.isUp = true
      #expect(settings.messages.count == 2)
      try Self.remove("spare0")
      try Self.addInterface("other7", up: false)
      try InterfaceKeeper.restore(settings, current: "other7", nameOnly: false)
      var again = InterfaceKeeper.capture(["spare0"], roots: SystemRoots(under: "/nowhere"))[0]
      again.isUp = true
      #expect(again.messages.count == 2)
      #expect(unsafe if_nametoindex("other7") == 0)
      // A second time changes nothing and is no error.
      try InterfaceKeeper.restore(settings, current: "spare0", nameOnly: false)
      let third = InterfaceKeeper.capture(["spare0"], roots: SystemRoots(under: "/nowhere"))[0]
      #expect(Self.beginnings(third) == Self.beginnings(again) && Self.beginnings(again) == Self.beginnings(settings))
    }
  }

  @Test(.enabled(if: mayMakeNamespaces)) func aMissingInterfaceIsAnError() throws {
    try Self.inNamespace {
      var settings = InterfaceSettings(name: "spare0")
      settings.isUp = true
      #expect(throws: EffectError.self) { try InterfaceKeeper.restore(settings, current: "spare0", nameOnly: false) }
    }
  }

  /// Family, length, scope and the first attributes; behind them lie time stamps.
  private static func beginnings(_ settings: InterfaceSettings) -> [[UInt8]] {
    settings.messages.compactMap(InterfaceKeeper.message).map { message in
      // An address carries its interface's number in the fifth to eighth byte.
      let header = message.type == UInt16(RTM_NEWADDR) ? 4 : 12
      return Array(message.payload.prefix(header)) + message.payload.dropFirst(max(header, 8)).prefix(12)
    }
  }

  private static func addInterface(_ name: String, up: Bool) throws(EffectError) {
    var message = NetlinkMessage(type: UInt16(RTM_NEWLINK), payload: [UInt8](repeating: 0, count: 16))
    if up {
      message.setInt32(1, at: 8)
      message.setInt32(1, at: 12)
    }
    message.append(attribute: Int(IFLA_IFNAME), Array(name.utf8) + [0])
    // IFLA_LINKINFO (18) with IFLA_INFO_KIND (1).
    message.append(attribute: 18, [8, 0, 1, 0] + Array("veth".utf8))
    try Netlink().talk(message, flags: NLM_F_CREATE | NLM_F_EXCL)
  }

  private static func remove(_ name: String) throws(EffectError) {
    var message = NetlinkMessage(type: UInt16(RTM_DELLINK), payload: [UInt8](repeating: 0, count: 16))
    message.setInt32(Int32(bitPattern: unsafe if_nametoindex(name)), at: 4)
    try Netlink().talk(message, flags: 0)
  }

  private static func address(_ name: String, _ bytes: [UInt8], _ length: UInt8) -> NetlinkMessage {
    var message = NetlinkMessage(type: UInt16(RTM_NEWADDR), payload: [UInt8(AF_INET), length, 0, 0, 0, 0, 0, 0])
    message.setInt32(Int32(bitPattern: unsafe if_nametoindex(name)), at: 4)
    message.append(attribute: 2, bytes)
    message.append(attribute: 1, bytes)
    return message
  }

  private static func route(_ name: String, _ bytes: [UInt8], _ length: UInt8, via: [UInt8]) -> NetlinkMessage {
    // struct rtmsg: main table (254), protocol static (4), scope universe (0), unicast (1).
    var message = NetlinkMessage(
      type: UInt16(RTM_NEWROUTE), payload: [UInt8(AF_INET), length, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0])
    message.append(attribute: Int(RTA_DST.rawValue), bytes)
    message.append(attribute: Int(RTA_GATEWAY.rawValue), via)
    message.append(
      attribute: Int(RTA_OIF.rawValue), NetlinkMessage.words(unsafe if_nametoindex(name)))
    return message
  }
}
