// Doorbells that are messages.

internal import CRingway

/// Makes doorbells whose stores are calls: for register spaces that no plain store reaches.
///
/// A space owns one of these; the doorbells live as long as it does. The action runs on the thread
/// that rings.
@safe public final class TrappedDoorbells: @unchecked Sendable {
  /// Offset and width in bytes, and the value.
  public typealias Action = @Sendable (_ offset: Int, _ width: Int, _ value: UInt32) -> Void

  private let action: Action
  // SAFETY of the unchecked conformance: filled on the control path alone, one thread at a time.
  private var traps: [Int: UnsafeMutablePointer<rw_trap>] = unsafe [:]

  public init(_ action: @escaping Action) { self.action = action }

  deinit {
    for unsafe trap in unsafe traps.values { unsafe trap.deallocate() }
  }

  /// The doorbell for the register at `offset`; the same one each time.
  public func doorbell(at offset: Int) -> Doorbell {
    if let made = unsafe traps[offset] { return unsafe Doorbell(unsafe: made) }
    let trap = UnsafeMutablePointer<rw_trap>.allocate(capacity: 1)
    // SAFETY: the context is this object, which outlives its traps.
    unsafe trap.initialize(
      to: rw_trap(
        write: { context, offset, width, value in
          unsafe Unmanaged<TrappedDoorbells>.fromOpaque(context).takeUnretainedValue().action(
            Int(offset), Int(width), value)
        }, context: Unmanaged.passUnretained(self).toOpaque(), offset: Int64(offset)))
    unsafe traps[offset] = trap
    return unsafe Doorbell(unsafe: trap)
  }
}
