// When the card stops: transmit hangs, impossible answers, removal.

import CRingway
import DeviceIO
import DriverKit
import IntelRings
import Platform

extension IxgbeDriver {
  public func tick() -> DriverEvents {
    guard health == .running else { return health == .stopped ? [] : .lost }
    guard isPresent else {
      _ = lose()
      return .lost
    }
    var events = noticeLink()
    accumulateStatistics()
    do { try tendLink() } catch { return events.union(failed(error)) }
    var hung = false
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

  /// Looks at one queue's heads. The card's receive head must lie in the ring, and the transmit
  /// head between what is not freed yet and the tail.
  private func watch(_ i: Int) -> TransmitWatch.Finding {
    let received = registers.read(Reg.rdh, index: i, stride: Reg.queueStride)
    if received >= UInt32(options.receiveDescriptors) {
      guard isPresent else { return .fine }
      return .impossible("receive queue \(i)'s head is \(received), the ring has \(options.receiveDescriptors) descriptors")
    }
    return unsafe watchdog[i].look(
      queue: i, &transmitters[i], linkUp: lastLink.status == .up, now: clock.now(),
      readHead: { registers.read(Reg.tdh, index: i, stride: Reg.queueStride) })
  }

  /// Resets the card and puts everything back: filters, link, VLAN mode, interrupts. What was in
  /// the transmit rings is lost and counted; frames already received are kept.
  func recover() -> DriverEvents {
    hangs &+= 1
    registers.write(.all, to: Reg.eimc)
    registers.modify(Reg.rxctrl) { $0.remove(.enable) }
    flush()
    clock.sleep(nanoseconds: 1_000_000)
    for i in 0..<queueCount {
      unsafe receivers[i].save()
      unsafe receivers[i].running = false
      unsafe transmitters[i].running = false
    }
    do {
      try resetCard()
      for i in 0..<queueCount {
        unsafe transmitters[i].release()
        unsafe receivers[i].repost()
        watchdog[i] = TransmitWatch()
      }
      try bringUp()
    } catch {
      if health != .gone { quarantine("it did not come back from a reset: \(error)") }
      return [.reset, .lost]
    }
    // Whoever sleeps on a queue looks: saved frames wait, and blocked senders have room.
    for i in 0..<queueCount { EventFD.signal(eventDescriptor(queue: i)) }
    return noticeLink().union(.reset)
  }

  /// A reset for a reason that is said.
  func recoverFrom(_ problem: String) -> DriverEvents {
    warn("\(name): \(problem); it was reset")
    return recover()
  }

  /// What an error while running means: the card is gone, or cannot be trusted any more.
  func failed(_ error: DriverError) -> DriverEvents {
    if health != .gone { quarantine("\(error)") }
    return .lost
  }

  /// No more DMA and no more packets; buffers stay where they are until `stop`.
  func quarantine(_ reason: String) {
    silence()
    registers.write(.all, to: Reg.eimc)
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
