// One bind or unbind at a time on a machine (flock(2)); the kernel drops the lock of a dead process.

import Glibc

struct BindLock: ~Copyable {
  private let descriptor: Int32

  /// Waits up to `patience` milliseconds.
  init<Effects: SystemEffects>(
    roots: SystemRoots, effects: Effects, patience: Int = 10_000
  ) throws(BindError) {
    try attempt { () throws(EffectError) in try effects.makeDirectory(roots.journals) }
    // Journals say what is written to the kernel: nobody else may have put them there.
    guard let owner = SystemFiles.ownership(roots.journals), owner.user == geteuid(), owner.mode & 0o022 == 0 else {
      throw .untrusted(path: roots.journals)
    }
    let path = roots.journals + "/lock"
    // SAFETY: the path is a string that lives for the call.
    let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw .effect(EffectError(operation: "open", path: path, errno: errno)) }
    var waited = 0
    while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      if waited >= patience {
        close(descriptor)
        throw .locked(path: path, holder: "process \(SystemFiles.text(path) ?? "unknown")")
      }
      usleep(20_000)
      waited += 20
    }
    self.descriptor = descriptor
    let text = Array("\(getpid())\n".utf8)
    ftruncate(descriptor, 0)
    // SAFETY: pwrite reads the array's own bytes. The text is for people; nothing depends on it.
    _ = unsafe text.withUnsafeBytes { unsafe pwrite(descriptor, $0.baseAddress, $0.count, 0) }
  }

  /// Lets the next one in.
  consuming func release() {}

  deinit { close(descriptor) }
}

/// Milliseconds since boot, sleep included: a deadline that clock changes do not move.
public func bootMilliseconds() -> UInt64 {
  var time = timespec()
  // SAFETY: clock_gettime fills the structure given.
  unsafe clock_gettime(CLOCK_BOOTTIME, &time)
  return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}
