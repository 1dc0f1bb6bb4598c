// What goes wrong with wires, before any frame moves.

internal import SystemPackage
public import Platform

/// Why a wire could not be made.
public enum WireError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A text that describes no wire or fault: the text, what is wrong, what would be right.
  case specification(String, wrong: String, example: String)
  /// A call to the operating system, and what to do about it.
  case system(SystemError, advice: String)
  /// A capture file that cannot be read on: path, byte offset, what is wrong there.
  case capture(path: String, offset: Int, wrong: String)

  /// One sentence: what failed, on what, what to do next.
  public var description: String {
    switch self {
    case .specification(let text, let wrong, let example): "'\(text)': \(wrong); for example \(example)"
    case .system(let error, let advice): "\(error): \(advice)"
    case .capture(let path, let offset, let wrong):
      "\(path), byte \(offset): \(wrong); give a pcap or pcapng file of Ethernet frames"
    }
  }
}

/// Numbers that follow from a seed: the same ones in every run (SplitMix64).
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }

  /// A fraction of 1, below 1.
  public mutating func fraction() -> Double { Double(next() >> 11) * 0x1p-53 }
}
