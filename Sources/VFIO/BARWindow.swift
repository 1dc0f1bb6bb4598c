// One mapped piece of a BAR.

internal import CRingway
internal import Platform
internal import SystemPackage

/// A mapping of device registers that stays readable for as long as anybody holds it: of the
/// device while it is there, of all ones after a fault or after `detach`.
///
/// Sendable: the memory is the device's, and the fields never change.
@safe final class BARWindow: @unchecked Sendable {
  /// First byte, on a page.
  let base: UnsafeMutableRawPointer
  /// Bytes that are registers; the mapping itself is whole pages.
  let count: Int
  private let mapped: Int
  private let fileOffset: UInt64
  private let flag: FaultFlag
  private let place: FaultGuard.Window

  /// Maps `count` bytes at `fileOffset` of the device's file.
  /// - Parameters:
  ///   - fileOffset: a multiple of the page size.
  ///   - event: eventfd that is signalled when an access faults; stays open as long as the window.
  init(descriptor: Int32, fileOffset: UInt64, count: Int, event: Int32) throws(Errno) {
    let page = BARWindow.pageSize
    mapped = (count + page - 1) & ~(page - 1)
    self.count = count
    self.fileOffset = fileOffset
    let made = unsafe mmap(nil, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, off_t(fileOffset))
    guard let made = unsafe made, UInt(bitPattern: made) != .max else { throw Errno(rawValue: rw_errno()) }
    unsafe base = made
    // A child of this process must not drive the card: two would feed one ring.
    _ = unsafe madvise(made, mapped, MADV_DONTFORK)
    do throws(Errno) {
      let flag = try FaultGuard.openFlag()
      do throws(Errno) {
        place = try unsafe FaultGuard.add(base: made, count: mapped, pageSize: page, kind: .ones, flag: flag, event: event)
      } catch {
        FaultGuard.close(flag)
        throw error
      }
      self.flag = flag
    } catch {
      _ = unsafe munmap(made, mapped)
      throw error
    }
  }

  static let pageSize = Int(getpagesize())

  /// Whether an access has faulted since the mapping was made or made anew.
  var hasFaulted: Bool { flag.isRaised }

  /// Maps the device again at the same address, so that doorbells into it go on working.
  func remap(descriptor: Int32) throws(Errno) {
    flag.clear()
    // SAFETY: replaces this object's own mapping in one step.
    let made = unsafe mmap(base, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, off_t(fileOffset))
    guard UInt(bitPattern: made) != .max else { throw Errno(rawValue: rw_errno()) }
  }

  /// Lets go of the device: reads give all ones from now on.
  func detach() {
    // Without memory for it the mapping stays, and with it the device's file; it goes with the window.
    _ = FaultGuard.cover(place)
  }

  deinit {
    FaultGuard.remove(place)
    FaultGuard.close(flag)
    // SAFETY: this object's own mapping; nobody holds the object any more.
    _ = unsafe munmap(base, mapped)
  }
}
