// When the card stops: transmit hangs, impossible answers, removal.

import CRingway
import DeviceIO
import DriverKit
import Platform

/// What the watchdog saw of one transmit ring.
struct Watchdog {
  /// The card's head when it was last seen to move, and when that was (nanoseconds).
  var head: UInt32 = 0
  var since: UInt64 = 0
  /// Whether anything was pending then.
  var waiting = false
}

extension E1000eDriver {
  /// How long a head may stand still with work pending and the link up: 2 s.
  static let hangNanoseconds: UInt64 = 2_000_000_000

  public func tick() -> DriverEvents {
    guard health == .running else { return health == .stopped ? [] : .lost }
    guard isPresent else {
      _ = lose()
      return .lost
    }
    var events = noticeLink()
    accumulateStatistics()
    var hung = lastLink.status == .up && isPHYStuck
    for i in 0..<queueCount {
      switch watch(i) {
      case .fine: break
      case .hung: hung = true
      case .impossible(let problem):
        quarantine(problem)
        return events.union(.lost)
      }
    }
    if hung { events.formUnion(recover()) }
    return events
  }

  private enum Finding {
    case fine
    case hung
    case impossible(String)
  }

  /// Looks at one queue's heads. The card's receive head must lie in the ring, and the transmit
  /// head between what is not freed yet and the tail.
  private func watch(_ i: Int) -> Finding {
    let received = registers.read(Reg.rdh, index: i, stride: Reg.queueStride)
    if received >= UInt32(options.receiveDescriptors) {
      return .impossible("receive queue \(i)'s head is \(received), the ring has \(options.receiveDescriptors) descriptors")
    }
    let head = registers.read(Reg.tdh, index: i, stride: Reg.queueStride)
    unsafe transmitters[i].collect()
    let pending = unsafe transmitters[i].pending, tail = unsafe transmitters[i].next
    let behind = (tail &- Int(truncatingIfNeeded: head)) & (options.transmitDescriptors - 1)
    // The head was read before the ring was collected, so it may lie behind what is free now, but
    // never ahead of the tail: ahead, it would seem nearly a whole ring behind.
    if head >= UInt32(options.transmitDescriptors) || (pending > 0 && behind > pending && !moved(i, head)) {
      return .impossible("transmit queue \(i)'s head is \(head), which was never handed over")
    }
    let now = clock.now()
    if pending == 0 || !watchdog[i].waiting || head != watchdog[i].head || lastLink.status != .up {
      watchdog[i] = Watchdog(head: head, since: now, waiting: pending > 0)
      return .fine
    }
    return now &- watchdog[i].since >= Self.hangNanoseconds ? .hung : .fine
  }

  /// Whether the head, read again, lies between the oldest pending descriptor and the tail.
  private func moved(_ i: Int, _ head: UInt32) -> Bool {
    let again = registers.read(Reg.tdh, index: i, stride: Reg.queueStride)
    let behind = unsafe (transmitters[i].next &- Int(truncatingIfNeeded: again)) & (options.transmitDescriptors - 1)
    return unsafe again < UInt32(options.transmitDescriptors) && behind <= transmitters[i].pending
  }

  /// Resets the card and puts everything back: filters, link, VLAN mode, interrupts. What was in
  /// the transmit rings is lost and counted; frames already received are kept.
  func recover() -> DriverEvents {
    hangs &+= 1
    registers.write(.all, to: Reg.imc)
    registers.write([], to: Reg.rctl)
    registers.modify(Reg.tctl) { $0.remove(.enable) }
    flush()
    clock.sleep(nanoseconds: 1_000_000)
    for i in 0..<queueCount {
      unsafe receivers[i].save()
      unsafe receivers[i].running = false
    }
    do { try resetCard() } catch {
      if health != .gone { quarantine("it did not come back from a reset: \(error)") }
      return [.reset, .lost]
    }
    for i in 0..<queueCount {
      unsafe transmitters[i].release()
      unsafe receivers[i].repost()
      watchdog[i] = Watchdog()
    }
    bringUp(bufferBits)
    // Whoever sleeps on a queue looks: saved frames wait, and blocked senders have room.
    for i in 0..<queueCount { EventFD.signal(eventDescriptor(queue: i)) }
    return noticeLink().union(.reset)
  }

  /// No more DMA and no more packets; buffers stay where they are until `stop`.
  func quarantine(_ reason: String) {
    silence()
    registers.write(.all, to: Reg.imc)
    health = .quarantined(reason: reason)
  }

  /// The card is gone. Gives the error to throw.
  func lose() -> DriverError {
    silence()
    health = .gone
    return .gone(card: name)
  }

  private func silence() {
    function.setBusMaster(false)
    for i in 0..<queueCount {
      unsafe receivers[i].running = false
      unsafe transmitters[i].running = false
    }
  }
}
