import CRingway
import NetmapAPI
import Testing

@testable import NetmapCore

/// A kring over a real ring, with the program's side written here as raw stores, as a program would.
private final class Bench {
  let allocator: NetmapAllocator
  let holder: BufferOwner, port: BufferOwner
  let kring: Kring
  let slots: ReceiveSlots?
  let count: UInt32 = 8
  var base: UnsafeMutableRawPointer { unsafe kring.ring.base }

  init(_ direction: RingDirection) throws {
    allocator = try makeAllocator()
    holder = try allocator.registerOwner("program")
    port = try allocator.registerOwner("port")
    let memory = try allocator.allocateRing(slots: Int(count), id: 0, direction: direction, owner: holder)
    let buffers = try allocator.allocateBuffers(Int(count), owner: direction == .transmit ? holder : port)
    kring = Kring(
      RingID(direction, 0), memory, ledger: allocator.ledger, bufferSize: allocator.bufferSize, holder: holder,
      wakeup: try KringWakeup())
    slots = direction == .receive ? ReceiveSlots(kring, indices: buffers, port: port) : nil
    if direction == .transmit {
      for (i, index) in buffers.enumerated() { kring.ring.setSlot(UInt32(i), NetmapSlot(bufferIndex: index, length: 60)) }
    }
  }

  func program(head: UInt32, cur: UInt32? = nil, tail: UInt32? = nil) {
    unsafe rw_write32(base + 20, head)
    unsafe rw_write32(base + 24, cur ?? head)
    if let tail { unsafe rw_write32(base + 28, tail) }
  }
  var head: UInt32 { unsafe rw_read32(base + 20) }
  var cur: UInt32 { unsafe rw_read32(base + 24) }
  var tail: UInt32 { unsafe rw_read32(base + 28) }

  /// An adapter that sends at once, and gives `back` slots back.
  func transmit(back: UInt32 = 0) -> Bool {
    guard kring.prologue() != nil else { return false }
    kring.hwcur = kring.rhead
    kring.hwtail = kring.advance(kring.hwtail, by: back)
    kring.finalise()
    return true
  }

  /// An adapter that has `frames` for the program.
  func receive(_ frames: Int = 0) -> Bool {
    guard let released = kring.prologue() else { return false }
    slots?.release(released)
    for _ in 0..<frames where kring.space > 0 {
      if let slots { _ = slots.fill(slots.buffer(kring.hwtail), length: 60, flags: []) }
    }
    kring.finalise()
    return !kring.isFaulted
  }
}

@Suite struct KringTests {
  @Test("A fresh ring: transmit head = cur = 0 and tail = n-1, receive all 0")
  func fresh() throws {
    let sent = try Bench(.transmit), received = try Bench(.receive)
    #expect(sent.head == 0 && sent.cur == 0 && sent.tail == 7)
    #expect(sent.kring.hwcur == 0 && sent.kring.hwtail == 7 && sent.kring.held == 0 && sent.kring.isReady)
    #expect(received.head == 0 && received.cur == 0 && received.tail == 0)
    #expect(received.kring.space == 7 && received.kring.held == 0 && !received.kring.isReady)
  }

  @Test("Transmit: rhead <= head <= cur <= rtail, and everything else resets the ring")
  func transmitBounds() throws {
    // From rhead 5 with rtail 2 (six in a ring of eight): every pair of head and cur.
    for head: UInt32 in 0..<10 {
      for cur: UInt32 in 0..<10 {
        let bench = try Bench(.transmit)
        bench.program(head: 5)
        #expect(bench.transmit(back: 3))
        #expect(bench.kring.rhead == 5 && bench.kring.rtail == 2 && bench.tail == 2)
        bench.program(head: head, cur: cur)
        // 5, 6, 7, 0, 1, 2: the order of the slots the program holds.
        let order: [UInt32] = [5, 6, 7, 0, 1, 2]
        let a = order.firstIndex(of: head), b = order.firstIndex(of: cur)
        let isRight = if let a, let b { a <= b } else { false }
        #expect(bench.transmit() == isRight, "head \(head) cur \(cur)")
        if isRight {
          #expect(bench.kring.rhead == head && bench.kring.rcur == cur && bench.kring.counters.resets == 0)
        } else {
          #expect(bench.head == 5 && bench.cur == 5 && bench.tail == 2, "the trusted values come back")
          #expect(bench.kring.counters.resets == 1 && bench.kring.isFaulted)
        }
      }
    }
  }

  @Test("Receive: hwcur <= head <= cur <= hwtail, and everything else resets the ring")
  func receiveBounds() throws {
    for head: UInt32 in 0..<10 {
      for cur: UInt32 in 0..<10 {
        let bench = try Bench(.receive)
        #expect(bench.receive(6))
        bench.program(head: 6)
        #expect(bench.receive(4))
        #expect(bench.kring.hwcur == 6 && bench.kring.hwtail == 2 && bench.tail == 2)
        bench.program(head: head, cur: cur)
        let order: [UInt32] = [6, 7, 0, 1, 2]
        let a = order.firstIndex(of: head), b = order.firstIndex(of: cur)
        let isRight = if let a, let b { a <= b } else { false }
        #expect(bench.receive() == isRight, "head \(head) cur \(cur)")
        if !isRight { #expect(bench.head == 6 && bench.cur == 6 && bench.tail == 2) }
      }
    }
  }

  @Test("Values far out of range are violations, not traps", arguments: [8, 9, 255, 1 << 16, UInt32.max - 1, UInt32.max])
  func wild(value: UInt32) throws {
    for direction in [RingDirection.transmit, .receive] {
      let bench = try Bench(direction)
      bench.program(head: value, cur: 0)
      #expect(bench.kring.prologue() == nil)
      bench.program(head: 0, cur: value)
      #expect(bench.kring.prologue() == nil)
      #expect(bench.kring.counters.resets == 2 && bench.head == 0 && bench.cur == 0)
      #expect(bench.kring.prologue() != nil && !bench.kring.isFaulted, "a clean sync ends the error")
    }
  }

  @Test("A tail that the program overwrote is restored, and is no violation")
  func tail() throws {
    let bench = try Bench(.transmit)
    bench.program(head: 2, tail: 5)
    #expect(bench.transmit())
    #expect(bench.tail == 7 && bench.kring.counters.tailsRestored == 1 && bench.kring.counters.resets == 0)
  }

  @Test("The program's head counts only at a sync, and is copied once")
  func once() throws {
    let bench = try Bench(.transmit)
    bench.program(head: 3)
    #expect(bench.kring.rhead == 0)
    #expect(bench.kring.prologue()?.to == 3)
    bench.program(head: 5)
    #expect(bench.kring.rhead == 3 && bench.kring.unsent == 3)
  }

  @Test("A reset takes index and length from slots below 2 or past the end, only the length from long ones")
  func sanitise() throws {
    let bench = try Bench(.transmit)
    let good = bench.kring.ring.slot(0).bufferIndex
    let total = UInt32(bench.allocator.bufferCount), size = UInt16(bench.allocator.bufferSize)
    let written: [(UInt32, UInt16)] = [(0, 60), (1, 60), (total, 60), (.max, 60), (good, size + 1), (good, size), (good, .max)]
    for (i, slot) in written.enumerated() {
      bench.kring.ring.setSlot(UInt32(i), NetmapSlot(bufferIndex: slot.0, length: slot.1, flags: .report))
    }
    bench.program(head: 9)
    #expect(bench.kring.prologue() == nil)
    let seen = (0..<7).map { bench.kring.ring.slot($0) }
    #expect(seen.map(\.bufferIndex) == [0, 0, 0, 0, good, good, good])
    #expect(seen.map(\.length) == [0, 0, 0, 0, 0, size, 0])
    #expect(seen.allSatisfy { $0.flags == .report })
    #expect(bench.kring.counters.badIndexes == 3 && bench.kring.counters.badLengths == 2)
  }

  @Test("Two syncs of one ring at once: the second is skipped")
  func busy() throws {
    let bench = try Bench(.transmit)
    check(bench.kring.begin())
    check(!bench.kring.begin())
    bench.kring.end()
    check(bench.kring.begin())
  }

  @Test("Over many rounds one slot stays empty, and the numbers stay in order")
  func rounds() throws {
    let bench = try Bench(.receive)
    var got = 0
    for round in 0..<200 {
      #expect(bench.receive(round % 9))
      let waiting = bench.kring.distance(bench.kring.hwcur, bench.kring.rtail)
      #expect(waiting <= 7 && bench.kring.space == 7 - bench.kring.held)
      let take = UInt32(round * 5 % 8)
      let n = min(take, waiting)
      got += Int(n)
      bench.program(head: bench.kring.advance(bench.kring.hwcur, by: n))
    }
    #expect(bench.receive() && got > 300 && bench.kring.counters.resets == 0)
  }
}

@Suite struct ReceiveSlotsTests {
  @Test("Buffers travel: the program gets the full one, the port the slot's empty one")
  func trade() throws {
    let bench = try Bench(.receive)
    let slots = try #require(bench.slots)
    let full = try bench.allocator.allocateBuffers(1, owner: bench.port)[0]
    let before = slots.buffer(0)
    #expect(bench.kring.prologue() != nil)
    #expect(slots.fill(full, length: 77, flags: []) == before)
    bench.kring.finalise()
    #expect(bench.kring.ring.slot(0) == NetmapSlot(bufferIndex: full, length: 77, flags: .bufferChanged))
    let ledger = bench.allocator.ledger
    #expect(ledger.isHeld(full, by: bench.holder) && ledger.isHeld(before, by: bench.port))
    bench.program(head: 1)
    #expect(bench.receive())
    #expect(ledger.isHeld(full, by: bench.port) && slots.buffer(0) == full, "released: the port's again")
  }

  @Test("A released slot that names what is not the program's resets the ring from there")
  func foreign() throws {
    let stranger: (Bench) throws -> UInt32 = { try $0.allocator.allocateBuffers(1)[0] }
    let spare: (Bench) throws -> UInt32 = { $0.slots?.buffer(6) ?? 0 }
    let twin: (Bench) throws -> UInt32 = { $0.kring.ring.slot(0).bufferIndex }
    for index in [stranger, spare, twin, { _ in 0 }, { _ in 1 }, { UInt32($0.allocator.bufferCount) }, { _ in .max }] {
      let bench = try Bench(.receive)
      #expect(bench.receive(4))
      let bad = try index(bench)
      bench.kring.ring.setSlot(1, NetmapSlot(bufferIndex: bad, length: 60))
      bench.program(head: 3)
      #expect(!bench.receive())
      #expect(bench.head == 1 && bench.cur == 1 && bench.kring.hwcur == 1, "slot 0 was given back, slot 1 was not")
      #expect(bench.kring.ring.slot(1).bufferIndex == 0 && bench.kring.counters.resets == 1)
      #expect(bench.kring.counters.badIndexes >= 1)
      // With a buffer of its own in the slot, the program goes on.
      let own = try bench.allocator.allocateBuffers(1, owner: bench.holder)[0]
      bench.kring.ring.setSlot(1, NetmapSlot(bufferIndex: own, length: 60, flags: .bufferChanged))
      bench.program(head: 3)
      #expect(bench.receive())
      #expect(bench.kring.hwcur == 3)
    }
  }

  @Test("The end of a ring accounts for every buffer, wherever it stands")
  func dissolve() throws {
    for (frames, read) in [(0, 0), (7, 0), (3, 2), (7, 7), (5, 5)] {
      let bench = try Bench(.receive)
      let before = bench.allocator.statistics[2].free
      #expect(bench.receive(frames))
      bench.program(head: UInt32(read))
      #expect(bench.receive(1))
      let slots = try #require(bench.slots)
      // One frame more that the program never sees.
      if bench.kring.space > 0 { _ = slots.fill(slots.buffer(bench.kring.hwtail), length: 99, flags: []) }
      let unshown = slots.takeUnshown()
      #expect(unshown.count == (bench.kring.rtail == bench.kring.hwtail ? 0 : 1) && unshown.allSatisfy { $0.length == 99 })
      let all = slots.dissolve()
      let freed = bench.allocator.freeBuffers(all.port, owner: bench.port) + bench.allocator.freeBuffers(all.program, owner: bench.holder)
      #expect(freed == 8 && bench.allocator.statistics[2].free == before + 8)
    }
  }
}

@Suite struct KringWakeupTests {
  @Test("Nobody is woken who does not wait; who waits is woken once")
  func wake() throws {
    let wakeup = try KringWakeup()
    wakeup.notify()
    #expect(wakeup.count == 0 && !wakeup.isArmed)
    wakeup.arm()
    wakeup.notify()
    #expect(wakeup.count == 1 && wakeup.isArmed)
    wakeup.disarm()
    wakeup.notify()
    #expect(wakeup.count == 1)
  }
}

@Suite struct SelectionTests {
  @Test("Register modes name the rings that netmap names, and no others")
  func modes() {
    let counts = RingCounts(transmit: 2, receive: 2)
    func names(_ mode: RegisterMode, _ flags: RegisterFlags = []) -> [String]? {
      RingSelection(mode, flags: flags).rings(of: counts)?.map(\.description)
    }
    #expect(names(.allNIC) == ["tx 0", "tx 1", "rx 0", "rx 1"])
    #expect(names(.software) == ["host tx 0", "host rx 0"])
    #expect(names(.nicAndSoftware) == ["tx 0", "tx 1", "rx 0", "rx 1", "host tx 0", "host rx 0"])
    #expect(names(.oneNIC(1)) == ["tx 1", "rx 1"] && names(.oneSoftware(0)) == ["host tx 0", "host rx 0"])
    #expect(names(.oneNIC(1), .receiveRingsOnly) == ["rx 1"] && names(.allNIC, .transmitRingsOnly) == ["tx 0", "tx 1"])
    #expect(names(.null) == [])
    #expect(names(.oneNIC(2)) == nil && names(.oneNIC(-1)) == nil && names(.oneSoftware(1)) == nil)
    #expect(names(.allNIC, [.receiveRingsOnly, .transmitRingsOnly]) == nil)
  }
}

private func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }
