// Who asks, and whether they may.

internal import CRingway
internal import Platform
internal import SystemPackage

/// The process at the other end of a connection, as the kernel says (SO_PEERCRED, SO_PEERGROUPS).
public struct ControlPeer: Sendable, Equatable {
  public var pid: Int32
  public var uid: UInt32
  /// The primary group first, then the supplementary ones.
  public var groups: [UInt32]

  public init(pid: Int32, uid: UInt32, groups: [UInt32]) {
    self.pid = pid
    self.uid = uid
    self.groups = groups
  }

  /// Of a connected local socket. nil when the kernel does not say: such a peer gets no privileges.
  public init?(of descriptor: Int32) {
    var peer = rw_peer()
    // SAFETY: a local structure of the size that the call is told.
    guard unsafe rw_peer_credentials(descriptor, &peer) == 0 else { return nil }
    // As many groups as a process can have (NGROUPS_MAX).
    var supplementary = [UInt32](repeating: 0, count: 65536)
    // SAFETY: the kernel writes at most the array's elements and says how many.
    let count = unsafe supplementary.withUnsafeMutableBufferPointer { unsafe rw_peer_groups(descriptor, $0.baseAddress!, Int32($0.count)) }
    pid = peer.pid
    uid = peer.uid
    groups = [peer.gid] + supplementary.prefix(max(0, Int(count)))
  }

  /// Root, or a member of the group that the configuration names.
  public func mayChange(group: UInt32?) -> Bool { uid == 0 || group.map(groups.contains) ?? false }
}

/// Users and groups by name, from the machine's own files: passwd(5), group(5).
public enum Accounts {
  public struct User: Sendable, Equatable {
    public var name: String
    public var uid: UInt32
    public var gid: UInt32
  }

  /// A group's number: by name, or the number itself. nil: there is none.
  public static func group(_ name: String, file: String = "/etc/group") -> UInt32? {
    if let number = UInt32(name) { return number }
    return lines(file, fields: 4).first { $0[0] == name }.flatMap { UInt32($0[2]) }
  }

  public static func user(_ name: String, file: String = "/etc/passwd") -> User? {
    for line in lines(file, fields: 7) where line[0] == name || line[2] == name {
      if let uid = UInt32(line[2]), let gid = UInt32(line[3]) { return User(name: line[0], uid: uid, gid: gid) }
    }
    return nil
  }

  /// Groups that list the user as a member.
  public static func groups(of user: String, file: String = "/etc/group") -> [UInt32] {
    lines(file, fields: 4).filter { $0[3].split(separator: ",").contains { $0 == user } }.compactMap { UInt32($0[2]) }
  }

  private static func lines(_ path: String, fields: Int) -> [[String]] {
    let text = (try? Files.read(path)) ?? ""
    return text.split(separator: "\n").map { $0.split(separator: ":", omittingEmptySubsequences: false).map(String.init) }
      .filter { $0.count == fields }
  }
}
