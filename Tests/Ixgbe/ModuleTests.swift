// Pluggable modules and the link behind them: read over the two wires, judged, set up.

import DriverKit
import Testing

@testable import Ixgbe

@Suite struct ModuleTests {
  private func bench(_ memory: [UInt8]?, allow: Bool = false, port: Int = 0) throws -> ScriptedBench {
    let bench = try ScriptedBench(ScriptedCard(port: port)) { $0.allowUnsupportedSFP = allow }
    bench.card.space.bus.memory = memory
    return bench
  }

  private static let foreign: [UInt8] = [0x00, 0x90, 0x65]

  @Test func kindsAreToldApart() throws {
    let cases: [([UInt8], PluggableModule.Kind)] = [
      (ScriptedCard.module(ten: 0x10), .tenGigabitFibre), (ScriptedCard.module(ten: 0x20), .tenGigabitFibre),
      (ScriptedCard.module(cable: 4, maker: Self.foreign), .passiveCable),
      (ScriptedCard.module(cable: 8, maker: Self.foreign, cableKind: 4), .activeCable),
      (ScriptedCard.module(one: 8, maker: Self.foreign), .gigabitCopper),
      (ScriptedCard.module(one: 1, maker: Self.foreign), .gigabitFibre),
      (ScriptedCard.module(one: 2), .gigabitFibre),
    ]
    for (memory, kind) in cases {
      let driver = try bench(memory).attach()
      #expect(driver.module?.kind == kind)
      #expect(driver.warnings == [])
    }
    let driver = try bench(ScriptedCard.module(ten: 0x10, one: 1)).attach()
    #expect(driver.module?.hasBothSpeeds == true)
    #expect(driver.module?.maker == "Intel Corp" && driver.module?.makerID == 0x001b21)
  }

  @Test func noModuleIsNoError() throws {
    let bench = try bench(nil)
    let driver = try bench.start()
    #expect(driver.module == nil)
    #expect(driver.link.status == .down)
    // Plugged in later: the next tick finds it and starts the link.
    bench.card.space.bus.memory = ScriptedCard.module(ten: 0x10)
    bench.card.space.writes = []
    #expect(driver.tick() == [])
    #expect(driver.module?.kind == .tenGigabitFibre)
    let written = try #require(bench.card.space.writes.last { $0.offset == 0x42a0 })
    #expect(written.value == 0x7000, "ten gigabit serial, and a restart")
  }

  @Test func aModuleThatIsNotApprovedIsRefusedUnlessAllowed() throws {
    let memory = ScriptedCard.module(ten: 0x10, maker: Self.foreign, name: "FINISAR CORP.")
    guard case .unsupported(_, let what)? = try bench(memory).refusal() else {
      Issue.record("the module was taken")
      return
    }
    #expect(what.contains("FINISAR CORP.") && what.contains("--allow-unsupported-sfp"))
    let driver = try bench(memory, allow: true).attach()
    #expect(driver.module?.kind == .tenGigabitFibre)
    #expect(driver.warnings.count == 1 && driver.warnings[0].contains("not approved"))
    // A board whose EEPROM takes any module.
    let open = try bench(memory)
    open.card.space.nvm[0x2c] = 1
    open.card.space.seal()
    #expect(open.refusal() == nil)
  }

  @Test func whatIsNoSuchModuleIsRefusedAlways() throws {
    for memory in [
      ScriptedCard.module(identifier: 0x0d), ScriptedCard.module(), ScriptedCard.module(cable: 8, cableKind: 0),
    ] {
      guard case .unsupported? = try bench(memory, allow: true).refusal() else {
        Issue.record("taken")
        continue
      }
    }
  }

  /// While frames move, a bad module costs the link, not the port.
  @Test func aRefusedModuleWhileRunningIsSaid() throws {
    let bench = try bench(nil)
    let driver = try bench.start()
    bench.card.space.bus.memory = ScriptedCard.module(ten: 0x10, maker: Self.foreign)
    bench.card.space[0x800] = 1 << 26
    #expect(driver.serviceControl() == [])
    #expect(driver.health == .running && driver.module == nil)
    #expect(driver.warnings.contains { $0.contains("not approved") })
  }

  /// The sequence for the module's kind and the port goes into CORECTL, before the link starts.
  @Test(arguments: [(0, 0x1234), (1, 0x5678)]) func theSequenceIsWritten(port: Int, first: Int) throws {
    let bench = try bench(ScriptedCard.module(ten: 0x10), port: port)
    let space = bench.card.space
    space.nvm[0x2b] = 0x100
    // Kind 3: cable, port 0; 5 and 6: fibre, ports 0 and 1.
    space.nvm.replaceSubrange(0x100..<0x108, with: [0, 3, 0x110, 5, 0x120, 6, 0x130, 0xffff])
    space.nvm.replaceSubrange(0x110..<0x113, with: [0, 0x0bad, 0xffff])
    space.nvm.replaceSubrange(0x120..<0x124, with: [0, 0x1234, 0x0002, 0xffff])
    space.nvm.replaceSubrange(0x130..<0x134, with: [0, 0x5678, 0x0002, 0xffff])
    space.seal()
    _ = try bench.start()
    let core = space.writes.enumerated().filter { $0.element.offset == 0x14f00 }
    #expect(core.map(\.element.value) == [UInt32(first), 2])
    let link = try #require(space.position(of: 0x42a0))
    #expect(core.allSatisfy { $0.offset < link })
  }

  @Test func modulesOfBothSpeedsAreTriedAtBoth() throws {
    let bench = try bench(ScriptedCard.module(ten: 0x10, one: 1))
    let driver = try bench.start(), space = bench.card.space
    #expect(space[0x42a0] >> 13 & 7 == 3)
    #expect(space[0x20] & 1 << 5 != 0, "the faster rate")
    for _ in 0..<3 { _ = driver.tick() }
    #expect(space[0x42a0] >> 13 & 7 == 2)
    #expect(space[0x20] & 1 << 5 == 0)
    for _ in 0..<3 { _ = driver.tick() }
    #expect(space[0x42a0] >> 13 & 7 == 3)
    // Up: no more changes.
    space[0x42a4] = 0x7000_0000
    #expect(driver.tick() == .link)
    #expect(driver.link == LinkState(status: .up, speed: 10000))
    space.writes = []
    for _ in 0..<9 { #expect(driver.tick() == []) }
    #expect(space.position(of: 0x42a0) == nil)
  }

  /// The mode's top bit is turned over and back, each time with a restart.
  @Test func theLinkIsRestartedThroughAnotherMode() throws {
    let bench = try bench(ScriptedCard.module(ten: 0x10))
    _ = try bench.start()
    let modes = bench.card.space.writes.filter { $0.offset == 0x42a0 }.map(\.value)
    #expect(modes == [0xf000, 0x7000])
  }

  @Test func aLinkThatIsUpStaysUp() throws {
    let bench = try bench(ScriptedCard.module(ten: 0x10))
    let space = bench.card.space
    space[0x42a4] = 0x7000_0000
    space[0x42a0] = 0x6000
    _ = try bench.start()
    #expect(space.position(of: 0x42a0) == nil)
    #expect(space.writes.filter { $0.offset == 0 && $0.value & 8 != 0 }.isEmpty, "no link reset")
  }

  @Test func backplanesNegotiateWhatTheEEPROMSays() throws {
    let bench = try ScriptedBench(ScriptedCard(device: 0x10f7))
    bench.card.space[0x42a0] = 0xc000_8000
    bench.card.space[0x42a8] = 1 << 30
    let driver = try bench.start()
    #expect(bench.card.space.bus.bytesSent == 0 && driver.module == nil)
    #expect(bench.card.space.writes.filter { $0.offset == 0x42a0 }.map(\.value) == [0xc000_1000, 0xc000_9000])
    #expect(bench.card.space[0x42a8] & 7 << 28 == 0, "a link that the EEPROM switched off is switched on")
  }

  @Test func theManagementFirmwaresLinkIsLeftAlone() throws {
    let bench = try bench(ScriptedCard.module(ten: 0x10))
    bench.card.space[0x42d0] = 1
    let driver = try bench.start()
    #expect(bench.card.space.position(of: 0x42a0) == nil)
    #expect(driver.warnings.contains { $0.contains("management firmware") })
  }

  /// QSFP+ boards: other places in the module's memory, and a bus that is asked for.
  @Test(arguments: [true, false]) func largeModulesAreReadOverASharedBus(granted: Bool) throws {
    let bench = try ScriptedBench(ScriptedCard(device: 0x1558))
    var memory = [UInt8](repeating: 0, count: 256)
    memory[0] = 13
    memory[131] = 0x10
    memory.replaceSubrange(165..<168, with: [0, 0x1b, 0x21])
    let space = bench.card.space
    space.bus.memory = memory
    space[0x20] = granted ? 2 : 0
    let driver = try bench.attach()
    #expect(driver.module?.kind == (granted ? .tenGigabitFibre : nil))
    #expect((space.bus.bytesSent > 0) == granted)
    #expect(space.position(of: 0x20, where: { $0 & 0x101 == 0x101 }) != nil, "asked for, on a pin that is an output")
    #expect(space[0x20] & 1 == 0, "and given back")
  }

  @Test func theX540sPHYIsWoken() throws {
    let bench = try ScriptedBench(ScriptedCard(device: 0x1528))
    bench.card.space[0x4260] = 0x0800_0000
    let driver = try bench.start()
    let commands = bench.card.space.writes.filter { $0.offset == 0x425c }.map { $0.value & 0x3fff_ffff }
    // Device 30, register 0 is written; device 7, register 0 as well (restart).
    #expect(commands.contains(0x041e_0000) && commands.contains(0x0407_0000))
    #expect(bench.card.space.position(of: 0x4260, where: { $0 & 0x200 != 0 }) != nil)
    #expect(driver.warnings == [])
    #expect(bench.card.space[0x3c00] == 384 << 10)
  }
}
