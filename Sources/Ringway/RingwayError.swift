// One error type for programs, whatever floor it comes from.

public import Capture
internal import DMAMemory
public import DriverKit
public import NetmapCore
public import PCI
public import Platform
internal import SystemPackage
public import VFIO

/// What a program that uses ports has to expect.
///
/// `description` is a sentence that says what failed and on what, and one that says what to do.
public enum RingwayError: Error, CustomStringConvertible {
  /// What a person would have to change, and so how a command ends.
  public enum Category: Sendable, Equatable {
    /// The call or the command line makes no sense.
    case usage
    /// No such card, or it is gone.
    case deviceMissing
    /// The caller may not.
    case permission
    /// The machine is not set up for it.
    case configuration
    case other
  }

  case address(PCIAddressError)
  case scan(PCIScanError)
  case vfio(VFIOError)
  case function(PCIFunctionError)
  case driver(DriverError)
  case memory(NetmapAllocatorError)
  case capture(CaptureError)
  case system(SystemError)
  /// No driver of ours serves this card.
  case unsupported(card: String, vendor: UInt16, device: UInt16)
  /// This process holds the card already.
  case alreadyOpen(card: String)
  /// The card was unplugged or unbound, or answers all ones.
  case gone(card: String)
  /// The card said something impossible and is not used any more.
  case quarantined(card: String, reason: String)
  /// The port was closed by the program.
  case closed(card: String)
  /// No link came up in time.
  case noLink(card: String, seconds: Double)
  /// The daemon's netmap said no: errno(3), and its sentence.
  case netmap(errno: Int32, problem: String)
  /// A value that cannot work: which, what it is, what is possible.
  case option(name: String, value: String, allowed: String)

  public var category: Category {
    switch self {
    case .address, .option, .alreadyOpen: .usage
    case .scan(.noPCIBus): .configuration
    case .scan(.noSuchDevice), .gone: .deviceMissing
    case .vfio(let error): error.category
    case .function(let error): error.category
    case .driver(let error): error.category
    case .memory(let error): error.category
    case .capture(.filter), .capture(.snapLength): .usage
    case .capture(.open(let error)), .capture(.write(let error)), .system(let error): Category(error.errno)
    case .unsupported: .configuration
    case .netmap(let errno, _):
      switch errno {
      case 22: .usage  // EINVAL
      case 1, 13: .permission
      case 2, 6, 111: .deviceMissing  // ENOENT, ENXIO, ECONNREFUSED
      default: .other
      }
    case .capture, .quarantined, .closed, .noLink: .other
    }
  }

  public var description: String {
    switch self {
    case .address(let error): error.description
    case .scan(let error): error.description
    case .vfio(let error): error.description
    case .function(let error): error.description
    case .driver(let error): error.description
    case .memory(let error): error.description
    case .capture(let error): error.description
    case .system(let error): "\(error). Run `ringway doctor` to check limits and permissions."
    case .unsupported(let card, let vendor, let device):
      "no driver of Ringway serves \(card) [\(hex(vendor, digits: 4)):\(hex(device, digits: 4))]. `ringway devices` shows which cards are served."
    case .alreadyOpen(let card): "\(card) is open in this process already. Name each card once."
    case .gone(let card) where card.hasPrefix(VFIOFunction.socketPrefix):
      "\(card) is gone: its server ended or stopped answering. Start the server anew."
    case .gone(let card): "\(card) is gone: it was unplugged or unbound. Check with `ringway devices`."
    case .quarantined(let card, let reason):
      "\(card) misbehaves and is not used any more: \(reason). Open it again to reset it."
    case .closed(let card): "\(card) is closed. Open it again to use it."
    case .noLink(let card, let seconds):
      "\(card) has no link after \(seconds == seconds.rounded() ? String(Int(seconds)) : String(seconds)) s. Check the cable and the other end, or wait longer with --link-wait."
    case .netmap(_, let problem): problem
    case .option(let name, let value, let allowed): "\(name) cannot be \(value). Allowed: \(allowed)."
    }
  }
}

extension RingwayError.Category {
  init(_ errno: Errno) {
    switch errno {
    case .permissionDenied, .notPermitted: self = .permission
    case .noSuchAddressOrDevice, .operationNotSupportedByDevice: self = .deviceMissing
    default: self = .other
    }
  }
}

extension VFIOError {
  var category: RingwayError.Category {
    switch self {
    case .invalidAddress, .alreadyOpen: .usage
    case .noSuchFunction, .gone, .noServer: .deviceMissing
    case .noPermission: .permission
    case .notBound, .noIOMMU, .noInterruptRemapping, .moduleMissing, .groupNotViable, .unsupported: .configuration
    case .busy, .malformed, .silent: .other
    case .system(_, _, let errno): RingwayError.Category(errno)
    }
  }
}

extension PCIFunctionError {
  var category: RingwayError.Category {
    switch self {
    case .gone: .deviceMissing
    case .interrupts(_, let errno), .mapping(_, _, let errno), .reset(_, let errno):
      RingwayError.Category(Errno(rawValue: errno))
    case .tooFewVectors: .configuration
    case .noSuchBAR: .other
    }
  }
}

extension DriverError {
  var category: RingwayError.Category {
    switch self {
    case .function(let error): error.category
    case .memory(let error): error.category
    case .gone: .deviceMissing
    case .allocator, .pool: .configuration
    case .option: .usage
    case .timeout, .device, .unsupported: .other
    }
  }
}

extension DMAError {
  var category: RingwayError.Category {
    switch self {
    case .map(let errno, _, _), .unmap(let errno, _, _): RingwayError.Category(Errno(rawValue: errno))
    case .memoryLockLimit, .noAddressSpace, .outOfRange, .pageSize, .notShareable: .configuration
    case .alreadyMapped, .notMapped: .other
    case .gone: .deviceMissing
    }
  }
}

extension NetmapAllocatorError {
  var category: RingwayError.Category {
    switch self {
    case .memory(.system(_, let errno, _)): RingwayError.Category(Errno(rawValue: errno))
    case .memory, .badSize, .exhausted, .tooLarge, .noDescriptorSpace: .configuration
    case .mapping(let error): error.category
    case .badAlignment, .notAttached, .stillInUse, .tooManyOwners, .export: .other
    }
  }
}
