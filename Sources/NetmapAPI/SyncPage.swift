// The sync page: how a sync costs no request.
//
// The daemon makes one page file for each registered descriptor. Every process that uses the descriptor maps it.
//
//     0  header                      the daemon's
//    64  armed for receive           the program's: somebody sleeps until a receive ring has something
//   128  armed for transmit          the program's
//   192  loop                        the library's own: state of a sync loop (CSB), a futex
//   256  doorbell d, 64 bytes each   the daemon's: its worker sleeps
//  2048  ring r, 128 bytes each      first line the program's, second line the daemon's
//
// A sync, by the program:   request += 1 (atomically, releasing) ── fence ── doorbell's `sleeping`? write its eventfd
//                           spin a while until done has reached the request; then waiters += 1, futex(done), waiters -= 1
//         by the worker:    request != done ──> read head and cur once, sync, show tail ── done = the request it read,
//                           releasing ── fence ── waiters? futex wake
//         before it sleeps: sleeping = 1 ── fence ── look at every request again
// Waiting, by the program:  armed = 1 ── fence ── sync once more ── still nothing: poll(2) on the descriptor itself
//         by the daemon:    something came ── armed? armed = 0, one byte to the descriptor's socket, never waiting
// After a wakeup the program takes the bytes off the socket, and syncs. Two programs may wait on one descriptor, and one
// of them may take the other's byte: nobody sleeps longer than `longestSleep` without looking again.
//
// Nothing in the page is trusted by the daemon: what it needs to know it keeps for itself, and the page alone tells it
// which rings to look at. The file's size is sealed.

/// Offsets in the page, in bytes. All fields are 32 bits.
public enum SyncPage {
  public static let magic: UInt32 = 0x5257_5350
  public static let version: UInt32 = 1

  public static let magicOffset = 0
  public static let versionOffset = 4
  public static let ringCountOffset = 8
  public static let doorbellCountOffset = 12
  /// `open`, or `gone` when the port's card has left or the daemon ends: syncs fail then.
  public static let stateOffset = 16
  /// `csbEnabled`, ….
  public static let flagsOffset = 20
  public static let receiveArmed = 64
  public static let transmitArmed = 128
  public static let loopState = 192

  public static let open: UInt32 = 1
  public static let gone: UInt32 = 2
  public static let csbEnabled: UInt32 = 1

  public static let mostDoorbells = 28
  /// Not 0 while the worker behind doorbell `d` sleeps, or is about to.
  public static func sleeping(_ d: Int) -> Int { 256 + 64 * d }

  public static let ringsOffset = 2048
  public static let ringSize = 128
  public static func ring(_ r: Int) -> Int { ringsOffset + ringSize * r }
  // Within a ring: the program's line.
  public static let request = 0
  public static let waiters = 4
  // The daemon's line.
  public static let done = 64
  public static let hwcur = 68
  public static let hwtail = 72
  /// `faulted` after a sync that reset the ring: poll answers POLLERR.
  public static let status = 76
  public static let faulted: UInt32 = 1

  /// Bytes of a page with so many rings: whole pages.
  public static func bytes(rings: Int) -> Int { (ringsOffset + ringSize * max(0, rings) + 4095) & ~4095 }

  /// Milliseconds after which a sleeper looks again by itself.
  public static let longestSleep = 100
}
