// A sync page in memory: a sealed file that programs map too.

internal import CRingway
internal import NetmapAPI
internal import Platform

/// The memory of one sync page. What stands in it is a program's as much as ours: nothing that is read here decides more
/// than which ring of that same program is looked at.
@safe final class PageMemory: @unchecked Sendable {
  private let base: UnsafeMutableRawPointer
  /// Whole pages.
  let bytes: Int
  let rings: Int
  private let file: OwnedDescriptor
  private let fault: FaultFlag
  private let window: FaultGuard.Window
  /// Its memory was taken away: what is written here reaches no program any more.
  var isTaken: Bool { fault.isRaised }
  /// For programs; never closed while this object lives.
  var descriptor: Int32 { file.raw }

  /// A page for so many rings and doorbells; every worker behind a doorbell counts as asleep.
  init(rings: Int, doorbells: Int) throws(NetmapError) {
    self.rings = rings
    bytes = SyncPage.bytes(rings: rings)
    let raw = unsafe rw_memfd_create("netmap sync page", RW_MFD_CLOEXEC | RW_MFD_ALLOW_SEALING)
    guard raw >= 0 else { throw Self.noMemory("a file") }
    file = OwnedDescriptor(taking: raw)
    guard ftruncate(raw, bytes) == 0 else { throw Self.noMemory("\(bytes) bytes") }
    let shared = unsafe rw_raw_mmap(nil, bytes, Int32(PROT_READ | PROT_WRITE), Int32(MAP_SHARED), raw, 0)
    guard let shared = unsafe shared else { throw Self.noMemory("a mapping of \(bytes) bytes") }
    unsafe base = shared
    do { fault = try FaultGuard.openFlag() } catch {
      _ = unsafe munmap(shared, bytes)
      throw Self.noMemory("a fault's flag")
    }
    do { window = unsafe try FaultGuard.add(base: shared, count: bytes, pageSize: 4096, kind: .zeros, flag: fault) } catch {
      FaultGuard.close(fault)
      _ = unsafe munmap(shared, bytes)
      throw Self.noMemory("a guarded window")
    }
    // Nobody can cut it short under this process's feet, nor let it grow.
    guard rw_fcntl(raw, RW_F_ADD_SEALS, RW_F_SEAL_SIZE) == 0 else { throw Self.noMemory("a seal") }
    store(SyncPage.magicOffset, SyncPage.magic)
    store(SyncPage.versionOffset, SyncPage.version)
    store(SyncPage.ringCountOffset, UInt32(truncatingIfNeeded: rings))
    store(SyncPage.doorbellCountOffset, UInt32(truncatingIfNeeded: doorbells))
    for doorbell in 0..<doorbells { store(SyncPage.sleeping(doorbell), 1) }
    store(SyncPage.stateOffset, SyncPage.open)
  }

  deinit {
    FaultGuard.remove(window)
    FaultGuard.close(fault)
    _ = unsafe munmap(base, bytes)
  }

  private static func noMemory(_ what: String) -> NetmapError {
    NetmapError(.ENOMEM, "No memory for a sync page: \(what) was refused (error \(rw_errno())).")
  }

  // SAFETY: of the accesses: every offset is one of `SyncPage`'s, for a doorbell or a ring that the page was made for.

  @inline(__always) func load(_ offset: Int) -> UInt32 { unsafe rw_load_acquire32(base + offset) }
  @inline(__always) func store(_ offset: Int, _ value: UInt32) { unsafe rw_store_release32(base + offset, value) }
  /// Wakes every process that waits for a change of the word.
  func wake(_ offset: Int) { unsafe rw_futex_wake((base + offset).assumingMemoryBound(to: UInt32.self)) }
}
