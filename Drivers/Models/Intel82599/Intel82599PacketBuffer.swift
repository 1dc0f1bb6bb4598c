// The card's memory for frames that wait for descriptors (datasheet, 7.1.3).

/// A ring of frames, each behind a header of its own. Frames never wrap: what does not fit before the
/// end starts anew at the beginning.
@safe struct Intel82599PacketBuffer {
  @safe private struct Header {
    var count: Int
    var arrival: Intel82599Arrival
    /// Nothing follows; the next frame is at the beginning.
    var isEnd: Bool
  }
  private static let headerSize = (MemoryLayout<Header>.stride + 15) & ~15

  private let base: UnsafeMutableRawPointer
  private let capacity: Int
  private var head = 0
  private var tail = 0
  private(set) var frames = 0

  init(capacity: Int) {
    self.capacity = max(0, capacity) & ~15
    unsafe base = .allocate(byteCount: max(64, self.capacity), alignment: 64)
  }

  // SAFETY: called once, by the owner's deinit.
  func free() { unsafe base.deallocate() }

  var isEmpty: Bool { frames == 0 }

  mutating func removeAll() {
    head = 0
    tail = 0
    frames = 0
  }

  private func header(_ at: Int) -> UnsafeMutablePointer<Header> {
    // SAFETY: `at` is a multiple of 16 with room for a header, by construction.
    unsafe (base + at).assumingMemoryBound(to: Header.self)
  }

  /// False when there is no room.
  mutating func append(_ frame: UnsafeRawBufferPointer, _ arrival: Intel82599Arrival) -> Bool {
    let size = Self.headerSize + ((frame.count + 15) & ~15)
    if frames == 0 { removeAll() }
    // A header's room always stays free at the end, for the mark.
    if tail >= head, frames == 0 || tail > head {
      if tail + size + Self.headerSize > capacity {
        guard frames > 0, size < head else { return false }
        unsafe header(tail).initialize(to: Header(count: 0, arrival: arrival, isEnd: true))
        tail = 0
      }
    } else if tail + size >= head {
      return false
    }
    unsafe header(tail).initialize(to: Header(count: frame.count, arrival: arrival, isEnd: false))
    if frame.count > 0 {
      unsafe (base + tail + Self.headerSize).copyMemory(from: frame.baseAddress!, byteCount: frame.count)
    }
    tail += size
    frames += 1
    return true
  }

  private var place: Int { unsafe header(head).pointee.isEnd ? 0 : head }

  /// The oldest frame.
  var first: UnsafeRawBufferPointer? {
    guard frames > 0 else { return nil }
    let at = place
    return unsafe UnsafeRawBufferPointer(start: base + at + Self.headerSize, count: header(at).pointee.count)
  }
  /// What is known of it; only when there is one.
  var firstArrival: Intel82599Arrival {
    frames > 0 ? unsafe header(place).pointee.arrival : Intel82599Arrival()
  }

  mutating func removeFirst() {
    guard frames > 0 else { return }
    let at = place
    head = at + Self.headerSize + ((unsafe header(at).pointee.count + 15) & ~15)
    frames -= 1
  }
}
