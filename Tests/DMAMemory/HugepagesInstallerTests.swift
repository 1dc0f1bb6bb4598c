import CRingway
import Glibc
import Platform
import Testing

@testable import DMAMemory

/// Records mounts in the fake root's table, as the kernel would.
private final class FakeMounter: HugetlbMounter {
  let root: FakeRoot
  var calls: [String] = []
  var answer: Int32 = 0
  init(_ root: FakeRoot) { self.root = root }

  func mount(path: String, options: String) -> Int32 {
    calls.append("\(path.dropFirst(root.path.count)) \(options)")
    let table = (root.read("/proc/self/mounts") ?? "") + "none \(path.dropFirst(root.path.count)) hugetlbfs rw,\(options) 0 0\n"
    try? root.file("/proc/self/mounts", table)
    return answer
  }
}

@Suite struct HugepagesInstallerTests {
  private let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
  private func node(_ node: Int) -> String { "/sys/devices/system/node/node\(node)/hugepages/hugepages-2048kB/nr_hugepages" }

  private func machine(_ nodes: [(total: Int, free: Int)] = [(4, 4), (0, 0)]) throws -> FakeRoot {
    let root = try FakeRoot()
    try root.pools(nodes: nodes)
    try root.file("/proc/self/mounts", "proc /proc proc rw 0 0\n")
    try root.file("/etc/group", "root:x:0:\nringway:x:1234:alice\n")
    try root.directory("/etc/systemd/system")
    return root
  }

  private func installer(_ text: String, _ root: FakeRoot, _ mounter: FakeMounter? = nil) throws -> HugepagesInstaller {
    try HugepagesInstaller(
      HugepagesConfiguration(parsing: text.utf8), root: root.path, mounter: mounter ?? FakeMounter(root))
  }

  @Test func `a plan changes nothing, and carried out it says what was done`() throws {
    let root = try machine()
    let mounter = FakeMounter(root)
    let installer = try installer("pages size=2M count=8\nmount size=2M path=/mnt/huge group=ringway mode=0770", root, mounter)
    let steps = try installer.plan()
    #expect(root.line(pool) == "4" && mounter.calls.isEmpty)
    #expect(
      steps.map(\.description) == [
        "reserve 8 pages of 2 MiB (now 4): write 8 to \(pool)", "make directory /mnt/huge",
        "mount hugetlbfs on /mnt/huge: pagesize=2M,mode=0770,gid=1234",
      ])
    let reports = installer.apply(steps)
    #expect(reports.allSatisfy { $0.failure == nil })
    #expect(root.line(pool) == "8")
    #expect(mounter.calls == ["/mnt/huge pagesize=2M,mode=0770,gid=1234"])
  }

  @Test func `a second run finds nothing to do`() throws {
    let root = try machine()
    let text = "pages size=2M count=8\nmount size=2M path=/mnt/huge group=\(getegid()) mode=0755"
    let installer = try installer(text, root)
    _ = installer.apply(try installer.plan())
    let again = try installer.plan()
    #expect(again.count == 2)
    for step in again {
      guard case .keep = step else {
        Issue.record("\(step)")
        continue
      }
    }
  }

  @Test func `each node, one node, and never fewer than there are`() throws {
    let root = try machine([(4, 4), (0, 0)])
    let each = try installer("pages size=2M count=2 node=each", root).plan()
    #expect(each.count == 2)
    #expect(each.first == .keep("4 pages of 2 MiB are reserved on node 0, 2 wanted"))
    #expect(each.last == .reserve(file: node(1), count: 2, present: 0, pageSize: 2 << 20, node: 1))
    let one = try installer("pages size=2M count=9 node=1", root)
    _ = one.apply(try one.plan())
    #expect(root.line(node(1)) == "9" && root.line(node(0)) == "4")
    #expect(throws: HugepagesFailure.memory(.noSuchNode(node: 2))) { try installer("pages size=2M count=1 node=2", root).plan() }
    #expect(throws: HugepagesFailure.memory(.noSuchPageSize(pageSize: 1 << 30, available: [2 << 20]))) {
      try installer("pages size=1G count=1", root).plan()
    }
  }

  @Test func `mounts that cannot be are told with their line`() throws {
    let root = try machine()
    try root.file("/proc/self/mounts", "tmpfs /mnt/a\\040b tmpfs rw 0 0\nnone /mnt/g hugetlbfs rw,pagesize=1024M 0 0\n")
    #expect(throws: HugepagesFailure.otherMount(path: "/mnt/a b", what: "a file system of type tmpfs", line: 2)) {
      try installer("\nmount size=2M path=\"/mnt/a b\"", root).plan()
    }
    #expect(throws: HugepagesFailure.otherMount(path: "/mnt/g", what: "a hugetlbfs with pages of 1 GiB", line: 1)) {
      try installer("mount size=2M path=/mnt/g", root).plan()
    }
    #expect(throws: HugepagesFailure.noSuchGroup("nobody-here", line: 1)) {
      try installer("mount size=2M path=/mnt/x group=nobody-here", root).plan()
    }
  }

  @Test func `a mount that fails is reported and the rest goes on`() throws {
    let root = try machine()
    let mounter = FakeMounter(root)
    mounter.answer = EPERM
    let installer = try installer("pages size=2M count=8\nmount size=2M path=/mnt/huge", root, mounter)
    let failures = installer.apply(try installer.plan()).compactMap(\.failure)
    #expect(failures == [.system(operation: "mount hugetlbfs on", path: "/mnt/huge", errno: EPERM)])
    #expect(failures.first?.isPermission == true)
    #expect(root.line(pool) == "8")
  }

  @Test func `a kernel that finds fewer pages is told on`() throws {
    let root = try machine()
    let installer = try installer("pages size=2M count=8 node=1", root)
    let steps = try installer.plan()
    // From now on the number that is written is not the number that is read.
    #expect(unsafe unlink(root.path + node(1)) == 0)
    #expect(unsafe symlink("/dev/null", root.path + node(1)) == 0)
    let failure = try #require(installer.apply(steps).first?.failure)
    #expect(failure == .pagesNotFound(wanted: 8, got: 0, pageSize: 2 << 20, node: 1))
    #expect(failure.description.contains("`hugepagesz=2M hugepages=1:8`"))
  }

  @Test func `what persists is written once, kept up to date, and can be forgotten`() throws {
    let root = try machine()
    let unit = "/etc/systemd/system/mnt-huge\\x2d2M.mount"
    let link = "/etc/systemd/system/sysinit.target.wants/mnt-huge\\x2d2M.mount"
    let first = try installer("pages size=2M count=8 node=1\nmount size=2M path=/mnt/huge-2M group=ringway", root)
    let reports = first.apply(try first.plan(persist: true))
    #expect(reports.allSatisfy { $0.failure == nil }, "\(reports)")
    #expect(root.read("/etc/tmpfiles.d/ringway-hugepages.conf")?.hasSuffix("\nw \(node(1)) - - - - 8\n") == true)
    let text = try #require(root.read(unit))
    #expect(text.contains("\nWhere=/mnt/huge-2M\n") && text.contains("\nOptions=pagesize=2M,mode=0770,gid=1234,nosuid,nodev,noexec\n"))
    #expect(try Files.linkTarget(root.path + link) == "../mnt-huge\\x2d2M.mount")
    #expect(try first.planPersistence().allSatisfy { if case .keep = $0 { true } else { false } })

    let second = try installer("pages size=2M count=8", root)
    let changes = try second.planPersistence()
    #expect(changes.contains(.remove(unit)) && changes.contains(.remove(link)))
    _ = second.apply(changes)
    #expect(root.read(unit) == nil && root.read("/etc/tmpfiles.d/ringway-hugepages.conf") != nil)
    let end = second.apply(second.planForgetting())
    #expect(end.count == 1 && root.read("/etc/tmpfiles.d/ringway-hugepages.conf") == nil)
  }

  @Test func `files that somebody else wrote are left alone`() throws {
    let root = try machine()
    try root.file("/etc/systemd/system/mnt-huge.mount", "[Mount]\n")
    let installer = try installer("mount size=2M path=/mnt/huge", root)
    #expect(throws: HugepagesFailure.notOurs("/etc/systemd/system/mnt-huge.mount")) { try installer.planPersistence() }
    #expect(installer.planForgetting().isEmpty)
    #expect(root.read("/etc/systemd/system/mnt-huge.mount") == "[Mount]\n")
    let bare = try FakeRoot()
    try bare.pools(nodes: [(1, 1)])
    #expect(throws: HugepagesFailure.noSystemd) { try self.installer("pages size=2M count=1", bare).plan(persist: true) }
  }

  @Test func `unit names are those that systemd-escape makes`() {
    #expect(HugepagesInstaller.unitName("/dev/hugepages-2M") == "dev-hugepages\\x2d2M.mount")
    #expect(HugepagesInstaller.unitName("/mnt/.a b/ü") == "mnt-.a\\x20b-\\xc3\\xbc.mount")
    #expect(HugepagesInstaller.unitName("/.x") == "\\x2ex.mount")
  }

  @Test(.enabled(if: Lab.isRoot, Lab.reason)) func `on this machine: pages and a mount, for real`() throws {
    try Lab.reserve(4)
    let root = try FakeRoot()
    let path = root.path + "/huge"
    defer { _ = unsafe umount2(path, Int32(MNT_DETACH)) }
    let text = "pages size=2M count=1\nmount size=2M path=\(path) group=7 mode=0750"
    let installer = HugepagesInstaller(try HugepagesConfiguration(parsing: text.utf8))
    #expect(installer.apply(try installer.plan()).allSatisfy { $0.failure == nil })
    var status = stat()
    #expect(unsafe stat(path, &status) == 0)
    #expect(status.st_gid == 7 && status.st_mode & 0o7777 == 0o750)
    #expect(try installer.plan().allSatisfy { if case .keep = $0 { true } else { false } })
    // A mount with other rights is mended in place.
    let other = HugepagesInstaller(try HugepagesConfiguration(parsing: "mount size=2M path=\(path) mode=0700".utf8))
    #expect(try other.plan() == [.permit(path: path, group: 0, mode: 0o700)])
    #expect(other.apply(try other.plan()).allSatisfy { $0.failure == nil })
    #expect(unsafe stat(path, &status) == 0)
    #expect(status.st_gid == 0 && status.st_mode & 0o7777 == 0o700)
  }
}
