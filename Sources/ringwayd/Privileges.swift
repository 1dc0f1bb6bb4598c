// The daemon gives up what it no longer needs, when everything is open.

import CRingway
import Control
import ControlClient
import Ringway

/// Who the daemon becomes.
struct TargetUser: Equatable {
  var name: String
  var uid: UInt32
  var gid: UInt32
  var groups: [UInt32]

  /// EX_CONFIG when there is no such user or group.
  init(_ section: DaemonSection, control: String?, passwd: String = "/etc/passwd", group: String = "/etc/group") throws(DaemonFailure) {
    guard let user = section.user, let account = Accounts.user(user, file: passwd) else {
      throw DaemonFailure(.configuration, "there is no user \"\(section.user ?? "")\".", hint: "Make it: useradd --system \(section.user ?? "ringway"); or take daemon.user out.")
    }
    (name, uid, gid) = (account.name, account.uid, account.gid)
    if let wanted = section.group {
      guard let number = Accounts.group(wanted, file: group) else { throw DaemonFailure(.configuration, "there is no group \"\(wanted)\".", hint: "Make it: groupadd --system \(wanted)") }
      gid = number
    }
    groups = Accounts.groups(of: account.name, file: group)
    if let control, let number = Accounts.group(control, file: group), !groups.contains(number) { groups.append(number) }
  }
}

enum Privileges {
  /// Becomes the user, for good; no program that it starts gets more. Descriptors that are open stay usable.
  static func drop(to user: TargetUser) throws(DaemonFailure) {
    guard getuid() == 0 else {
      guard getuid() == user.uid else {
        throw DaemonFailure(.permission, "only root can become \(user.name).", hint: "Start ringwayd as root, or take daemon.user out.")
      }
      return
    }
    // Groups first: after setuid nobody may. glibc changes every thread.
    // SAFETY: the array's own elements, as many as are named.
    let groups = unsafe user.groups.withUnsafeBufferPointer { unsafe setgroups($0.count, $0.baseAddress) }
    guard groups == 0 else { throw DaemonFailure(.permission, "the groups of \(user.name) cannot be set.", hint: nil) }
    guard setgid(user.gid) == 0, setuid(user.uid) == 0 else { throw DaemonFailure(.permission, "the daemon cannot become \(user.name).", hint: nil) }
    // A way back would be a hole.
    guard setuid(0) != 0, getuid() == user.uid, geteuid() == user.uid else {
      throw DaemonFailure(.permission, "the daemon could become root again.", hint: nil)
    }
  }

  /// For every thread that is started from here on, and what they start (prctl(2)).
  static func gainNothing() throws(DaemonFailure) {
    guard rw_no_new_privileges() == 0 else { throw DaemonFailure(.failure, "PR_SET_NO_NEW_PRIVS was refused.", hint: nil) }
  }
}
