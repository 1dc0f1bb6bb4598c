import CRingway
import NetmapAPI
import NetmapCore
import NetmapServer
import Platform
import Testing

extension ServerSuites {
  @Suite("How long a sync takes")
  struct LatencyTests {
    private func median(_ count: Int, before: () -> Void = {}, _ body: () -> Void) -> UInt64 {
      let clock = MonotonicClock()
      var times: [UInt64] = []
      for _ in 0..<count {
        before()
        let start = clock.now()
        body()
        times.append(clock.now() &- start)
      }
      return times.sorted()[count / 2]
    }

    /// Two threads that hand an eventfd's signal back and forth.
    private func eventRoundTrip(_ count: Int) throws -> UInt64 {
      let there = try EventFD(), back = try EventFD(), over = Guarded(false)
      let (to, from) = (there.descriptor, back.descriptor)
      _ = rw_fcntl(to, F_SETFL, 0)
      _ = rw_fcntl(from, F_SETFL, 0)
      let thread = try JoinedThread(name: "echo") {
        while EventFD.drain(to) > 0, !over.withLock({ $0 }) { EventFD.signal(from) }
      }
      let found = median(count) {
        EventFD.signal(to)
        EventFD.drain(from)
      }
      over.withLock { $0 = true }
      EventFD.signal(to)
      thread.join()
      return found
    }

    @Test("A sync in a stream of syncs, beside an eventfd's round trip between two threads")
    func stream() throws {
      let lab = try ServerLab()
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let port = try #require(client.attach())
      // The two take turns; the best of each counts, because other programs share the processors.
      var best = (sync: UInt64.max, event: UInt64.max)
      for _ in 0..<10 {
        best.sync = min(best.sync, median(2000) { port.sync(0, spins: 100) })
        best.event = min(best.event, try eventRoundTrip(500))
      }
      print("median of a sync \(best.sync) ns, of an eventfd's round trip \(best.event) ns: ratio \(Double(best.sync) / Double(best.event))")
      // On two free processors it is less than one; on busy ones the futex carries it.
      #expect(best.sync < 50 * best.event)
    }

    @Test("A sync that finds its worker asleep is a few round trips of eventfds")
    func asleep() throws {
      let lab = try ServerLab { $0.spinMicroseconds = 0 }
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let port = try #require(client.attach())
      var best = (sync: UInt64.max, event: UInt64.max)
      for _ in 0..<3 {
        best.sync = min(best.sync, median(200, before: { MonotonicClock().sleep(nanoseconds: 200_000) }) { port.sync(0, spins: 0) })
        best.event = min(best.event, try eventRoundTrip(500))
      }
      print("median of a sync that wakes its worker \(best.sync) ns, of an eventfd's round trip \(best.event) ns")
      #expect(best.sync < 100 * best.event)
      #expect(lab.server.counters.doorbells >= 100)
    }
  }
}
