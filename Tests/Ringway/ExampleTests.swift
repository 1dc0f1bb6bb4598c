import Packet
import Ringway
import Testing

// The example of the README, kept here so that it compiles and runs.

func forward(_ first: String, _ second: String) throws {
  let ports = try Port.open([first, second])
  defer { for port in ports { port.close() } }
  var batch = PacketBatch(capacity: 32)
  while ports[0].isOpen && ports[1].isOpen {
    if ports[0].receive(into: &batch) == 0 { _ = try ports[0].wait(milliseconds: 100) }
    ports[1].send(&batch)
    batch.removeAll()
    for port in ports { _ = port.service() }
  }
}

@Suite struct ExampleTests {
  @Test func theExampleSaysWhichCardIsMissing() {
    let error = #expect(throws: RingwayError.self) { try forward("ffff:1f:1f.7", "ffff:1f:1f.6") }
    #expect(error.map { "\($0)".contains("ffff:1f:1f.7") } == true)
  }
}
