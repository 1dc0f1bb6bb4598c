// Lists of extra buffers, as honest programs leave them and as hostile ones do.

import CRingway
import Platform
import Testing

@testable import NetmapCore

/// A region, and raw access to the lists as a program has it.
private struct Bench {
  let region: NetmapRegion
  let holder: BufferOwner
  var allocator: NetmapAllocator { region.allocator }
  var free: Int { region.statistics.freeBuffers }

  init() throws {
    region = try makeMemory().global()
    holder = try region.enter()
  }
  func next(_ index: UInt32) -> UInt32 { unsafe rw_read32(allocator.pointer(ofBuffer: index)) }
  func link(_ index: UInt32, to next: UInt32) { unsafe rw_write32(allocator.pointer(ofBuffer: index), next) }
  func list(_ head: UInt32) -> [UInt32] {
    var indices: [UInt32] = [], at = head
    while at != 0, indices.count < 100 {
      indices.append(at)
      at = next(at)
    }
    return indices
  }
}

@Suite struct ExtraBufferTests {
  @Test func `a list is linked by the first four bytes and ends with 0`() throws {
    let bench = try Bench()
    let (head, count) = bench.allocator.allocateExtra(5, holder: bench.holder)
    let list = bench.list(head)
    #expect(count == 5 && list.count == 5 && Set(list).count == 5 && bench.free == 57)
    for index in list { #expect(bench.allocator.ledger.isHeld(index, by: bench.holder)) }
    #expect(bench.allocator.freeExtra(from: head, holder: bench.holder) == ExtraBufferReturn(freed: 5))
    #expect(bench.free == 62)
  }

  @Test func `there are as many as there are free, and none for nonsense`() throws {
    let bench = try Bench()
    #expect(bench.allocator.allocateExtra(0, holder: bench.holder) == (0, 0))
    #expect(bench.allocator.allocateExtra(-3, holder: bench.holder) == (0, 0))
    #expect(bench.allocator.allocateExtra(5, holder: .nobody) == (0, 0))
    let all = bench.allocator.allocateExtra(.max, holder: bench.holder)
    #expect(all.count == 62 && bench.free == 0)
    #expect(bench.allocator.allocateExtra(1, holder: bench.holder) == (0, 0))
    #expect(bench.allocator.freeExtra(from: all.head, holder: bench.holder).freed == 62)
    #expect(bench.allocator.freeExtra(from: 0, holder: bench.holder) == ExtraBufferReturn())
  }

  @Test func `a loop ends where it closes`() throws {
    for back in 0..<6 {
      let bench = try Bench()
      let list = bench.list(bench.allocator.allocateExtra(6, holder: bench.holder).head)
      bench.link(list[5], to: list[back])
      #expect(bench.allocator.freeExtra(from: list[0], holder: bench.holder) == ExtraBufferReturn(freed: 6, isBroken: true))
      #expect(bench.free == 62 && bench.region.leave() == 0)
    }
  }

  @Test(arguments: [1, 64, 65, 1 << 16, UInt32.max])
  func `a list that leads outside ends there, and the rest comes back at the end`(bad: UInt32) throws {
    let bench = try Bench()
    let list = bench.list(bench.allocator.allocateExtra(6, holder: bench.holder).head)
    bench.link(list[2], to: bad)
    #expect(bench.allocator.freeExtra(from: list[0], holder: bench.holder) == ExtraBufferReturn(freed: 3, isBroken: true))
    #expect(bench.allocator.freeExtra(from: bad, holder: bench.holder) == ExtraBufferReturn(freed: 0, isBroken: true))
    #expect(bench.free == 59 && bench.region.leave() == 3 && bench.free == 62)
  }

  @Test func `others' buffers stay theirs: the stack's, a card's, free ones`() throws {
    let bench = try Bench()
    let card = try bench.allocator.registerOwner("card")
    let theirs = try bench.allocator.allocateBuffers(1, owner: card)[0], stacks = try bench.allocator.allocateBuffers(1)[0]
    for foreign in [theirs, stacks, 63] {
      let list = bench.list(bench.allocator.allocateExtra(3, holder: bench.holder).head)
      bench.link(list[1], to: foreign)
      #expect(bench.allocator.freeExtra(from: list[0], holder: bench.holder) == ExtraBufferReturn(freed: 2, isBroken: true))
      bench.link(list[2], to: 0)
      #expect(bench.allocator.freeExtra(from: list[2], holder: bench.holder) == ExtraBufferReturn(freed: 1))
    }
    #expect(bench.allocator.ledger.isHeld(theirs, by: card) && bench.allocator.ledger.isHeld(stacks, by: .stack))
  }

  @Test func `two crossed lists give each buffer back once`() throws {
    let bench = try Bench()
    let one = bench.list(bench.allocator.allocateExtra(4, holder: bench.holder).head)
    let two = bench.list(bench.allocator.allocateExtra(4, holder: bench.holder).head)
    bench.link(one[1], to: two[1])
    bench.link(two[3], to: one[2])
    #expect(bench.allocator.freeExtra(from: one[0], holder: bench.holder) == ExtraBufferReturn(freed: 7))
    #expect(bench.allocator.freeExtra(from: two[0], holder: bench.holder) == ExtraBufferReturn(freed: 1, isBroken: true))
    #expect(bench.free == 62)
  }

  @Test func `a program that rewrites links while they are read loses nothing for good`() throws {
    for round in 0..<50 {
      let bench = try Bench()
      let (head, count) = bench.allocator.allocateExtra(40, holder: bench.holder)
      #expect(count == 40)
      let base = unsafe UInt(bitPattern: bench.allocator.bufferBase)
      let writer = try JoinedThread(name: "hostile") {
        var random = Seeded(UInt64(round))
        for _ in 0..<2000 {
          // SAFETY: below the region's 64 buffers of 2048 bytes.
          if let at = unsafe UnsafeMutableRawPointer(bitPattern: base + UInt(random.next() % 64) * 2048) {
            unsafe rw_write32(at, UInt32(truncatingIfNeeded: random.next() % 70))
          }
        }
      }
      let freed = bench.allocator.freeExtra(from: head, holder: bench.holder).freed
      writer.join()
      #expect(freed >= 1 && freed <= 40 && bench.allocator.held(by: bench.holder) == 40 - freed)
      #expect(bench.region.leave() == 40 - freed && bench.free == 62)
    }
  }
}
