// PCI functions: finding them, reading what they say of themselves, and taking them from the
// kernel's drivers and giving them back.
//
//     SystemRoots ──► SysfsPCI ──► NetworkFunction ──► BindPlan ──► Binder ──► SystemEffects
//     (/sys, /proc,   (scan)       (what is there)     (may we,     (journal,   (the only place
//      /run, …)                                         in steps)    restore)    that writes)
//
// - `PCIFunction` is what a driver sees of its card; modules above give it a body.
// - `PCIConfig` parses a copy of configuration space. A device is not trusted: every walk is
//   bounded, every offset is checked.
// - Nothing here reads or writes outside the roots it was given, so that tests run it on a
//   directory of their own; every change goes through `SystemEffects`, so that tests can play the
//   kernel and stop the process between any two steps.
//
// Invariants of bind and unbind:
// 1. The journal that says how things were is on the disk before anything is touched, and goes
//    only after everything is back.
// 2. Each step may be repeated: it looks first and changes what differs.
// 3. `driver_override` is set only between a journal's beginning and its end.
// 4. One process at a time, by a lock file.

/// The places where the kernel and the system keep what this module reads and writes.
public struct SystemRoots: Sendable, Hashable {
  /// sysfs(5)
  public var sys: String
  /// proc(5)
  public var proc: String
  public var dev: String
  public var etc: String
  /// Lives until the next boot: journals and locks.
  public var run: String
  /// Where the kernel's modules lie, by release.
  public var modules: String

  public init(
    sys: String = "/sys", proc: String = "/proc", dev: String = "/dev", etc: String = "/etc", run: String = "/run",
    modules: String = "/lib/modules"
  ) {
    self.sys = sys
    self.proc = proc
    self.dev = dev
    self.etc = etc
    self.run = run
    self.modules = modules
  }

  /// All of them below one directory.
  public init(under directory: String) {
    self.init(
      sys: directory + "/sys", proc: directory + "/proc", dev: directory + "/dev", etc: directory + "/etc",
      run: directory + "/run", modules: directory + "/lib/modules")
  }

  func device(_ address: PCIAddress) -> String { "\(sys)/bus/pci/devices/\(address)" }
  func driver(_ name: String) -> String { "\(sys)/bus/pci/drivers/\(name)" }
  var journals: String { run + "/ringway/bind" }
}
