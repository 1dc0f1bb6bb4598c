import DMAMemory
import Synchronization
import Testing

@testable import NetmapCore

@Suite struct PoolTests {
  @Test func `frees that make no sense are refused, counted and change nothing`() throws {
    let allocator = try makeAllocator()
    let mine = try allocator.allocateBuffers(3)
    let port = try allocator.registerOwner("netmap:em0")
    let theirs = try allocator.allocateBuffers(2, owner: port)
    #expect(allocator.freeBuffers([mine[0], mine[0]]) == 1)
    #expect(allocator.freeBuffers([0, 1, 64, UInt32.max]) == 0)
    #expect(allocator.freeBuffers([theirs[0]], owner: .stack) == 0)
    #expect(allocator.freeBuffers([mine[1]], owner: port) == 0)
    let figures = allocator.statistics[2]
    #expect(figures.doubleFrees == 1 && figures.foreignFrees == 4 && figures.wrongOwnerFrees == 2)
    #expect(figures.inUse == 4 && figures.total == 62)
    #expect(allocator.freeBuffers(theirs, owner: port) == 2)
    #expect(allocator.freeBuffers(mine[1...]) == 2)
  }

  @Test func `a request that cannot be met whole takes nothing`() throws {
    let allocator = try makeAllocator()
    let all = try allocator.allocateBuffers(60)
    #expect(throws: NetmapAllocatorError.exhausted(pool: "buffer", wanted: 3, free: 2)) { try allocator.allocateBuffers(3) }
    #expect(throws: NetmapAllocatorError.exhausted(pool: "buffer", wanted: -1, free: 2)) { try allocator.allocateBuffers(-1) }
    #expect(try allocator.allocateBuffers(0) == [])
    #expect(try allocator.allocateBuffers(2).count == 2)
    #expect(allocator.statistics[2].refused == 2)
    #expect(Set(all).count == 60)
  }

  @Test func `nobody can allocate in the name of nobody`() throws {
    let allocator = try makeAllocator()
    #expect(throws: NetmapAllocatorError.self) { try allocator.allocateBuffers(1, owner: .nobody) }
    #expect(throws: NetmapAllocatorError.self) { try allocator.allocateBuffers(1, owner: .reserved) }
    #expect(allocator.statistics[2].inUse == 0)
  }

  @Test func `free, reserved and foreign buffers are nobody's to use or to hand on`() throws {
    let allocator = try makeAllocator()
    let ledger = allocator.ledger
    let port = try allocator.registerOwner("port")
    let mine = try allocator.allocateBuffers(1, owner: port)[0]
    let free = mine + 1
    for (index, owner) in [(free, BufferOwner.nobody), (0, .reserved), (1, .reserved), (64, .reserved), (.max, .reserved)] {
      #expect(ledger.owner(of: index) == owner)
      #expect(!ledger.isHeld(index, by: owner))
      #expect(!ledger.transfer(index, from: owner, to: port))
    }
    #expect(!ledger.transfer(mine, from: port, to: .nobody) && !ledger.transfer(mine, from: port, to: .reserved))
    #expect(ledger.isHeld(mine, by: port))
  }

  @Test func `a retired owner leaves nothing behind`() throws {
    let allocator = try makeAllocator()
    let program = try allocator.registerOwner("a program")
    let kept = try allocator.allocateBuffers(1)
    _ = try allocator.allocateBuffers(5, owner: program)
    _ = try allocator.allocateRing(slots: 8, id: 0, direction: .transmit, owner: program)
    _ = try allocator.allocateInterface(name: "em0", counts: RingCounts(transmit: 1, receive: 1), owner: program)
    #expect(
      allocator.leakReport().description
        == "not given back: 1 of pool interface by a program, 1 of pool ring by a program, 1 of pool buffer by the stack, 5 of pool buffer by a program"
    )
    #expect(allocator.retireOwner(program) == (5, 1, 1))
    #expect(allocator.retireOwner(program) == (0, 0, 0))
    #expect(allocator.retireOwner(.stack) == (0, 0, 0), "only owners that were registered end")
    #expect(allocator.freeBuffers(kept) == 1)
    #expect(allocator.leakReport().isEmpty)
  }

  @Test func `what was not given back is reported at the end`() throws {
    let reported = Mutex<String?>(nil)
    do {
      let allocator = try makeAllocator()
      allocator.atEnd = { report in reported.withLock { $0 = report.description } }
      _ = try allocator.allocateBuffers(3)
    }
    #expect(reported.withLock { $0 } == "not given back: 3 of pool buffer by the stack")
  }

  /// Random calls against a dictionary: whatever the sequence, both agree.
  @Test(arguments: [1, 2, 3, 5, 8, 13, 0xfeed] as [UInt64])
  func `any sequence of calls agrees with a simple model`(seed: UInt64) throws {
    var random = Seeded(seed)
    let allocator = try makeAllocator(buffers: 40)
    let owners = try [BufferOwner.stack, allocator.registerOwner("a"), allocator.registerOwner("b")]
    var model: [UInt32: BufferOwner] = [:]
    var expected = (refused: 0, double: 0, foreign: 0, wrong: 0)
    for _ in 0..<5000 {
      let owner = owners.randomElement(using: &random)!
      switch Int.random(in: 0..<4, using: &random) {
      case 0:
        let wanted = Int.random(in: 0...12, using: &random)
        do throws(NetmapAllocatorError) {
          let taken = try allocator.allocateBuffers(wanted, owner: owner)
          #expect(taken.count == wanted)
          for index in taken {
            #expect(index >= 2 && index < 40 && model[index] == nil)
            model[index] = owner
          }
        } catch {
          #expect(wanted > 38 - model.count)
          expected.refused += 1
        }
      case 1, 2:
        // Any index at all, with or without a claim to it.
        let index = UInt32.random(in: 0...44, using: &random)
        let claim = Bool.random(using: &random) ? owner : nil
        let freed = allocator.freeBuffers([index], owner: claim)
        if index < 2 || index >= 40 {
          expected.foreign += 1
          #expect(freed == 0)
        } else if let holder = model[index] {
          let right = claim == nil || claim == holder
          #expect(freed == (right ? 1 : 0))
          if right { model[index] = nil } else { expected.wrong += 1 }
        } else {
          expected.double += 1
          #expect(freed == 0)
        }
      default:
        let index = UInt32.random(in: 0...44, using: &random)
        let to = owners.randomElement(using: &random)!
        let moved = allocator.ledger.transfer(index, from: owner, to: to)
        #expect(moved == (model[index] == owner))
        if moved { model[index] = to }
      }
      let index = UInt32.random(in: 0...44, using: &random)
      let holder = index < 2 || index >= 40 ? .reserved : model[index] ?? .nobody
      #expect(allocator.ledger.owner(of: index) == holder)
      #expect(allocator.ledger.isHeld(index, by: owner) == (holder == owner))
    }
    let figures = allocator.statistics[2]
    #expect(figures.refused == expected.refused && figures.doubleFrees == expected.double)
    #expect(figures.foreignFrees == expected.foreign && figures.wrongOwnerFrees == expected.wrong)
    #expect(figures.inUse == model.count)
    #expect(allocator.freeBuffers(model.keys) == model.count)
    #expect(Set(try allocator.allocateBuffers(38)) == Set(2..<40))
  }

  @Test(arguments: [1, 2, 3, 99, 1234] as [UInt64])
  func `descriptor ranges never overlap, and all of them come back as one`(seed: UInt64) {
    var random = Seeded(seed)
    let owner = ObjectIdentifier(FakeMapper.self)
    var pool = DescriptorPool(total: 1 << 16)
    var live: [Range<Int>] = []
    for _ in 0..<4000 {
      if live.isEmpty || Int.random(in: 0..<5, using: &random) < 3 {
        let bytes = Int.random(in: -1...(1 << Int.random(in: 1...13, using: &random)), using: &random)
        let alignment = 1 << Int.random(in: 0...12, using: &random)
        guard let (offset, count) = pool.allocate(bytes: bytes, alignment: alignment, owner: owner) else { continue }
        #expect(bytes > 0 && count >= bytes && count % 64 == 0 && offset % max(64, alignment) == 0)
        #expect(offset >= 0 && offset + count <= 1 << 16)
        #expect(live.allSatisfy { !$0.overlaps(offset..<offset + count) })
        live.append(offset..<offset + count)
      } else {
        let gone = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        let (first, second) = (pool.release(gone.lowerBound), pool.release(gone.lowerBound))
        #expect(first && !second)
      }
      #expect(pool.free + live.reduce(0) { $0 + $1.count } == 1 << 16)
      #expect(pool.bytes(of: owner) == live.reduce(0) { $0 + $1.count })
    }
    for range in live { pool.release(range.lowerBound) }
    #expect(pool.holes == [0..<1 << 16])
  }

  @Test func `two workers that are shown one buffer: exactly one gets it`() async throws {
    let allocator = try makeAllocator(buffers: 1024)
    let (program, one, two) = try (
      allocator.registerOwner("program"), allocator.registerOwner("one"), allocator.registerOwner("two")
    )
    let buffers = try allocator.allocateBuffers(1000, owner: program)
    let ledger = allocator.ledger
    let wins = await withTaskGroup(of: Int.self) { group in
      for worker in [one, two] {
        group.addTask { buffers.reduce(0) { $0 + (ledger.transfer($1, from: program, to: worker) ? 1 : 0) } }
      }
      return await group.reduce(0, +)
    }
    #expect(wins == 1000)
    #expect(allocator.retireOwner(one).buffers + allocator.retireOwner(two).buffers == 1000)
  }

  @Test func `many threads at once take and give, and nothing is lost`() async throws {
    let allocator = try makeAllocator(buffers: 512)
    await withTaskGroup(of: Void.self) { group in
      for worker in 0..<8 {
        group.addTask {
          var random = Seeded(UInt64(worker))
          for _ in 0..<500 {
            guard let taken = try? allocator.allocateBuffers(Int.random(in: 1...80, using: &random)) else { continue }
            if allocator.freeBuffers(taken) != taken.count { Issue.record("a buffer was taken twice") }
          }
        }
      }
    }
    let figures = allocator.statistics[2]
    #expect(figures.inUse == 0 && figures.doubleFrees == 0)
  }
}
