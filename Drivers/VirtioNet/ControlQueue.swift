// The control virtqueue (virtio 1.2, clause 5.1.6.5): one command at a time, waited for.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import VirtioTransport
import Wire

/// A command of the driver: class, command, data.
struct ControlCommand {
  let group: UInt8
  let command: UInt8
  let data: [UInt8]
  /// For messages: what was asked of the device.
  let what: String

  static func promiscuous(_ on: Bool) -> ControlCommand {
    ControlCommand(group: 0, command: 0, data: [on ? 1 : 0], what: "promiscuous mode \(on ? "on" : "off")")
  }
  static func allMulticast(_ on: Bool) -> ControlCommand {
    ControlCommand(group: 0, command: 1, data: [on ? 1 : 0], what: "all multicast frames \(on ? "on" : "off")")
  }
  /// VIRTIO_NET_CTRL_MAC_TABLE_SET: two tables, each a 32-bit count and the addresses.
  static func addressTable(unicast: [MACAddress], multicast: [MACAddress]) -> ControlCommand {
    func table(_ list: [MACAddress]) -> [UInt8] {
      let count = UInt32(list.count)
      return [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: count >> $0) } + list.flatMap(\.bytes)
    }
    return ControlCommand(
      group: 1, command: 0, data: table(unicast) + table(multicast), what: "the address filter table")
  }
  static func setAddress(_ address: MACAddress) -> ControlCommand {
    ControlCommand(group: 1, command: 1, data: address.bytes, what: "the address \(address)")
  }
  static func vlan(_ id: UInt16, add: Bool) -> ControlCommand {
    ControlCommand(
      group: 2, command: add ? 0 : 1, data: [UInt8(id & 0xff), UInt8(id >> 8)],
      what: "VLAN \(id) \(add ? "added" : "removed")")
  }
  static func queuePairs(_ pairs: Int) -> ControlCommand {
    ControlCommand(
      group: 4, command: 0, data: [UInt8(pairs & 0xff), UInt8(pairs >> 8 & 0xff)], what: "\(pairs) queue pairs")
  }
}

/// The driver's side of the control queue. Its commands wait at most `patience` for an answer.
@safe struct ControlQueue: ~Copyable {
  private(set) var queue: SplitQueue
  private let memory: UnsafeMutableRawPointer
  private let address: IOVA
  /// A command went unanswered: its memory still belongs to the device, so no other may follow
  /// before a reset.
  private(set) var isStuck = false
  private(set) var commands: UInt64 = 0

  /// Microseconds.
  static let patience: UInt64 = 2_000_000
  /// The command's memory: class and command at 0, the answer at 8, data from 16 on.
  static let memoryCount = 4096
  static let dataCapacity = memoryCount - 16
  /// Addresses in a filter table; more switch the filter to "all".
  static let addressCapacity = (dataCapacity - 8) / 6

  /// - Parameters:
  ///   - memory: `memoryCount` bytes of descriptor memory, which outlive the queue.
  ///   - address: their bus address.
  init(queue: consuming SplitQueue, unsafe memory: UnsafeMutableRawPointer, address: IOVA) {
    self.queue = queue
    unsafe self.memory = memory
    self.address = address
  }

  /// Only while the device is quiet.
  mutating func prepare(eventIndex: Bool) {
    queue.reset(eventIndex: eventIndex)
    queue.suppressInterrupts()
    isStuck = false
  }

  mutating func attach(_ notifier: VirtioNotifier) { queue.notifier = notifier }

  /// Sends a command and waits for the answer.
  mutating func run(_ command: ControlCommand, card: String, clock: any TimeSource) throws(DriverError) {
    guard !isStuck else { throw .timeout(card: card, waitingFor: "an earlier command on the control queue") }
    guard command.data.count <= Self.dataCapacity else {
      throw .option(
        card: card, name: "command data", value: "\(command.data.count) bytes", allowed: "up to \(Self.dataCapacity)")
    }
    post(command)
    commands += 1
    queue.publish()
    // The queue is the closure's for the wait only.
    var waiting = 0
    let end = clock.now() &+ Self.patience &* 1000
    while true {
      waiting = queue.look()
      if waiting != 0 || queue.fault != .none || clock.now() >= end { break }
      clock.sleep(nanoseconds: 10_000)
    }
    guard waiting != 0 else {
      isStuck = true
      if queue.fault != .none { throw .device(card: card, problem: "on the control queue, \(queue.fault)") }
      throw .timeout(card: card, waitingFor: "the control queue to answer: \(command.what)")
    }
    let id = UInt32(truncatingIfNeeded: queue.ring.usedElement(queue.taken))
    queue.taken &+= 1
    guard id == 0 else {
      isStuck = true
      throw .device(card: card, problem: "the control queue returned descriptor \(id), which it did not hold")
    }
    // SAFETY: inside `memory`, see its layout.
    let answer = unsafe rw_read8(memory + 8)
    guard answer == 0 else { throw .unsupported(card: card, what: "\(command.what) (its control queue answered \(answer))") }
  }

  /// Class and command, the data, room for the answer: three descriptors, always the same three.
  private mutating func post(_ command: ControlCommand) {
    // SAFETY: inside `memory`, see its layout; the data's length was checked.
    unsafe rw_write8(memory, command.group)
    unsafe rw_write8(memory + 1, command.command)
    unsafe rw_write8(memory + 8, 0xff)
    for (i, byte) in command.data.enumerated() { unsafe rw_write8(memory + 16 + i, byte) }
    let ring = queue.ring
    ring.setDescriptor(0, address: address.rawValue, length: 2, flags: DescriptorFlags.next, next: 1)
    ring.setDescriptor(
      1, address: address.advanced(by: 16).rawValue, length: UInt32(command.data.count), flags: DescriptorFlags.next,
      next: 2)
    ring.setDescriptor(2, address: address.advanced(by: 8).rawValue, length: 1, flags: DescriptorFlags.write)
    ring.setAvailable(queue.next, id: 0)
    queue.next &+= 1
  }
}
