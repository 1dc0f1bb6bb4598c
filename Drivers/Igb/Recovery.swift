// When the card stops: transmit hangs, impossible answers, removal.

import DeviceIO
import DriverKit
import IntelRings
import Platform

extension IgbDriver {
  public func tick() -> DriverEvents {
    guard health == .running else { return health == .stopped ? [] : .lost }
    guard isPresent else {
      _ = lose()
      return .lost
    }
    var events = noticeLink()
    accumulateStatistics()
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

  /// Looks at one queue's heads: the card's receive head lies in the ring, the transmit head moves.
  private func watch(_ i: Int) -> TransmitWatch.Finding {
    let received = registers.read(Reg.rdh, index: i, stride: Reg.queueStride)
    if received >= UInt32(options.receiveDescriptors) {
      return .impossible("receive queue \(i)'s head is \(received), the ring has \(options.receiveDescriptors) descriptors")
    }
    return unsafe watches[i].look(
      queue: i, &transmitters[i], linkUp: lastLink.status == .up, now: clock.now(),
      readHead: { registers.read(Reg.tdh, index: i, stride: Reg.queueStride) })
  }

  /// Resets the card and puts everything back: filters, link, VLAN mode, interrupts. What was in
  /// the transmit rings is lost and counted; frames already received are kept.
  func recover() -> DriverEvents {
    hangs &+= 1
    maskEverything()
    registers.write([], to: Reg.rctl)
    registers.modify(Reg.tctl) { $0.remove(.enable) }
    flush()
    clock.sleep(nanoseconds: 1_000_000)
    for i in 0..<queueCount {
      unsafe receivers[i].save()
      unsafe receivers[i].running = false
    }
    do {
      try resetCard()
      for i in 0..<queueCount {
        unsafe transmitters[i].release()
        unsafe receivers[i].repost()
        watches[i] = TransmitWatch()
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

  /// No more DMA and no more packets; buffers stay where they are until `stop`.
  func quarantine(_ reason: String) {
    silence()
    maskEverything()
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
