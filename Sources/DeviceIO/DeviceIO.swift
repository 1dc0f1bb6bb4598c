// DeviceIO: how code touches a device's registers.
//
//     driver control path ──> RegisterSpace (any kind) ──> mapped BAR, message, model
//     driver packet path  ──> Doorbell (a plain store) ──> mapped BAR page
//
// A register is a typed constant: it knows its offset and what its bits mean. A space knows how
// to reach a device's registers. The packet path never goes through a space: it holds a
// `Doorbell`, which is a checked address taken from the space once, at start.
//
// Invariants
// - `modify` is one load and one store.
// - An offset outside the space reads all ones and writes nothing: what a device that has gone
//   away does, so callers need one test for both.
// - Every wait has a bound (`poll(until:within:)`).

/// The registers of one BAR (or of a virtio structure inside a BAR), in bytes from its start.
///
/// Accesses are little endian and as wide as their name says; they are never merged, split or
/// reordered against each other. Reads of a device that is gone give all ones.
public protocol RegisterSpace: AnyObject {
  /// Size in bytes.
  var count: Int { get }
  func read8(at offset: Int) -> UInt8
  func read16(at offset: Int) -> UInt16
  func read32(at offset: Int) -> UInt32
  func write8(_ value: UInt8, at offset: Int)
  func write16(_ value: UInt16, at offset: Int)
  func write32(_ value: UInt32, at offset: Int)
  /// A directly stored register for the packet path, or nil when this part of the space cannot be
  /// reached by a plain store (not mapped, or out of range).
  func doorbell(at offset: Int) -> Doorbell?
}

/// A 32-bit register: its datasheet name, its offset and the type of its value.
public struct Register<Value: RawRepresentable & Sendable>: Sendable where Value.RawValue == UInt32 {
  public let name: StaticString
  /// Bytes from the start of the space.
  public let offset: Int

  public init(_ name: StaticString, _ offset: Int) {
    self.name = name
    self.offset = offset
  }
}

/// A plain 32-bit value, for registers without named bits (addresses, lengths, counters).
@frozen public struct Plain: RawRepresentable, Sendable, Equatable, ExpressibleByIntegerLiteral {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public init(_ value: UInt32) { rawValue = value }
  public init(integerLiteral value: UInt32) { rawValue = value }
}

extension RegisterSpace {
  /// Reads a register. `index` and `stride` (bytes) select one of an array of registers.
  public func read<V>(_ register: Register<V>, index: Int = 0, stride: Int = 4) -> V? {
    V(rawValue: read32(at: register.offset + index * stride))
  }

  /// Reads a register whose value type accepts every bit pattern.
  public func read<V: OptionSet>(_ register: Register<V>, index: Int = 0, stride: Int = 4) -> V
  where V.RawValue == UInt32 {
    V(rawValue: read32(at: register.offset + index * stride))
  }

  /// Reads a plain register.
  public func read(_ register: Register<Plain>, index: Int = 0, stride: Int = 4) -> UInt32 {
    read32(at: register.offset + index * stride)
  }

  /// Reads a register that the read clears: the name says that the value is consumed.
  public func readClearing<V: OptionSet>(_ register: Register<V>) -> V where V.RawValue == UInt32 {
    V(rawValue: read32(at: register.offset))
  }

  public func write<V>(_ value: V, to register: Register<V>, index: Int = 0, stride: Int = 4) {
    write32(value.rawValue, at: register.offset + index * stride)
  }

  /// One load, the change, one store.
  public func modify<V: OptionSet>(
    _ register: Register<V>, index: Int = 0, stride: Int = 4, _ change: (inout V) -> Void
  ) where V.RawValue == UInt32 {
    var value = V(rawValue: read32(at: register.offset + index * stride))
    change(&value)
    write32(value.rawValue, at: register.offset + index * stride)
  }
}
