// Numbers for interfaces.
//
//     1 2 3 4 5 . . .        attach: highest + 1
//     1 2 . 4 5 . . .        detach in the middle: a hole, which stays
//     1 2 . 4 . . . .        detach at the end: the next attach gets 5 again, with another generation

internal import Packet

/// The table of indexes (ifindex2ifnet). Changed on worker 0, under the table's lock.
struct IndexTable {
  private var entries: [Interface?]
  private var generations: [UInt16]
  /// The highest index in use; 0: none.
  private(set) var highest = 0
  /// Slots, slot 0 included.
  var limit: Int { entries.count }

  /// Starts at 8, and is doubled before anything is in it.
  init() {
    entries = Array(repeating: nil, count: 8)
    generations = Array(repeating: 0, count: 8)
    grow()
  }

  private mutating func grow() {
    generations += Array(repeating: 0, count: entries.count)
    entries += Array(repeating: nil, count: entries.count)
  }

  /// Gives the interface the index behind the highest; nil when there is no number left.
  mutating func add(_ interface: Interface) -> InterfaceIndex? {
    let index = highest + 1
    guard index <= Int(UInt16.max) else { return nil }
    while index >= limit { grow() }
    generations[index] = generations[index] == .max ? 1 : generations[index] + 1
    entries[index] = interface
    // The entry is there before the highest index says so.
    highest = index
    return InterfaceIndex(UInt16(index), generation: generations[index])
  }

  mutating func remove(_ index: InterfaceIndex) {
    entries[Int(index.index)] = nil
    while highest > 0, entries[highest] == nil { highest -= 1 }
  }
}
