// Writes capture files: pcap with nanoseconds (draft-ietf-opsawg-pcap), Ethernet.

internal import CRingway
public import Platform
internal import SystemPackage

/// A pcap file that frames are added to. Buffered: `flush` or the end of the object writes the rest.
public final class CaptureWriter {
  public let path: String
  private let file: OwnedDescriptor
  private var buffer: [UInt8] = []
  private static let limit = 1 << 16
  /// Frames added.
  public private(set) var frames = 0
  /// The first write that failed; nothing is written after it.
  public private(set) var failure: SystemError?

  /// Creates the file, or empties it.
  public init(path: String) throws(WireError) {
    self.path = path
    do { file = try OwnedDescriptor(opening: path, flags: O_WRONLY | O_CREAT | O_TRUNC) } catch {
      throw .system(error, advice: "name a file in a directory that can be written")
    }
    buffer.reserveCapacity(CaptureWriter.limit + 4096)
    put(0xa1b2_3c4d)
    put(2 | 4 << 16)
    put(0)
    put(0)
    put(262_144)
    put(1)
  }

  deinit { flush() }

  private func put(_ value: UInt32) {
    for shift: UInt32 in [0, 8, 16, 24] { buffer.append(UInt8(truncatingIfNeeded: value >> shift)) }
  }

  /// - Parameter time: nanoseconds since any point in the past.
  public func add(_ frame: UnsafeRawBufferPointer, at time: UInt64) {
    frames += 1
    guard failure == nil else { return }
    put(UInt32(truncatingIfNeeded: time / 1_000_000_000))
    put(UInt32(truncatingIfNeeded: time % 1_000_000_000))
    let kept = min(frame.count, 262_144)
    put(UInt32(kept))
    put(UInt32(truncatingIfNeeded: frame.count))
    unsafe buffer.append(contentsOf: frame.piece(0, kept))
    if buffer.count >= CaptureWriter.limit { flush() }
  }

  /// Writes what is buffered.
  public func flush() {
    var done = 0
    while done < buffer.count, failure == nil {
      let start = done
      // SAFETY: the rest of the array.
      let wrote = unsafe buffer.withUnsafeBytes { unsafe write(file.raw, $0.baseAddress! + start, $0.count - start) }
      if wrote > 0 {
        done += wrote
      } else if rw_errno() != EINTR {
        failure = SystemError("write", path, Errno(rawValue: rw_errno()))
      }
    }
    buffer.removeAll(keepingCapacity: true)
  }
}
