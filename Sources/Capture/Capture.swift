// Capture: packets into pcapng files, and libpcap's filter language in front of them.
//
//     Packet ──> PacketFilter (libpcap's compiler and interpreter) ──> PcapngWriter ──> file, pipe
//                       │                                                    │
//                       └── WireImage: the frame in one piece, as it was on the wire
//
// A capture shows wire frames: a frame that lies in several buffers is joined, and a VLAN tag that
// the card took out is put back, before a filter sees it and before it is written.
//
// Invariants
// - Nothing is allocated a packet: the writer fills a buffer that it made once, and the image of a
//   frame in pieces is built in memory that was made once.
// - Time stamps are nanoseconds of the Unix epoch; whoever has monotonic ones converts them.
// - A file is well formed after every flush: blocks are never cut. One exception is the disk's:
//   when a write fails half-way, the writer says so and writes no more.

internal import CRingway
public import Platform
internal import SystemPackage

/// What went wrong while capturing.
public enum CaptureError: Error, Equatable, CustomStringConvertible {
  /// The file could not be made.
  case open(SystemError)
  /// The reader of the pipe went away (EPIPE).
  case readerGone(path: String)
  /// The disk or the quota is full (ENOSPC, EDQUOT).
  case full(path: String)
  case write(SystemError)
  /// A filter expression that libpcap refuses, and libpcap's message.
  case filter(expression: String, message: String)
  /// Out of range: bytes a packet.
  case snapLength(Int)

  public var description: String {
    switch self {
    case .open(let error): "the capture file could not be made: \(error). Name another file with `-w`."
    case .readerGone(let path): "nobody reads \(path) any more. Write to a file with `-w FILE` to keep all packets."
    case .full(let path):
      "\(path): no space left, the capture ends. Free some, write elsewhere with `-w`, or cut packets with `--snap`."
    case .write(let error): "the capture file could not be written: \(error). Write elsewhere with `-w`."
    case .filter(let expression, let message):
      "the filter \"\(expression)\" is not valid: \(message). Expressions are described in pcap-filter(7)."
    case .snapLength(let count):
      "a snap length of \(count) bytes is not possible. Choose \(Capture.snapLengths.lowerBound) to \(Capture.snapLengths.upperBound)."
    }
  }

  /// What a failed write means.
  init(writing path: String, _ errno: Errno) {
    switch errno {
    case .brokenPipe: self = .readerGone(path: path)
    case .noSpace, .diskQuotaExceeded: self = .full(path: path)
    default: self = .write(SystemError("write", path, errno))
    }
  }
}

/// Limits that the parts of this module share.
public enum Capture {
  /// Bytes of each packet that can be kept. The upper bound is libpcap's MAXIMUM_SNAPLEN.
  public static let snapLengths = 1...262_144
  /// Keeps whole frames.
  public static let wholeFrames = 262_144
}
