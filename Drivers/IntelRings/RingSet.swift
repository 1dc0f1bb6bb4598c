// Descriptor memory cut into rings, and the queues over it.

public import DMAMemory
public import DeviceIO
public import DriverKit
public import NetmapCore

/// The receive and transmit rings of a port, and the memory under them. The driver copies the two
/// pointers into fields of its own and keeps this object for as long as it uses them.
@safe public final class RingSet {
  /// `queues` rings each, at fixed addresses.
  public let receivers: UnsafeMutablePointer<AdvancedReceiveRing>
  public let transmitters: UnsafeMutablePointer<AdvancedTransmitRing>
  private let memory: DescriptorMemory
  private let options: PortOptions
  private let allocator: NetmapAllocator
  private let function: CardFunction

  /// Attaches the card to the allocator; `deinit` detaches it. Ring sizes in `options` are powers of
  /// two from 64 on (the driver checked them).
  /// - Parameters:
  ///   - receiveTail, transmitTail: the offset of queue i's tail register.
  public init(
    _ function: CardFunction, _ registers: any RegisterSpace, _ allocator: NetmapAllocator, _ options: PortOptions,
    family: AdvancedFamily, receiveTail: (Int) -> Int, transmitTail: (Int) -> Int
  ) throws(DriverError) {
    var tails: [(receive: Doorbell, transmit: Doorbell)] = []
    for i in 0..<options.queues {
      guard let receive = registers.doorbell(at: receiveTail(i)), let transmit = registers.doorbell(at: transmitTail(i))
      else { throw .unsupported(card: function.name, what: "its tail registers cannot be mapped") }
      tails.append((receive, transmit))
    }
    do { try allocator.attach(function) } catch { throw .allocator("\(error)") }
    let receiveBytes = options.receiveDescriptors * advancedDescriptorSize
    let transmitBytes = options.transmitDescriptors * advancedDescriptorSize
    do {
      // Rings are aligned to 128 bytes (82576 datasheet, 8.10); their sizes keep each one aligned.
      memory = try allocator.allocateDescriptors(
        bytes: (receiveBytes + transmitBytes) * options.queues, alignment: 128, owner: function)
    } catch {
      try? allocator.detach(function)
      throw .allocator("\(error)")
    }
    self.options = options
    self.allocator = allocator
    self.function = function
    unsafe receivers = .allocate(capacity: options.queues)
    unsafe transmitters = .allocate(capacity: options.queues)
    for i in 0..<options.queues {
      let base = unsafe memory.pointer + (receiveBytes + transmitBytes) * i
      // SAFETY: both rings lie inside the descriptor memory, which outlives the queues.
      unsafe (receivers + i).initialize(
        to: AdvancedReceiveRing(
          unsafe: DescriptorWindow(unsafe: base), count: options.receiveDescriptors, tail: tails[i].receive,
          family: family))
      unsafe (transmitters + i).initialize(
        to: AdvancedTransmitRing(
          unsafe: DescriptorWindow(unsafe: base + receiveBytes), count: options.transmitDescriptors,
          tail: tails[i].transmit, family: family))
    }
  }

  deinit {
    for i in 0..<options.queues {
      unsafe (receivers + i).deinitialize(count: 1)
      unsafe (transmitters + i).deinitialize(count: 1)
    }
    unsafe receivers.deallocate()
    unsafe transmitters.deallocate()
    memory.release()
    try? allocator.detach(function)
  }

  /// Bus address of queue `i`'s receive ring, then of its transmit ring.
  public func addresses(_ i: Int) -> (receive: IOVA, transmit: IOVA) {
    let receiveBytes = options.receiveDescriptors * advancedDescriptorSize
    let start = (receiveBytes + options.transmitDescriptors * advancedDescriptorSize) * i
    return (memory.iova.advanced(by: start), memory.iova.advanced(by: start + receiveBytes))
  }
}
