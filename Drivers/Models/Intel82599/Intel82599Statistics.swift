// Statistics (datasheet, 8.2.3.23). Lengths count the check sequence, but for those of queues, which
// count what goes to and comes from memory.

import ModelKit

extension Intel82599Model {
  /// Which of six sizes a frame is of: 64, 65-127, 128-255, 256-511, 512-1023, 1024 and more.
  @inline(__always) private static func bucket(_ length: Int) -> Int {
    length <= 64 ? 0 : length < 128 ? 1 : length < 256 ? 2 : length < 512 ? 3 : length < 1024 ? 4 : 5
  }

  func countReceived(_ frame: UnsafeRawBufferPointer, isBad: Bool) {
    let length = frame.count + 4
    countLong(Count599.totalBytesReceived, length)
    count(Count599.totalReceived)
    guard !isBad else { return }
    count(Count599.received64 + Self.bucket(length) * 4)
    count(Count599.goodReceived)
    countLong(Count599.goodBytesReceived, length)
    guard unsafe frame.byte(0) & 1 != 0 else { return }
    let isBroadcast = unsafe frame.big32(0) == .max && frame.big16(4) == 0xffff
    count(isBroadcast ? Count599.broadcastReceived : Count599.multicastReceived)
  }

  func countSent(_ frame: UnsafeRawBufferPointer, _ queue: Int) {
    let length = frame.count + 4
    count(Count599.totalSent)
    count(Count599.goodSent)
    countLong(Count599.goodBytesSent, length)
    count(Count599.sent64 + Self.bucket(length) * 4)
    let place = transmitStatistic(queue)
    if !bus.sharesDoorbells { count(Count599.queueSent + place * 0x40) }
    countLong(Count599.queueBytesSent + place * 8, frame.count)
    guard unsafe frame.byte(0) & 1 != 0 else { return }
    let isBroadcast = unsafe frame.big32(0) == .max && frame.big16(4) == 0xffff
    count(isBroadcast ? Count599.broadcastSent : Count599.multicastSent)
  }

  /// Counters of queues 0 to 15 lie between registers that a driver may have mapped: not kept then.
  func countQueueReceived(_ queue: Int, _ length: Int) {
    guard !bus.sharesDoorbells else { return }
    let at = receiveStatistic(queue) * 0x40
    count(Count599.queueReceived + at)
    countLong(Count599.queueBytesReceived + at, length)
  }

  /// RQSMR and TQSM (8.2.3.23.71, 73): four queues to a register.
  func receiveStatistic(_ queue: Int) -> Int {
    Int(get(At599.receiveStatisticsMap + queue & ~3) >> UInt32((queue & 3) * 8) & 0xf)
  }
  func transmitStatistic(_ queue: Int) -> Int {
    Int(get(At599.transmitStatisticsMap + queue & ~3) >> UInt32((queue & 3) * 8) & 0xf)
  }
}
