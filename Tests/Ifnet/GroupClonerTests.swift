// Groups, and interfaces that are made by name.

import Netisr
import Platform
import Testing

@testable import Ifnet

@Suite struct GroupTests {
  @Test("Case 24: \"lan0\" as a group EINVAL")
  func digitAtTheEnd() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    #expect(bench.refusal("em0", .joinGroup("lan0")) == .EINVAL)
    #expect(bench.refusal("em0", .joinGroup("")) == .EINVAL)
    #expect(bench.refusal("em0", .joinGroup("sixteenletterrrr")) == .ENAMETOOLONG)
    #expect(bench.refusal("em0", .joinGroup("fifteenletterss")) == nil)
  }

  @Test("Case 25: twice EEXIST; non-member ENOENT")
  func twice() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    _ = bench.seen
    try bench.ask("em0", .joinGroup("lan"))
    #expect(bench.refusal("em0", .joinGroup("lan")) == .EEXIST)
    #expect(bench.refusal("em0", .leaveGroup("wan")) == .ENOENT)
    #expect(bench.seen == ["em0 groupsChanged"])
  }

  @Test("Case 26: last member leaves -> members ENOENT")
  func lastMember() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    let em1 = try bench.attach("em1")
    try bench.ask("em0", .joinGroup("lan"))
    try bench.ask("em1", .joinGroup("lan"))
    #expect(bench.table.groupNames == ["all", "lan"])
    try bench.ask("em0", .leaveGroup("lan"))
    #expect(try bench.table.perform(.groupMembers(group: "lan", length: 16), by: Bench.user) == .names(["em1"], bytes: 16))
    bench.table.detach(em1)
    #expect(bench.refusal(.groupMembers(group: "lan", length: 16)) == .ENOENT)
    #expect(bench.table.groupNames == ["all"])
  }

  @Test("Case 27: length 0 -> size; short -> EINVAL")
  func lengths() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    try bench.ask("em0", .joinGroup("lan"))
    #expect(try bench.ask("em0", .groups(length: 0)) == .needed(bytes: 32))
    #expect(bench.refusal("em0", .groups(length: 31)) == .EINVAL)
    #expect(bench.refusal("em0", .groups(length: -1)) == .EINVAL)
    #expect(try bench.ask("em0", .groups(length: 32)) == .names(["all", "lan"], bytes: 32))
    #expect(try bench.table.perform(.groupMembers(group: "all", length: 0), by: Bench.user) == .needed(bytes: 16))
    #expect(bench.refusal(.groupMembers(group: "all", length: 15)) == .EINVAL)
    #expect(bench.refusal(.groupMembers(group: "none", length: 0)) == .ENOENT)
  }
}

/// Makes "tap"s and "pair"s.
final class TestCloner: InterfaceCloner {
  let name: String
  let minimumUnits: Int
  let maximumUnit: Int
  let canDestroy: Bool
  let refusal = Guarded<InterfaceError?>(nil)
  let requests = Guarded<[CloneRequest]>([])
  init(_ name: String, minimum: Int = 0, maximum: Int = 100, canDestroy: Bool = true) {
    self.name = name
    minimumUnits = minimum
    maximumUnit = maximum
    self.canDestroy = canDestroy
  }
  func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface {
    requests.withLock { $0.append(request) }
    if let refusal = refusal.withLock({ $0 }) { throw refusal }
    var options = InterfaceOptions(name, unit: request.unit)
    options.vnet = request.vnet
    if name == "pair" { options.driverName = "pair\(request.unit)a"; options.unit = nil }
    let made = try table.attach(options, driver: NotingDriver())
    if name == "pair" {
      options.driverName = "pair\(request.unit)b"
      table.adopt(try table.attach(options, driver: NotingDriver()), cloner: name, unit: request.unit)
    }
    return made
  }
  func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError) {
    if let refusal = refusal.withLock({ $0 }) { throw refusal }
    if name == "pair" {
      for end in table.interfaces where end.driverName.dropLast() == interface.driverName.dropLast() { table.detach(end) }
    } else {
      table.detach(interface)
    }
  }
}

@Suite struct ClonerTests {
  @Test("Case 61: clone without unit -> lowest unit")
  func lowestUnit() throws {
    let bench = try Bench()
    try bench.table.register(TestCloner("tap"))
    #expect(try bench.table.perform(.create(name: "tap"), by: Bench.root) == .created("tap0"))
    #expect(try bench.table.perform(.create(name: "tap2"), by: Bench.root) == .created("tap2"))
    #expect(try bench.table.perform(.create(name: "tap"), by: Bench.root) == .created("tap1"))
    #expect(try bench.table.perform(.create(name: "tap"), by: Bench.root) == .created("tap3"))
    _ = try bench.table.perform(.destroy(name: "tap1"), by: Bench.root)
    #expect(try bench.table.perform(.create(name: "tap"), by: Bench.root) == .created("tap1"))
  }

  @Test func errors() throws {
    let bench = try Bench()
    try bench.table.register(TestCloner("tap", minimum: 1, maximum: 2))
    try bench.table.register(TestCloner("fixed", canDestroy: false))
    #expect(bench.table.interfaces.map(\.name) == ["tap0"])
    #expect(errno { try bench.table.register(TestCloner("tap")) } == .EEXIST)
    #expect(errno { try bench.table.register(TestCloner("tap1")) } == .EINVAL)
    func create(_ name: String) -> InterfaceErrno? { bench.refusal(.create(name: name)) }
    func destroy(_ name: String) -> InterfaceErrno? { bench.refusal(.destroy(name: name)) }
    #expect(create("tup") == .EINVAL && create("tap01") == .EINVAL && create("tap1x") == .EINVAL && create("") == .EINVAL)
    #expect(create("tap-1") == .EINVAL && create("tap99999999999999999999") == .EINVAL)
    #expect(create("tap0") == .EEXIST)
    #expect(create("tap3") == .ENXIO)
    #expect(create("tap1") == nil && create("tap2") == nil)
    #expect(create("tap") == .ENOSPC)
    #expect(destroy("tup0") == .EINVAL && destroy("tap01") == .EINVAL && destroy("tap") == .EINVAL)
    #expect(destroy("tap0") == .EINVAL)
    #expect(destroy("tap1") == nil && destroy("tap1") == .ENXIO)
    #expect(create("fixed0") == nil && destroy("fixed0") == .EOPNOTSUPP)
    _ = try bench.attach("em0")
    #expect(destroy("em0") == .EINVAL)
  }

  @Test func listing() throws {
    let bench = try Bench()
    for name in ["tap", "epair", "vlan"] { try bench.table.register(TestCloner(name)) }
    #expect(try bench.table.perform(.cloners(count: 2), by: Bench.user) == .cloners(["tap", "epair"], total: 3))
    #expect(try bench.table.perform(.cloners(count: 0), by: Bench.user) == .cloners([], total: 3))
    #expect(try bench.table.perform(.cloners(count: 9), by: Bench.user) == .cloners(["tap", "epair", "vlan"], total: 3))
    #expect(bench.refusal(.cloners(count: -1)) == .EINVAL)
    bench.table.unregisterCloner("tap")
    #expect(bench.refusal(.create(name: "tap")) == .EINVAL)
  }

  @Test("\"tap01\" is not \"tap1\"; a new name does not keep it from being destroyed")
  func renaming() throws {
    let bench = try Bench()
    try bench.table.register(TestCloner("tap"))
    _ = try bench.table.perform(.create(name: "tap1"), by: Bench.root)
    try bench.ask("tap1", .rename("lan"))
    // Its unit stays its own.
    #expect(bench.refusal(.create(name: "tap1")) == .EEXIST)
    _ = try bench.table.perform(.destroy(name: "lan"), by: Bench.root)
    #expect(bench.table.interfaces.isEmpty)
    #expect(bench.refusal(.create(name: "tap1")) == nil)
    // A name that somebody else has taken is not given again.
    _ = try bench.attach("em0")
    try bench.ask("em0", .rename("tap0"))
    #expect(bench.refusal(.create(name: "tap0")) == .EEXIST)
    #expect(try bench.table.perform(.create(name: "tap"), by: Bench.root) == .created("tap2"))
  }

  @Test func pairsShareAUnit() throws {
    let bench = try Bench()
    try bench.table.register(TestCloner("pair"))
    #expect(try bench.table.perform(.create(name: "pair"), by: Bench.root) == .created("pair0a"))
    #expect(bench.table.interfaces.count == 2)
    #expect(bench.refusal(.create(name: "pair0")) == .EEXIST)
    try bench.ask("pair0b", .rename("inside"))
    _ = try bench.table.perform(.destroy(name: "inside"), by: Bench.root)
    #expect(bench.table.interfaces.isEmpty)
    #expect(try bench.table.perform(.create(name: "pair0"), by: Bench.root) == .created("pair0a"))
  }

  @Test func whatFailsLeavesNothing() throws {
    let bench = try Bench()
    let cloner = TestCloner("tap")
    try bench.table.register(cloner)
    cloner.refusal.withLock { $0 = InterfaceError(.EIO, "no") }
    #expect(bench.refusal(.create(name: "tap4", parameters: ["peer": "x"])) == .EIO)
    #expect(cloner.requests.withLock { $0 } == [CloneRequest(unit: 4, parameters: ["peer": "x"])])
    cloner.refusal.withLock { $0 = nil }
    #expect(bench.refusal(.create(name: "tap4")) == nil)
    cloner.refusal.withLock { $0 = InterfaceError(.EBUSY, "no") }
    #expect(bench.refusal(.destroy(name: "tap4")) == .EBUSY)
    #expect(bench.refusal(.create(name: "tap4")) == .EEXIST)
    // An interface that goes without its cloner gives its unit back as well.
    cloner.refusal.withLock { $0 = nil }
    bench.table.detach(try #require(bench.table.interface(named: "tap4")))
    #expect(bench.refusal(.create(name: "tap4")) == nil)
  }

  @Test func clonesBelongToTheAskersInstance() throws {
    let bench = try Bench()
    try bench.table.register(TestCloner("tap"))
    let other = Credentials(uid: 0, gids: [], isPrivileged: true, vnet: Vnet(rawValue: 2))
    #expect(try bench.table.perform(.create(name: "tap"), by: other) == .created("tap0"))
    #expect(bench.table.interface(named: "tap0")?.vnet == Vnet(rawValue: 2))
    #expect(bench.refusal(.destroy(name: "tap0")) == .ENXIO)
    #expect(bench.refusal(.destroy(name: "tap0"), by: other) == nil)
  }
}
