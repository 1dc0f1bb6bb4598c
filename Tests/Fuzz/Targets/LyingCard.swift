// A card that tells a driver what the fuzzer wants.

import CRingway
import DMAMemory
import DeviceIO
import ModelKit
import PCI

/// How registers lie: the next `left` reads, of all registers or of one.
struct RegisterLie {
  enum Kind: Int, CaseIterable { case replace, exclusiveOr, allOnes, zero, random }
  var kind = Kind.replace
  var value: UInt32 = 0
  var left = 0
  /// The register; nil for all.
  var offset: Int?

  mutating func apply(to truth: UInt32, offset: Int) -> UInt32 {
    guard left > 0, self.offset == nil || self.offset == offset else { return truth }
    left -= 1
    switch kind {
    case .replace: return value
    case .exclusiveOr: return truth ^ value
    case .allOnes: return .max
    case .zero: return 0
    case .random:
      value = value &* 1_664_525 &+ 1_013_904_223
      return value ^ value >> 13
    }
  }
}

/// A model in this process, whose registers may lie and whose DMA may go anywhere that is mapped.
@safe final class LyingCard: PCIFunction, DMAMapper {
  let inner: InProcessCard
  var lie = RegisterLie()
  private(set) var windows: [(address: UInt64, base: UnsafeMutableRawPointer, count: Int)] = unsafe []
  private var spaces: [Int: LyingSpace] = [:]

  init(_ inner: InProcessCard) { self.inner = inner }

  /// Writes into mapped memory, as a device can: `place` is counted in units of `width` bytes.
  func scribble(window: Int, place: Int, width: Int, value: UInt64) {
    guard unsafe !windows.isEmpty else { return }
    let (_, base, count) = unsafe windows[window % windows.count]
    let offset = place * width % count
    guard offset + width <= count else { return }
    // SAFETY: inside the window, which is removed before its memory goes away.
    switch width {
    case 1: unsafe rw_write8(base + offset, UInt8(truncatingIfNeeded: value))
    case 2: unsafe rw_write16(base + offset, UInt16(truncatingIfNeeded: value))
    case 4: unsafe rw_write32(base + offset, UInt32(truncatingIfNeeded: value))
    default: unsafe rw_write64(base + offset, value)
    }
  }

  // MARK: PCIFunction

  var name: String { inner.name }
  var identity: PCIIdentity { inner.identity }
  func readConfig8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: configuration(UInt32(inner.readConfig8(at: offset)), offset)) }
  func readConfig16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: configuration(UInt32(inner.readConfig16(at: offset)), offset)) }
  func readConfig32(at offset: Int) -> UInt32 { configuration(inner.readConfig32(at: offset), offset) }
  /// Configuration space lies only when everything does.
  private func configuration(_ truth: UInt32, _ offset: Int) -> UInt32 {
    lie.offset == nil ? lie.apply(to: truth, offset: offset) : truth
  }
  func writeConfig16(_ value: UInt16, at offset: Int) { inner.writeConfig16(value, at: offset) }
  func writeConfig32(_ value: UInt32, at offset: Int) { inner.writeConfig32(value, at: offset) }

  func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace {
    if let space = spaces[bar] { return space }
    let space = LyingSpace(self, try inner.registers(bar: bar))
    spaces[bar] = space
    return space
  }

  var interruptVectors: Int { inner.interruptVectors }
  func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) { try inner.enableInterrupts(descriptors) }
  func disableInterrupts() { inner.disableInterrupts() }
  var eventDescriptor: Int32 { inner.eventDescriptor }
  func takeEvents() -> PCIFunctionEvents { inner.takeEvents() }
  func setBusMaster(_ on: Bool) { inner.setBusMaster(on) }
  func reset() throws(PCIFunctionError) { try inner.reset() }
  var isGone: Bool { inner.isGone }
  func close() { inner.close() }

  // MARK: DMAMapper

  var iovaRanges: [ClosedRange<UInt64>] { inner.iovaRanges }
  var iovaPageSize: Int { inner.iovaPageSize }
  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    try inner.map(source, at: iova)
    unsafe windows.append((iova.rawValue, source.base, source.count))
  }
  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    unsafe windows.removeAll { unsafe $0.address == iova.rawValue }
    try inner.unmap(iova, count: count)
  }
}

/// A BAR of a lying card.
private final class LyingSpace: RegisterSpace {
  private unowned let card: LyingCard
  private let inner: any RegisterSpace

  init(_ card: LyingCard, _ inner: any RegisterSpace) {
    self.card = card
    self.inner = inner
  }

  var count: Int { inner.count }
  func read8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: card.lie.apply(to: UInt32(inner.read8(at: offset)), offset: offset)) }
  func read16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: card.lie.apply(to: UInt32(inner.read16(at: offset)), offset: offset)) }
  func read32(at offset: Int) -> UInt32 { card.lie.apply(to: inner.read32(at: offset), offset: offset) }
  func write8(_ value: UInt8, at offset: Int) { inner.write8(value, at: offset) }
  func write16(_ value: UInt16, at offset: Int) { inner.write16(value, at: offset) }
  func write32(_ value: UInt32, at offset: Int) { inner.write32(value, at: offset) }
  func doorbell(at offset: Int) -> Doorbell? { inner.doorbell(at: offset) }
}
