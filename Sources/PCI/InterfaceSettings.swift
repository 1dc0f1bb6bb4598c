// What the kernel forgets when a driver lets a card go: the interface's name, its state, its
// addresses and routes. Kept in the journal, so that putting a card back in time (--confirm) or
// after a crash also puts back the way by which its owner reaches the machine.
//
// Not kept: what stands above the interface (VLANs, tunnels); the kernel deletes those with it.

import CRingway
import Glibc

/// The settings of one network interface.
public struct InterfaceSettings: Hashable, Sendable {
  public var name: String
  public var isUp = false
  public var mtu: Int?
  /// The bridge or bond that it belongs to.
  public var master: String?
  /// Addresses and routes as rtnetlink gave them, in hexadecimal: type, then payload.
  public var messages: [String] = []

  public init(name: String) { self.name = name }

  /// The state is worth more than the name alone.
  var isPlain: Bool { !isUp && master == nil && messages.isEmpty }
}

enum InterfaceKeeper {
  /// The settings of `names` in this network namespace. What cannot be read is left out: keeping it
  /// is a service, and no condition for a bind.
  static func capture(_ names: [String], roots: SystemRoots) -> [InterfaceSettings] {
    names.map { name in
      var settings = InterfaceSettings(name: name)
      let folder = "\(roots.sys)/class/net/\(name)"
      settings.isUp = (SystemFiles.integer(folder + "/flags") ?? 0) & 1 != 0
      settings.mtu = SystemFiles.integer(folder + "/mtu")
      settings.master = SystemFiles.linkName(folder + "/master")
      settings.messages = (try? messages(of: name)) ?? []
      return settings
    }
  }

  private static func messages(of name: String) throws(EffectError) -> [String] {
    // SAFETY: if_nametoindex reads the string.
    let index = Int32(bitPattern: unsafe if_nametoindex(name))
    guard index > 0 else { return [] }
    let netlink = try Netlink()
    var kept: [NetlinkMessage] = []
    for message in try netlink.dump(UInt16(RTM_GETADDR), family: 0) where message.int32(at: 4) == index {
      kept.append(NetlinkMessage(type: UInt16(RTM_NEWADDR), payload: message.payload))
    }
    for family in [AF_INET, AF_INET6] {
      for message in try netlink.dump(UInt16(RTM_GETROUTE), family: UInt8(family)) where isWorthKeeping(message, index) {
        var request = NetlinkMessage(type: UInt16(RTM_NEWROUTE), payload: message.payload)
        // Of the flags only "on link" is a wish; the others (dead, link down, …) are the state of
        // the moment, and the kernel refuses them in a request.
        request.setInt32((message.int32(at: 8) ?? 0) & Int32(RTNH_F_ONLINK), at: 8)
        kept.append(request)
      }
    }
    // The kernel makes link-local addresses (scope 253 in struct ifaddrmsg) by itself.
    kept.removeAll { $0.type == UInt16(RTM_NEWADDR) && $0.payload.count > 3 && $0.payload[0] == AF_INET6 && $0.payload[3] == 253 }
    return kept.map(text)
  }

  /// Routes by this interface that somebody set: not those that come with an address (protocol 2 in
  /// struct rtmsg), and no cached ones.
  private static func isWorthKeeping(_ route: NetlinkMessage, _ index: Int32) -> Bool {
    guard let out = route.attribute(Int(RTA_OIF.rawValue), after: 12), out.count == 4,
      route.int32(at: out.lowerBound) == index, let flags = route.int32(at: 8)
    else { return false }
    return route.payload[5] != UInt8(RTPROT_KERNEL) && flags & Int32(RTM_F_CLONED) == 0
  }

  static func text(_ message: NetlinkMessage) -> String {
    ([UInt8(truncatingIfNeeded: message.type), UInt8(message.type >> 8)] + message.payload)
      .map { hex($0, digits: 2) }.joined()
  }

  static func message(_ text: String) -> NetlinkMessage? {
    let digits = text.compactMap(\.hexDigitValue)
    guard digits.count == text.count, digits.count % 2 == 0, digits.count >= 4 else { return nil }
    let bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    return NetlinkMessage(type: UInt16(bytes[0]) | UInt16(bytes[1]) << 8, payload: Array(bytes[2...]))
  }

  /// Makes the interface that is now called `current` what `settings` say. What is already so is
  /// left alone; the first thing that failed is thrown after everything was tried.
  static func restore(_ settings: InterfaceSettings, current: String, nameOnly: Bool) throws(EffectError) {
    let netlink = try Netlink()
    var name = current
    var failure: EffectError?
    func attempt(_ body: () throws(EffectError) -> Void) {
      do throws(EffectError) { try body() } catch where error.errno == EEXIST {} catch { failure = failure ?? error }
    }
    if name != settings.name {
      attempt { () throws(EffectError) in
        try netlink.talk(try link(name, attribute: Int(IFLA_IFNAME), Array(settings.name.utf8) + [0]), flags: 0)
        name = settings.name
      }
    }
    guard !nameOnly else { if let failure { throw failure } else { return } }
    if let mtu = settings.mtu {
      attempt { () throws(EffectError) in
        try netlink.talk(
          try link(name, attribute: Int(IFLA_MTU), NetlinkMessage.words(UInt32(mtu))), flags: 0)
      }
    }
    // SAFETY: if_nametoindex reads the string.
    if let master = settings.master, case let index = unsafe if_nametoindex(master), index > 0 {
      attempt { () throws(EffectError) in
        try netlink.talk(try link(name, attribute: Int(IFLA_MASTER), NetlinkMessage.words(index)), flags: 0)
      }
    }
    if settings.isUp {
      attempt { () throws(EffectError) in try netlink.talk(try link(name, up: true), flags: 0) }
    }
    let index = try self.index(of: name)
    // A route through a gateway needs the route to the gateway: what fails is tried once more.
    var pending = settings.messages.compactMap(message).map { aimed($0, at: index) }
    pending = pending.filter { !isAccepted($0, netlink) }
    for message in pending { attempt { () throws(EffectError) in try netlink.talk(message) } }
    if let failure { throw failure }
  }

  private static func isAccepted(_ message: NetlinkMessage, _ netlink: borrowing Netlink) -> Bool {
    do throws(EffectError) { try netlink.talk(message) } catch { return error.errno == EEXIST }
    return true
  }

  private static func index(of name: String) throws(EffectError) -> Int32 {
    // SAFETY: if_nametoindex reads the string.
    let index = Int32(bitPattern: unsafe if_nametoindex(name))
    guard index > 0 else { throw EffectError(operation: "look up", path: name, errno: ENODEV) }
    return index
  }

  /// RTM_NEWLINK: struct ifinfomsg is family, type (2), index (4), flags (4), mask (4).
  private static func link(
    _ name: String, up: Bool = false, attribute: Int? = nil, _ value: [UInt8] = []
  ) throws(EffectError) -> NetlinkMessage {
    var message = NetlinkMessage(type: UInt16(RTM_NEWLINK), payload: [UInt8](repeating: 0, count: 16))
    message.setInt32(try index(of: name), at: 4)
    if up {
      message.setInt32(1, at: 8)
      message.setInt32(1, at: 12)
    }
    if let attribute { message.append(attribute: attribute, value) }
    return message
  }

  /// The interface may have another number than before.
  private static func aimed(_ message: NetlinkMessage, at index: Int32) -> NetlinkMessage {
    var message = message
    if message.type == UInt16(RTM_NEWADDR) {
      message.setInt32(index, at: 4)
    } else if let out = message.attribute(Int(RTA_OIF.rawValue), after: 12), out.count == 4 {
      message.setInt32(index, at: out.lowerBound)
    }
    return message
  }
}
