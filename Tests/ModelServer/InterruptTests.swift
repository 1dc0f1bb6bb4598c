// SET_IRQS in all its forms.

import CRingway
import ModelKit
import Platform
import Testing

@testable import ModelServer

@Suite struct InterruptTests {
  /// DATA_EVENTFD and ACTION_TRIGGER; DATA_NONE and each action.
  static let connect: UInt32 = 0x24, off: UInt32 = 0x21, fire: UInt32 = 0x21, mask: UInt32 = 0x09, unmask: UInt32 = 0x11

  /// Makes the device interrupt so many times.
  private func ring(_ client: RawClient, vector: UInt32, total: UInt32) throws {
    try client.setRegister(0x2c, vector)
    try client.setRegister(0x1000, total)
    #expect(try eventually { try client.register(0x24) == total })
  }

  @Test(arguments: [AccessMode.trapped, .shared])
  func vectorsReachTheirOwnEventfds(_ mode: AccessMode) throws {
    let client = try ServerBench.fresh(mode)
    let first = try EventFD(), second = try EventFD()
    #expect(try !client.setInterrupts(0x24, 2, 3, 2, [first.descriptor, second.descriptor]).isError)
    try ring(client, vector: 3, total: 1)
    #expect(eventually { first.drain() == 1 })
    try ring(client, vector: 4, total: 3)
    #expect(eventually { second.drain() > 0 })
    #expect(first.drain() == 0)
    // Not connected: nobody hears it.
    try ring(client, vector: 5, total: 4)
    #expect(first.drain() == 0 && second.drain() == 0)
    // Taken away: no descriptors.
    #expect(try !client.setInterrupts(0x24, 2, 3, 1).isError)
    try ring(client, vector: 3, total: 5)
    try ring(client, vector: 4, total: 6)
    #expect(eventually { second.drain() == 1 })
    #expect(first.drain() == 0)
    // Off altogether.
    #expect(try !client.setInterrupts(0x21, 2, 0, 0).isError)
    try ring(client, vector: 4, total: 7)
    #expect(second.drain() == 0)
  }

  @Test func switchingOnWithoutAnyVectorIsOn() throws {
    let bench = try ServerBench(mode: .trapped)
    let client = try bench.connect()
    #expect(try !client.setInterrupts(0x24, 2, 0, 1).isError)
    let event = try EventFD()
    #expect(try !client.setInterrupts(0x24, 2, 63, 1, [event.descriptor]).isError)
    try ring(client, vector: 63, total: 1)
    #expect(event.drain() == 1)
  }

  @Test func maskedVectorsArePendingUntilUnmasked() throws {
    let client = try ServerBench.fresh(.trapped)
    let event = try EventFD()
    #expect(try !client.setInterrupts(0x24, 2, 1, 1, [event.descriptor]).isError)
    #expect(try !client.setInterrupts(InterruptTests.mask, 2, 1, 1).isError)
    try ring(client, vector: 1, total: 2)
    #expect(event.drain() == 0)
    #expect(try !client.setInterrupts(InterruptTests.unmask, 2, 1, 1).isError)
    #expect(event.drain() == 1)
    #expect(try !client.setInterrupts(InterruptTests.unmask, 2, 1, 1).isError)
    #expect(event.drain() == 0)
    // The client raises some itself, chosen by bytes.
    #expect(try !client.setInterrupts(InterruptTests.fire, 2, 0, 3).isError)
    #expect(event.drain() == 1)
    #expect(try !client.setInterrupts(0x22, 2, 0, 3, data: [1, 0, 1]).isError)
    #expect(event.drain() == 0)
    #expect(try !client.setInterrupts(0x22, 2, 0, 3, data: [0, 1, 0]).isError)
    #expect(event.drain() == 1)
  }

  @Test func intxMasksItself() throws {
    let client = try ServerBench.fresh(.trapped)
    let event = try EventFD(), resample = try EventFD()
    #expect(try !client.setInterrupts(0x24, 0, 0, 1, [event.descriptor]).isError)
    try ring(client, vector: 9, total: 1)
    #expect(event.drain() == 1)
    try ring(client, vector: 9, total: 2)
    #expect(event.drain() == 0)
    #expect(try !client.setInterrupts(InterruptTests.unmask, 0, 0, 1).isError)
    #expect(event.drain() == 1)
    // By an eventfd of the client's, without a message.
    #expect(try !client.setInterrupts(0x14, 0, 0, 1, [resample.descriptor]).isError)
    try ring(client, vector: 9, total: 3)
    #expect(event.drain() == 0)
    resample.signal()
    #expect(eventually { event.drain() == 1 })
    #expect(try client.setInterrupts(0x14, 2, 0, 1, [resample.descriptor]).errno == EOPNOTSUPP)
  }

  @Test func theBestKindThatIsOnCarriesInterrupts() throws {
    let client = try ServerBench.fresh(.trapped)
    let msi = try EventFD(), msix = try EventFD(), intx = try EventFD()
    #expect(try !client.setInterrupts(0x24, 0, 0, 1, [intx.descriptor]).isError)
    #expect(try !client.setInterrupts(0x24, 1, 0, 1, [msi.descriptor]).isError)
    try ring(client, vector: 7, total: 1)
    #expect(msi.drain() == 1 && intx.drain() == 0)
    #expect(try !client.setInterrupts(0x24, 2, 7, 1, [msix.descriptor]).isError)
    try ring(client, vector: 7, total: 2)
    #expect(msix.drain() == 1 && msi.drain() == 0)
    #expect(try !client.setInterrupts(0x21, 2, 0, 0).isError)
    #expect(try !client.setInterrupts(0x21, 1, 0, 0).isError)
    try ring(client, vector: 7, total: 3)
    #expect(intx.drain() == 1 && msi.drain() == 0 && msix.drain() == 0)
  }

  @Test func errorAndRequestInterruptsAreConnected() throws {
    let client = try ServerBench.fresh(.trapped)
    let error = try EventFD(), request = try EventFD()
    #expect(try !client.setInterrupts(0x24, 3, 0, 1, [error.descriptor]).isError)
    #expect(try !client.setInterrupts(0x24, 4, 0, 1, [request.descriptor]).isError)
    #expect(try !client.setInterrupts(InterruptTests.fire, 4, 0, 1).isError)
    #expect(request.drain() == 1 && error.drain() == 0)
    #expect(try client.setInterrupts(0x24, 4, 0, 2).errno == EINVAL)
  }

  @Test func refusesWhatMakesNoSense() throws {
    let client = try ServerBench.fresh(.trapped)
    let event = try EventFD()
    let file = try memoryFile(0x1000)
    func refused(_ flags: UInt32, _ index: UInt32, _ start: UInt32, _ count: UInt32, _ events: [Int32] = []) throws {
      let reply = try client.setInterrupts(flags, index, start, count, events)
      #expect(reply.errno == EINVAL, "\(flags) \(index) \(start) \(count)")
    }
    try refused(0x24, 5, 0, 1, [event.descriptor])
    try refused(0x24, 2, 64, 1, [event.descriptor])
    try refused(0x24, 2, 0, 65)
    try refused(0x24, 2, .max, 2)
    try refused(0x24, 2, 1, .max)
    try refused(0x24, 2, 0, 2, [event.descriptor])
    try refused(0x24, 2, 0, 1, [file.raw])
    try refused(0x26, 2, 0, 1)
    try refused(0x34, 2, 0, 1)
    try refused(0x20, 2, 0, 1)
    try refused(0x04, 2, 0, 1)
    try refused(0x64, 2, 0, 1)
    try refused(0x24, 2, 0, 0)
    try refused(0x21, 2, 1, 0)
    #expect(try client.setInterrupts(0x22, 2, 0, 3, data: [1, 1]).errno == EINVAL)
    #expect(try client.ask(8, le32(20)).errno == EINVAL)
    // Nothing of that has connected anything.
    try ring(client, vector: 0, total: 1)
    #expect(event.drain() == 0)
  }

  @Test func anEventfdThatIsFullStopsNobody() throws {
    let client = try ServerBench.fresh(.trapped)
    // Blocking, and its counter as full as it gets.
    let raw = eventfd(0, Int32(EFD_CLOEXEC))
    try #require(raw >= 0)
    defer { _ = close(raw) }
    try #require(eventfd_write(raw, UInt64.max - 1) == 0)
    #expect(try !client.setInterrupts(0x24, 2, 0, 1, [raw]).isError)
    try ring(client, vector: 0, total: 2)
    #expect(try client.register(0) == CopyEngine.identity)
  }
}
