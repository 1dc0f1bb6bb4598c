// How a device hears of new buffers: the packet path's only way out.

public import CRingway
public import DeviceIO

/// A queue's notification: a store to a PCI notify address, or a signal on an eventfd.
@frozen public struct VirtioNotifier: BitwiseCopyable, Sendable {
  @usableFromInline let doorbell: Doorbell?
  @usableFromInline let descriptor: Int32
  /// The queue's number, which is what is stored (clause 4.1.5.2).
  @usableFromInline let queue: UInt16

  /// A store of `queue` to `doorbell`.
  public init(doorbell: Doorbell, queue: UInt16) {
    self.doorbell = doorbell
    descriptor = -1
    self.queue = queue
  }

  /// A signal on an eventfd, for devices that are another process.
  /// - Parameter descriptor: open for as long as the notifier is used.
  public init(eventDescriptor descriptor: Int32, queue: UInt16) {
    doorbell = nil
    self.descriptor = descriptor
    self.queue = queue
  }

  /// Tells nobody: a queue that has not been given to a device.
  public static let none = VirtioNotifier(eventDescriptor: -1, queue: 0)

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func notify() {
    if let doorbell { doorbell.ring16(queue) } else { rw_signal_event(descriptor) }
  }
}
