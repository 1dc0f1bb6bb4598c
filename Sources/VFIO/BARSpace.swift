// The registers of a BAR that is mapped in parts, or not at all.

internal import CRingway
internal import DeviceIO

/// Registers reached by plain loads and stores where the BAR is mapped, and by a message (a
/// pread, a vfio-user request) in between. Doorbells too: there is one for every register.
@safe final class BARSpace: RegisterSpace {
  /// A mapped part.
  struct Part {
    var start: Int
    var window: BARWindow
  }

  let count: Int
  private let region: Int
  private let channel: any VFIOChannel
  /// Ascending and apart.
  private let parts: [Part]
  /// Doorbells where nothing is mapped.
  private let trapped: TrappedDoorbells

  init(_ region: VFIORegion, parts: [Part], channel: any VFIOChannel) {
    count = region.count
    self.region = region.index
    self.parts = parts
    self.channel = channel
    let index = region.index
    trapped = TrappedDoorbells { offset, width, value in
      channel.write(value, region: index, offset: offset, width: width)
    }
  }

  private func holds(_ offset: Int, _ width: Int) -> Bool {
    offset >= 0 && offset <= count - width && offset & (width - 1) == 0
  }

  /// Where `width` bytes at `offset` are mapped, or nil.
  private func address(_ offset: Int, _ width: Int) -> UnsafeMutableRawPointer? {
    for part in parts where offset >= part.start && offset + width <= part.start + part.window.count {
      return unsafe part.window.base + (offset - part.start)
    }
    return nil
  }

  private func message(_ offset: Int, _ width: Int) -> UInt32 {
    channel.read(region: region, offset: offset, width: width) ?? .max
  }

  // SAFETY of the accesses below: `address` gives only addresses with `width` bytes behind them in
  // a window, which this object keeps.
  func read8(at offset: Int) -> UInt8 {
    guard holds(offset, 1) else { return .max }
    if let at = unsafe address(offset, 1) { return unsafe rw_read8(at) }
    return UInt8(truncatingIfNeeded: message(offset, 1))
  }

  func read16(at offset: Int) -> UInt16 {
    guard holds(offset, 2) else { return .max }
    if let at = unsafe address(offset, 2) { return unsafe rw_read16(at) }
    return UInt16(truncatingIfNeeded: message(offset, 2))
  }

  func read32(at offset: Int) -> UInt32 {
    guard holds(offset, 4) else { return .max }
    if let at = unsafe address(offset, 4) { return unsafe rw_read32(at) }
    return message(offset, 4)
  }

  func write8(_ value: UInt8, at offset: Int) {
    guard holds(offset, 1) else { return }
    if let at = unsafe address(offset, 1) { return unsafe rw_write8(at, value) }
    channel.write(UInt32(value), region: region, offset: offset, width: 1)
  }

  func write16(_ value: UInt16, at offset: Int) {
    guard holds(offset, 2) else { return }
    if let at = unsafe address(offset, 2) { return unsafe rw_write16(at, value) }
    channel.write(UInt32(value), region: region, offset: offset, width: 2)
  }

  func write32(_ value: UInt32, at offset: Int) {
    guard holds(offset, 4) else { return }
    if let at = unsafe address(offset, 4) { return unsafe rw_write32(at, value) }
    channel.write(value, region: region, offset: offset, width: 4)
  }

  func doorbell(at offset: Int) -> Doorbell? {
    guard holds(offset, 4) else { return nil }
    if let at = unsafe address(offset, 4) { return unsafe Doorbell(unsafe: at) }
    return trapped.doorbell(at: offset)
  }
}
