// libpcap's filter expressions (pcap-filter(7)), compiled and run by libpcap.

internal import CPcap
public import Packet

/// A compiled filter for Ethernet frames.
@safe public struct PacketFilter: ~Copyable {
  /// What was compiled; empty lets everything through.
  public let expression: String
  private let program: UnsafeMutablePointer<bpf_program>
  private let image = WireImage()

  /// - Parameters:
  ///   - expression: "udp port 53", "host 198.18.0.1 and not arp"; empty accepts every frame.
  ///   - optimize: lets libpcap shorten the program.
  public init(_ expression: String, optimize: Bool = true) throws(CaptureError) {
    self.expression = expression
    // A handle that is no device: it only says which link type the expression is for.
    guard let handle = unsafe pcap_open_dead(DLT_EN10MB, Int32(Capture.wholeFrames)) else {
      throw .filter(expression: expression, message: "libpcap has no memory")
    }
    defer { unsafe pcap_close(handle) }
    let compiled = UnsafeMutablePointer<bpf_program>.allocate(capacity: 1)
    unsafe compiled.initialize(to: bpf_program())
    // SAFETY: the handle and the program are valid; the expression is null-terminated for the call.
    guard unsafe pcap_compile(handle, compiled, expression, optimize ? 1 : 0, PCAP_NETMASK_UNKNOWN) == 0 else {
      let message = unsafe String(cString: pcap_geterr(handle))
      unsafe compiled.deallocate()
      throw .filter(expression: expression, message: message)
    }
    unsafe program = compiled
  }

  deinit {
    unsafe pcap_freecode(program)
    unsafe program.deallocate()
  }

  /// Instructions of the compiled program.
  public var instructionCount: Int { unsafe Int(program.pointee.bf_len) }

  /// Whether the frame passes.
  public func matches(_ packet: borrowing Packet) -> Bool {
    let (bytes, wireLength) = unsafe image.bytes(of: packet)
    return unsafe matches(bytes, wireLength: wireLength)
  }

  /// Whether a frame passes of which `bytes` are there and which had `wireLength` bytes.
  public func matches(_ bytes: UnsafeRawBufferPointer, wireLength: Int) -> Bool {
    guard let start = bytes.baseAddress else { return false }
    var header = pcap_pkthdr()
    header.caplen = UInt32(truncatingIfNeeded: bytes.count)
    header.len = UInt32(truncatingIfNeeded: wireLength)
    // SAFETY: the interpreter reads at most `caplen` bytes; pcap_compile checked the program.
    return unsafe pcap_offline_filter(program, &header, start.assumingMemoryBound(to: UInt8.self)) != 0
  }
}
