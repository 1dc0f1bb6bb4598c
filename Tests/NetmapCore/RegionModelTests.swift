// Random rounds against a model so simple that it is right: sets of who holds what.

import NetmapAPI
import Platform
import Testing

@testable import NetmapCore

@Suite struct RegionModelTests {
  /// What one region should look like.
  private struct Model {
    var users = 0
    var holder: BufferOwner?
    var held: Set<UInt32> = []
    var lists: [UInt32: [UInt32]] = [:]
    var loose: [UInt32] = []
  }

  @Test(arguments: [1, 2, 3]) func `a thousand rounds of enter, leave, take and give, in two regions`(seed: UInt64) throws {
    var random = Seeded(seed)
    let memory = makeMemory()
    let regions = [try memory.global(), try memory.makePrivate(smallSizes, name: "p")]
    var models = [Model(), Model()]
    for _ in 0..<1000 {
      let i = Int(random.next() % 2)
      let region = regions[i], allocator = regions[i].allocator
      var model = models[i]
      switch random.next() % 8 {
      case 0, 1:
        let holder = try region.enter()
        #expect(model.holder == nil || model.holder == holder)
        model.holder = holder
        model.users += 1
      case 2 where model.users > 0:
        model.users -= 1
        let lost = region.leave()
        #expect(lost == (model.users == 0 ? model.held.count : 0))
        if model.users == 0 { model = Model() }
      case 3, 4:
        guard let holder = model.holder else { continue }
        let wanted = Int(random.next() % 20)
        let (head, got) = allocator.allocateExtra(wanted, holder: holder)
        #expect(got == min(wanted, 62 - model.held.count))
        if got > 0 {
          let taken = Set((0..<64 as Range<UInt32>).filter { allocator.ledger.isHeld($0, by: holder) }).subtracting(model.held)
          #expect(taken.count == got)
          model.lists[head] = Array(taken)
          model.held.formUnion(taken)
        }
      case 5:
        guard let holder = model.holder, let (head, list) = model.lists.randomElement(using: &random) else { continue }
        #expect(allocator.freeExtra(from: head, holder: holder) == ExtraBufferReturn(freed: list.count))
        model.lists[head] = nil
        model.held.subtract(list)
      case 6:
        guard let holder = model.holder else { continue }
        let count = Int(random.next() % 10)
        if let taken = try? allocator.allocateBuffers(count, owner: holder) {
          model.loose += taken
          model.held.formUnion(taken)
        } else {
          #expect(count > 62 - model.held.count)
        }
      default:
        guard let holder = model.holder else { continue }
        let count = min(model.loose.count, Int(random.next() % 10))
        let given = Array(model.loose.suffix(count))
        // Once for real, once more for nothing, and in the other region's name.
        #expect(allocator.freeBuffers(given, owner: holder) == count && allocator.freeBuffers(given, owner: holder) == 0)
        model.loose.removeLast(count)
        model.held.subtract(given)
      }
      models[i] = model
      for (region, model) in zip(regions, models) {
        let figures = region.statistics
        #expect(figures.users == model.users && figures.freeBuffers == 62 - model.held.count)
        for index in 0..<64 as Range<UInt32> {
          let owner = region.allocator.ledger.owner(of: index)
          #expect(owner == (index < 2 ? .reserved : model.held.contains(index) ? model.holder ?? .nobody : .nobody))
        }
      }
    }
    for (region, model) in zip(regions, models) {
      for left in (0..<model.users).reversed() { #expect(region.leave() == (left == 0 ? model.held.count : 0)) }
    }
    #expect(memory.leakReport().isEmpty && memory.statistics.allSatisfy { $0.freeBuffers == 62 && $0.users == 0 })
  }

  @Test func `threads that open and close regions never see one number twice`() throws {
    let memory = makeMemory()
    let live = Guarded<Set<UInt16>>([]), wrong = Guarded(0)
    try onThreads(4) { thread in
      var random = Seeded(UInt64(thread))
      for _ in 0..<60 {
        guard let region = try? memory.makePrivate(smallSizes, name: "t\(thread)") else {
          wrong.withLock { $0 += 1 }
          return
        }
        let id = region.id
        let isNew = live.withLock { $0.insert(id).inserted }
        let found = memory.region(id)
        let entered = try? region.enter()
        if !isNew || found !== region || found?.name != "t\(thread)" || entered == nil { wrong.withLock { $0 += 1 } }
        if random.next() % 2 == 0 { _ = try? region.allocator.allocateBuffers(3, owner: entered ?? .nobody) }
        region.leave()
        live.withLock { _ = $0.remove(id) }
      }
    }
    #expect(wrong.withLock { $0 } == 0 && memory.regions.isEmpty)
  }
}

/// Runs `body` on `count` threads and waits for all.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
  guard count > 0 else { return }
  let thread = try JoinedThread(name: "test \(count)") { body(count - 1) }
  try onThreads(count - 1, body)
  thread.join()
}
