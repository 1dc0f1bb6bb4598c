// What a driver sees of its card: a PCI function held by user space.

public import DeviceIO

/// A PCI function that this process holds: kernel VFIO, iommufd, a vfio-user socket or a device
/// model in this process. A driver cannot tell them apart.
///
/// Memory for DMA is mapped through the same object, by `DMAMapper` of module DMAMemory.
public protocol PCIFunction: AnyObject {
  /// What to call it in messages: "0000:03:00.0", or a socket's path.
  var name: String { get }
  var identity: PCIIdentity { get }

  /// Configuration space (PCI Express Base Specification, chapter 7). Offsets in bytes, naturally
  /// aligned. Reads of a function that is gone give all ones.
  func readConfig8(at offset: Int) -> UInt8
  func readConfig16(at offset: Int) -> UInt16
  func readConfig32(at offset: Int) -> UInt32
  func writeConfig16(_ value: UInt16, at offset: Int)
  func writeConfig32(_ value: UInt32, at offset: Int)

  /// The registers behind base address register `bar` (0 to 5).
  func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace

  /// How many MSI-X vectors the function has; 0 when it has none.
  var interruptVectors: Int { get }
  /// Sends vector i to the eventfd `descriptors[i]` (-1 leaves a vector off), and switches MSI-X on.
  /// The caller keeps the descriptors open until `disableInterrupts`.
  func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError)
  func disableInterrupts()

  /// Becomes readable when the kernel wants the device back, reports an uncorrectable error, or an
  /// access to a mapped BAR faulted; -1 when this kind of function has none. To be watched, not to
  /// be read: `takeEvents` empties it.
  var eventDescriptor: Int32 { get }
  /// What has been signalled since the last call.
  func takeEvents() -> PCIFunctionEvents

  /// The command register's bus master bit: off means that the function does no DMA at all.
  func setBusMaster(_ on: Bool)
  /// Function-level reset. Registers, interrupts and bus mastering are off afterwards.
  func reset() throws(PCIFunctionError)
  /// True once the device was removed, answers all ones, or its BAR faulted.
  var isGone: Bool { get }
  /// Gives the function back: bus mastering off, interrupts off, memory unmapped, reset. Idempotent.
  func close()
}

/// Who made the function and what it is.
public struct PCIIdentity: Hashable, Sendable {
  public var vendor: UInt16
  public var device: UInt16
  public var subsystemVendor: UInt16
  public var subsystemDevice: UInt16
  public var revision: UInt8
  /// 24 bits: class, subclass, programming interface.
  public var classCode: UInt32

  public init(
    vendor: UInt16, device: UInt16, subsystemVendor: UInt16 = 0, subsystemDevice: UInt16 = 0, revision: UInt8 = 0,
    classCode: UInt32 = 0x020000
  ) {
    self.vendor = vendor
    self.device = device
    self.subsystemVendor = subsystemVendor
    self.subsystemDevice = subsystemDevice
    self.revision = revision
    self.classCode = classCode
  }
}

/// Out-of-band events of a function.
public struct PCIFunctionEvents: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// The kernel asks for the device (hot unplug, unbind): close it soon (VFIO_PCI_REQ_IRQ_INDEX).
  public static let removalRequested = PCIFunctionEvents(rawValue: 1)
  /// An uncorrectable PCI Express error was reported (VFIO_PCI_ERR_IRQ_INDEX).
  public static let deviceError = PCIFunctionEvents(rawValue: 2)
  /// A mapped BAR faulted: memory decoding is off or the device is gone.
  public static let registerFault = PCIFunctionEvents(rawValue: 4)
}

/// What went wrong between a driver and its function.
public enum PCIFunctionError: Error, Equatable, CustomStringConvertible {
  case noSuchBAR(function: String, bar: Int)
  case tooFewVectors(function: String, wanted: Int, available: Int)
  case interrupts(function: String, errno: Int32)
  case mapping(function: String, bar: Int, errno: Int32)
  case reset(function: String, errno: Int32)
  case gone(function: String)

  public var description: String {
    switch self {
    case .noSuchBAR(let function, let bar):
      "\(function) has no memory behind base address register \(bar): is it the card it says it is? Check with `ringway devices`."
    case .tooFewVectors(let function, let wanted, let available):
      "\(function) offers \(available) MSI-X vectors, \(wanted) are needed. Use fewer queues."
    case .interrupts(let function, let errno):
      "\(function): interrupts could not be set up (errno \(errno)). Run `ringway doctor`."
    case .mapping(let function, let bar, let errno):
      "\(function): base address register \(bar) could not be mapped (errno \(errno)). Run `ringway doctor`."
    case .reset(let function, let errno):
      "\(function): reset failed (errno \(errno)). Take it anew with `ringway unbind` and `ringway bind`."
    case .gone(let function):
      "\(function) is gone: it was unplugged, unbound or has stopped answering. Check with `ringway devices`."
    }
  }
}
