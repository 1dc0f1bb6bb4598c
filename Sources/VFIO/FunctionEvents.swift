// What reaches a function out of band, and its interrupts.

internal import CRingway
public import PCI
internal import Platform
internal import SystemPackage

/// Three eventfds, one for each kind of event, behind one epoll that is readable while any of
/// them is, or once the device's socket has ended.
final class FunctionEvents: Sendable {
  private let requests: EventFD
  private let errors: EventFD
  private let faults: EventFD
  private let epoll: Epoll
  private let kinds: [Int]

  var descriptor: Int32 { epoll.descriptor }
  /// For the register windows.
  var fault: Int32 { faults.descriptor }

  /// Makes the descriptors and asks the channel to signal them.
  init(_ channel: any VFIOChannel, _ found: Findings) throws(VFIOError) {
    do {
      requests = try EventFD()
      errors = try EventFD()
      faults = try EventFD()
      epoll = try Epoll()
      if channel.hangUpDescriptor >= 0 { try epoll.add(channel.hangUpDescriptor, for: .peerClosed, token: 0) }
      for descriptor in [requests.descriptor, errors.descriptor, faults.descriptor] { try epoll.add(descriptor, token: 0) }
    } catch {
      throw .system(operation: error.operation, subject: error.subject, errno: error.errno)
    }
    var kinds: [Int] = []
    do {
      if found.hasRequests {
        _ = try channel.setInterrupts(Int(VFIO_PCI_REQ_IRQ_INDEX), to: [requests.descriptor])
        kinds.append(Int(VFIO_PCI_REQ_IRQ_INDEX))
      }
      if found.hasErrors {
        _ = try channel.setInterrupts(Int(VFIO_PCI_ERR_IRQ_INDEX), to: [errors.descriptor])
        kinds.append(Int(VFIO_PCI_ERR_IRQ_INDEX))
      }
    } catch {
      throw .system(operation: "watch for the removal of", subject: channel.name, errno: error)
    }
    self.kinds = kinds
  }

  func take(_ channel: any VFIOChannel) -> PCIFunctionEvents {
    var events: PCIFunctionEvents = []
    if requests.drain() > 0 || channel.hasHungUp { events.insert(.removalRequested) }
    if errors.drain() > 0 { events.insert(.deviceError) }
    if faults.drain() > 0 { events.insert(.registerFault) }
    return events
  }

  func stop(_ channel: any VFIOChannel) {
    for kind in kinds { _ = try? channel.setInterrupts(kind, to: []) }
  }
}

extension VFIOFunction {
  /// Readable while there is something to take: an epoll, to be watched but not read.
  public var eventDescriptor: Int32 { events.descriptor }
  public func takeEvents() -> PCIFunctionEvents { events.take(channel) }

  private static var msix: Int { Int(VFIO_PCI_MSIX_IRQ_INDEX) }

  /// Switching on again with other descriptors switches off in between: VFIO sizes the vectors when
  /// MSI-X is switched on.
  public func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) {
    try state.withLock { (state: inout State) throws(PCIFunctionError) in
      guard !state.isClosed else { throw .gone(function: name) }
      guard descriptors.count <= interruptVectors else {
        throw .tooFewVectors(function: name, wanted: descriptors.count, available: interruptVectors)
      }
      interruptsOff(&state)
      if descriptors.isEmpty { return }
      let available: Int
      do throws(Errno) {
        available = try channel.setInterrupts(VFIOFunction.msix, to: descriptors)
      } catch {
        throw error == .noDevice ? .gone(function: name) : .interrupts(function: name, errno: error.rawValue)
      }
      // The kernel answers with a number when the machine is short of interrupt vectors.
      guard available == 0 else {
        throw .tooFewVectors(function: name, wanted: descriptors.count, available: available)
      }
      state.interruptsAreOn = true
    }
  }

  public func disableInterrupts() { state.withLock { interruptsOff(&$0) } }

  func interruptsOff(_ state: inout State) {
    guard state.interruptsAreOn else { return }
    state.interruptsAreOn = false
    _ = try? channel.setInterrupts(VFIOFunction.msix, to: [])
  }

  /// Raises a vector as if the card had done it: the way to its eventfd can be tested without one.
  public func raiseInterrupt(_ vector: Int) throws(PCIFunctionError) {
    do {
      try channel.trigger(VFIOFunction.msix, vector: vector)
    } catch {
      throw error == .noDevice ? .gone(function: name) : .interrupts(function: name, errno: error.rawValue)
    }
  }
}
