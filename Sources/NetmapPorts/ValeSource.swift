// Frames on their way into a switch: what a sending ring has handed over, noted privately.
//
//    slots of the ring ── collect ──> notes, a fragment each ── dispatch ──> lists, one a destination ── deliver ──> queues
//
// A slot is read once. What counts of it from then on is the note: the program may change the slot, and the bytes of the
// frame, at any time; the bytes decide where the frame goes and nothing else.

internal import CRingway
internal import NetmapCore

/// One fragment. 16 bytes.
struct ValeNote: BitwiseCopyable {
  /// Its first byte.
  var address: UInt
  var length: UInt16
  /// Of a frame's first fragment: the next frame for the same destination.
  var next: UInt16
  /// Of a frame's first fragment: how many there are.
  var fragments: UInt8
  var marks: UInt8
  private var spare: UInt16 = 0

  init(address: UInt, length: UInt16, marks: UInt8) {
    self.address = address
    self.length = length
    next = ValeSource.none
    fragments = 1
    self.marks = marks
  }

  /// The sender's address is not to be learned.
  static let noLearn: UInt8 = 1
  /// The virtio-net header asks for a checksum, or for segments.
  static let wantsChecksum: UInt8 = 2, wantsSegments: UInt8 = 4
}

/// Where frames start in their buffers.
struct ValeOffsets: BitwiseCopyable {
  private var mask: UInt64 = 0, largest: UInt64 = 0
  init() {}
  init(_ kring: Kring) {
    mask = kring.offsetMask
    largest = UInt64(truncatingIfNeeded: kring.largestOffset)
  }
  var isUsed: Bool { mask != 0 }
  /// Bytes, at most a buffer's.
  @inline(__always) func offset(_ pointer: UInt64) -> Int { Int(truncatingIfNeeded: min(pointer & mask, largest)) }
}

/// What a sending ring counts.
struct ValeTally: BitwiseCopyable {
  var packets: UInt64 = 0, bytes: UInt64 = 0, drops: UInt64 = 0, badIndexes: UInt64 = 0, badLengths: UInt64 = 0
}

/// The frames of a batch for one destination.
struct FrameList: BitwiseCopyable {
  var head = ValeSource.none
  var tail = ValeSource.none
  var slots: UInt32 = 0
}

/// A sending ring, and room for a batch of its frames. Used by whoever syncs the ring.
@safe final class ValeSource: @unchecked Sendable {
  /// The end of a list.
  static let none = UInt16.max
  /// Fragments of a batch; the last frame may go beyond.
  static let batch = 512
  /// netmap's limit of a frame's slots.
  static let mostFragments = 64
  /// The lists: one for each port, and one for everybody.
  static let lists = ValeTable.everybody + 1

  let kring: Kring
  let base: UnsafeMutableRawPointer
  // The kring's, at hand without a reference to it.
  private let slots: UnsafeMutableRawPointer
  private let count: UInt32
  let bufferSize: Int
  private let ledger: BufferLedger
  private let holder: BufferOwner
  /// Option OFFSETS of the ring, as it is at this sync.
  private var offsets = ValeOffsets()
  /// What has been counted since `settle`.
  private var counted = ValeTally()
  /// Slots marked INDIRECT have their bytes in their own buffer.
  let takesIndirect: Bool
  let notes: UnsafeMutablePointer<ValeNote>
  let lists: UnsafeMutablePointer<FrameList>
  /// Ports with a list that is not empty.
  let touched: UnsafeMutablePointer<UInt8>
  var touchedCount = 0
  /// Ports that have got the batch's frames for everybody with their own.
  let served: UnsafeMutablePointer<Bool>
  /// A slot that the program had no right to, since the last sync.
  var firstBad: UInt32?

  init(_ kring: Kring, base: UnsafeMutableRawPointer, takesIndirect: Bool) {
    self.kring = kring
    unsafe self.base = unsafe base
    unsafe slots = kring.ring.base + RingOffset.slots
    count = kring.count
    bufferSize = kring.bufferSize
    ledger = kring.ledger
    holder = kring.holder
    self.takesIndirect = takesIndirect
    let capacity = Self.batch + Self.mostFragments
    unsafe notes = .allocate(capacity: capacity)
    unsafe notes.initialize(repeating: ValeNote(address: 0, length: 0, marks: 0), count: capacity)
    unsafe lists = .allocate(capacity: Self.lists)
    unsafe lists.initialize(repeating: FrameList(), count: Self.lists)
    unsafe touched = .allocate(capacity: Self.lists)
    unsafe touched.initialize(repeating: 0, count: Self.lists)
    unsafe served = .allocate(capacity: Self.lists)
    unsafe served.initialize(repeating: false, count: Self.lists)
  }

  deinit {
    unsafe notes.deallocate()
    unsafe lists.deallocate()
    unsafe touched.deallocate()
    unsafe served.deallocate()
  }

  /// Before a sync's first batch.
  func begin() { offsets = ValeOffsets(kring) }

  /// After a sync's last batch: the kring's counters get what was counted.
  func settle() {
    kring.counters.packets &+= counted.packets
    kring.counters.bytes &+= counted.bytes
    kring.counters.drops &+= counted.drops
    kring.counters.badIndexes &+= counted.badIndexes
    kring.counters.badLengths &+= counted.badLengths
    counted = ValeTally()
  }

  // MARK: From slots to notes

  /// Notes whole frames of the slots `from ..< end`, up to a batch. A frame whose last slot has not been handed over stays
  /// where it is, unless it could never end.
  /// - Returns: fragments noted, and the first slot that was not looked at.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  func collect(from: UInt32, to end: UInt32) -> (count: Int, next: UInt32) {
    let count = self.count, ledger = self.ledger, holder = self.holder, size = bufferSize, offsets = self.offsets
    let slots = unsafe self.slots, notes = unsafe self.notes, base = unsafe self.base
    let refused: UInt64 = takesIndirect ? 0 : UInt64(SlotFlags.indirect.rawValue) &<< 48
    let more = UInt64(SlotFlags.moreFragments.rawValue) &<< 48
    let most = min(Self.mostFragments, Int(count) &- 1)
    // SAFETY: `i` is below the count of slots; `n` is below the room: `first` is below `batch` when a frame starts, and a
    // frame has `mostFragments` notes at most.
    var i = from, done = from, first = 0, n = 0, isBad = false, drops: UInt64 = 0
    while i != end, first < Self.batch {
      let word = unsafe rw_read64(slots + Int(i) &* RingOffset.slotSize)
      let index = UInt32(truncatingIfNeeded: word), length = UInt16(truncatingIfNeeded: word >> 32)
      let isHeld = ledger.isHeld(index, by: holder)
      let offset = unsafe offsets.isUsed ? offsets.offset(rw_read64(slots + Int(i) &* RingOffset.slotSize + 8)) : 0
      if !isHeld || Int(length) > size &- offset || word & refused != 0 {
        isBad = true
        note(bad: i, isHeld: isHeld, isLong: Int(length) > size &- offset)
      }
      let address = unsafe isHeld ? base + (Int(index) &* size &+ offset) : base
      unsafe rw_prefetch(address)
      let marks = (word >> 48) & UInt64(SlotFlags.noLearn.rawValue) != 0 ? ValeNote.noLearn : 0
      unsafe notes[n] = ValeNote(address: UInt(bitPattern: address), length: length, marks: marks)
      i = i &+ 1 == count ? 0 : i &+ 1
      n &+= 1
      if word & more != 0 {
        guard n &- first >= most else { continue }
        // Too many, or all slots that there are: the frame is lost as far as it has come.
        isBad = true
      }
      if isBad {
        n = first
        isBad = false
        drops &+= 1
      } else {
        unsafe notes[first].fragments = UInt8(truncatingIfNeeded: n &- first)
        first = n
      }
      done = i
    }
    counted.drops &+= drops
    return (first, done)
  }

  /// Counts what is wrong with a slot.
  @inline(never) private func note(bad slot: UInt32, isHeld: Bool, isLong: Bool) {
    if !isHeld { counted.badIndexes &+= 1 } else if isLong { counted.badLengths &+= 1 }
    if firstBad == nil, !isHeld || isLong { firstBad = slot }
  }

  // MARK: From notes to lists

  /// Sorts the first `count` notes into lists, and learns where frames come from.
  /// - Parameters:
  ///   - me: the port that they come from: nothing goes back.
  ///   - header: bytes of the virtio-net header before each frame.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  func dispatch(_ count: Int, from me: Int, header: Int, _ table: ValeTable, now: UInt32) {
    var k = 0, bytes: UInt64 = 0, packets: UInt64 = 0, drops: UInt64 = 0
    let notes = unsafe self.notes
    // SAFETY: `k` and the notes of its frame are below `count`.
    while k < count {
      let note = unsafe notes[k], fragments = Int(note.fragments)
      let start = unsafe header == 0
        ? frame(note.address, Int(note.length)) : behindHeader(k, note, header)
      if let start = unsafe start {
        let low = unsafe start.loadUnaligned(as: UInt64.self)
        let source = unsafe (start + 4).loadUnaligned(as: UInt64.self) >> 16
        if source & 1 == 0, note.marks & ValeNote.noLearn == 0 { table.learn(source, port: me, now: now) }
        let wanted = low & ValeTable.addressMask
        let port = low & 1 == 0 ? table.port(of: wanted, now: now) : ValeTable.everybody
        if port != me { append(k, to: port, fragments) }
        packets &+= 1
        bytes &+= UInt64(note.length)
        var extra = 1
        while extra < fragments {
          unsafe bytes &+= UInt64(notes[k &+ extra].length)
          extra &+= 1
        }
      } else {
        drops &+= 1
      }
      k &+= fragments
    }
    counted.packets &+= packets
    counted.bytes &+= bytes
    counted.drops &+= drops
  }

  /// A frame's first byte; nil for one that is shorter than an Ethernet header.
  @inline(__always) private func frame(_ address: UInt, _ length: Int) -> UnsafeRawPointer? {
    length >= 14 ? unsafe UnsafeRawPointer(bitPattern: address) : nil
  }

  @inline(__always) private func append(_ k: Int, to port: Int, _ fragments: Int) {
    // SAFETY: the table knows ports below `lists`, and notes are fewer than 65535.
    let list = unsafe lists + port, at = UInt16(truncatingIfNeeded: k)
    if unsafe list.pointee.head == Self.none {
      unsafe list.pointee.head = at
      if port != ValeTable.everybody {
        unsafe touched[touchedCount] = UInt8(truncatingIfNeeded: port)
        touchedCount &+= 1
      }
    } else {
      unsafe notes[Int(list.pointee.tail)].next = at
    }
    unsafe list.pointee.tail = at
    unsafe list.pointee.slots &+= UInt32(truncatingIfNeeded: fragments)
  }
}
