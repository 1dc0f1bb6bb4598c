// Names of vendors and devices, from libpci's database.
//
// libpci is GPL-licensed. Only the command line depends on this module, so that programs that link
// the library stay under its own licence; a build without the trait `PCINames` (every static one:
// Debian has no static libpci) has the same interface and knows no names.

#if PCINames
  import CPci
#endif

/// The database of names, read when it is first asked. For one thread.
@safe public struct PCINameTable: ~Copyable {
  /// Whether this build has the database at all.
  public static var isAvailable: Bool {
    #if PCINames
      true
    #else
      false
    #endif
  }

  #if PCINames
    private let access: UnsafeMutablePointer<pci_access>?

    public init() {
      // SAFETY: pci_alloc gives a handle that pci_cleanup takes back in deinit. Without pci_init it
      // opens no device: it only knows where the names are.
      unsafe access = pci_alloc()
    }

    deinit {
      // SAFETY: the handle is ours and is used no more.
      unsafe pci_cleanup(access)
    }
  #else
    public init() {}
  #endif

  /// "Intel Corporation" for 0x8086; nil when unknown.
  public func vendor(_ vendor: UInt16) -> String? {
    #if PCINames
      unsafe name { unsafe rw_pci_vendor_name(access, $0, $1, Int32(vendor)) }
    #else
      nil
    #endif
  }

  /// "82574L Gigabit Network Connection" for 0x8086 and 0x10d3; nil when unknown.
  public func device(vendor: UInt16, device: UInt16) -> String? {
    #if PCINames
      unsafe name { unsafe rw_pci_device_name(access, $0, $1, Int32(vendor), Int32(device)) }
    #else
      nil
    #endif
  }

  #if PCINames
    private func name(_ look: (UnsafeMutablePointer<CChar>, Int32) -> UnsafePointer<CChar>?) -> String? {
      unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
        // SAFETY: libpci writes at most 256 bytes, ends them with a zero, and returns the buffer or a
        // string of its own that outlives this call.
        guard let start = buffer.baseAddress, let text = unsafe look(start, Int32(buffer.count)) else { return nil }
        let name = unsafe String(cString: text)
        return name.isEmpty ? nil : name
      }
    }
  #endif
}
