// Interrupts as VFIO has them: five kinds, each with numbered lines that an eventfd may be tied to.
//
//     model ── bus.interrupt ──> deliver(kind, line) ──┬─ masked: pending
//                                                      └─ otherwise: eventfd += 1
//
// INTx is a level: it masks itself when it is delivered, and the client unmasks it by a command or by
// an eventfd of its own.

internal import CRingway
internal import ModelKit
internal import Platform
internal import SystemPackage

/// What kinds of interrupts there are (linux/vfio.h).
enum InterruptIndex {
  static let intx = 0, msi = 1, msix = 2, error = 3, request = 4
  static let count = 5
}

/// One client's interrupts.
final class InterruptLines {
  private struct Line {
    var event: OwnedEvent?
    var isMasked = false
    var isPending = false
  }

  /// VFIO_IRQ_SET_DATA_NONE, _BOOL, _EVENTFD; VFIO_IRQ_SET_ACTION_MASK, _UNMASK, _TRIGGER.
  private enum Flag {
    static let none: UInt32 = 1, bool: UInt32 = 2, event: UInt32 = 4
    static let mask: UInt32 = 8, unmask: UInt32 = 16, trigger: UInt32 = 32
  }

  private var lines: [[Line]]
  private var isOn = [Bool](repeating: false, count: InterruptIndex.count)
  private let bus: ModelBus
  /// Signalled by the client when INTx may come again.
  private var resample: OwnedEvent?
  /// Eventfds signalled.
  private(set) var delivered: UInt64 = 0
  /// Raised while nothing was tied to them.
  private(set) var unconnected: UInt64 = 0

  init(_ bus: ModelBus, counts: [Int]) {
    self.bus = bus
    lines = counts.map { Array(repeating: Line(), count: $0) }
  }

  /// To be watched: `unmaskByEvent` when it is readable. -1 when there is none.
  var resampleDescriptor: Int32 { resample?.raw ?? -1 }
  /// Lines that have an eventfd, of all kinds.
  var connected: Int { lines.reduce(0) { $0 + $1.count { $0.event != nil } } }

  /// IRQ_INFO's flags: 1 eventfd, 2 maskable, 4 masks itself, 8 set up as a whole.
  func info(_ index: Int) -> (flags: UInt32, count: Int) {
    let flags: UInt32 =
      switch index {
      case InterruptIndex.intx: 7
      case InterruptIndex.msi, InterruptIndex.msix: 1
      default: 9
      }
    return (flags, lines[index].count)
  }

  // MARK: From the device

  func deliver(_ index: Int, _ line: Int) {
    guard lines.indices.contains(index), lines[index].indices.contains(line) else { return }
    guard !lines[index][line].isMasked else {
      lines[index][line].isPending = true
      return
    }
    guard let event = lines[index][line].event else {
      unconnected &+= 1
      return
    }
    if index == InterruptIndex.intx { lines[index][line].isMasked = true }
    delivered &+= 1
    EventFD.signal(event.raw)
  }

  // MARK: From the client

  /// `VFIO_USER_DEVICE_SET_IRQS`.
  /// - Throws: EINVAL for what makes no sense, ENOTSUP for what VFIO has and this has not.
  func set(_ fields: Fields, _ passed: PassedDescriptors) throws(Errno) {
    try fields.require(20)
    let flags = fields.le32(4), index = Int(fields.le32(8))
    let start = Int(fields.le32(12)), count = Int(fields.le32(16))
    let data = flags & 7, action = flags & 0x38
    guard fields.le32(0) >= 20, flags & ~0x3f == 0, data.nonzeroBitCount == 1, action.nonzeroBitCount == 1,
      index < InterruptIndex.count
    else { throw .invalidArgument }
    if count == 0 {
      guard data == Flag.none, action == Flag.trigger, start == 0 else { throw .invalidArgument }
      return switchOff(index)
    }
    guard start <= lines[index].count, count <= lines[index].count - start else { throw .invalidArgument }
    let range = start..<start + count
    switch data {
    case Flag.none:
      for line in range { act(action, index, line) }
    case Flag.bool:
      try fields.require(20 + count)
      for line in range where fields.bytes[20 + line - start] != 0 { act(action, index, line) }
    default:
      try connect(action, index, range, passed)
    }
  }

  private func act(_ action: UInt32, _ index: Int, _ line: Int) {
    switch action {
    case Flag.mask: lines[index][line].isMasked = true
    case Flag.unmask: unmask(index, line)
    default: deliver(index, line)
    }
  }

  private func unmask(_ index: Int, _ line: Int) {
    lines[index][line].isMasked = false
    guard lines[index][line].isPending else { return }
    lines[index][line].isPending = false
    deliver(index, line)
  }

  /// Ties lines to eventfds, or with none given takes theirs away.
  private func connect(_ action: UInt32, _ index: Int, _ range: Range<Int>, _ passed: PassedDescriptors) throws(Errno) {
    guard passed.count == 0 || passed.count == range.count else { throw .invalidArgument }
    for place in 0..<passed.count { try requireEvent(passed[place]) }
    switch action {
    case Flag.trigger:
      for line in range {
        lines[index][line].event = passed.count == 0 ? nil : passed.take(line - range.lowerBound)
        if passed.count == 0 { lines[index][line].isPending = false }
      }
      isOn[index] = true
      tellBus()
    case Flag.unmask where index == InterruptIndex.intx:
      resample = passed.count == 0 ? nil : passed.take(0)
    default: throw .notSupported
    }
  }

  /// An eventfd, and one that does not make us wait: a client could fill its counter.
  private func requireEvent(_ descriptor: Int32) throws(Errno) {
    if let kind = try? Files.linkTarget("/proc/self/fd/\(descriptor)"), !kind.hasPrefix("anon_inode:[eventfd") {
      throw .invalidArgument
    }
    let flags = rw_fcntl(descriptor, F_GETFL, 0)
    if flags >= 0, flags & O_NONBLOCK == 0 { _ = rw_fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) }
  }

  private func switchOff(_ index: Int) {
    for line in lines[index].indices { lines[index][line] = Line() }
    if index == InterruptIndex.intx { resample = nil }
    isOn[index] = false
    tellBus()
  }

  func switchAllOff() { for index in 0..<InterruptIndex.count { switchOff(index) } }

  /// After a reset: what had been raised is gone; who listens stays.
  func forgetPending() {
    for index in lines.indices { for line in lines[index].indices { lines[index][line].isPending = false } }
  }

  /// The client's own eventfd says that INTx may come again.
  func unmaskByEvent() {
    guard let resample, EventFD.drain(resample.raw) > 0, !lines[InterruptIndex.intx].isEmpty else { return }
    unmask(InterruptIndex.intx, 0)
  }

  private func tellBus() {
    bus.interruptKind =
      isOn[InterruptIndex.msix] ? .msix : isOn[InterruptIndex.msi] ? .msi : isOn[InterruptIndex.intx] ? .intx : nil
  }
}
