// The standard's numbers: feature bits, status bits, and where this device keeps its structures.

import Wire

/// Feature bits (clauses 5.1.3 and 6).
public enum VirtioModelFeature {
  public static let checksum: UInt64 = 1 << 0
  public static let guestChecksum: UInt64 = 1 << 1
  public static let guestOffloads: UInt64 = 1 << 2
  public static let mtu: UInt64 = 1 << 3
  public static let mac: UInt64 = 1 << 5
  public static let hostTSO4: UInt64 = 1 << 11
  public static let hostTSO6: UInt64 = 1 << 12
  public static let hostECN: UInt64 = 1 << 13
  public static let mergeableBuffers: UInt64 = 1 << 15
  public static let status: UInt64 = 1 << 16
  public static let controlQueue: UInt64 = 1 << 17
  public static let controlReceive: UInt64 = 1 << 18
  public static let controlVLAN: UInt64 = 1 << 19
  public static let controlReceiveExtra: UInt64 = 1 << 20
  public static let announce: UInt64 = 1 << 21
  public static let multiqueue: UInt64 = 1 << 22
  public static let controlMAC: UInt64 = 1 << 23
  public static let indirectDescriptors: UInt64 = 1 << 28
  public static let eventIndex: UInt64 = 1 << 29
  public static let version1: UInt64 = 1 << 32
  public static let accessPlatform: UInt64 = 1 << 33
  public static let inOrder: UInt64 = 1 << 35
  public static let ringReset: UInt64 = 1 << 40
  public static let coalescing: UInt64 = 1 << 53
  public static let hashReport: UInt64 = 1 << 57
  public static let receiveScaling: UInt64 = 1 << 60
  public static let speedDuplex: UInt64 = 1 << 63
  /// Of no use with one queue pair.
  public static let severalQueues: UInt64 = multiqueue | receiveScaling
  /// Checksums and segmentation of sent frames, checked checksums of received ones.
  public static let offloads: UInt64 = checksum | guestChecksum | hostTSO4 | hostTSO6 | hostECN
  /// All that the model knows but MTU (an upper limit, which most devices do not set) and IN_ORDER.
  public static let usual: UInt64 =
    mac | mergeableBuffers | status | controlQueue | controlReceive | controlReceiveExtra | controlVLAN | controlMAC
    | eventIndex | indirectDescriptors | version1 | accessPlatform | announce | offloads | severalQueues | hashReport
    | speedDuplex | coalescing | ringReset
}

/// Device status bits (clause 2.1).
enum VirtioModelStatus {
  static let driver: UInt8 = 2
  static let driverOK: UInt8 = 4
  static let featuresOK: UInt8 = 8
  static let needsReset: UInt8 = 64
  static let failed: UInt8 = 128
}

/// BAR 4: where each structure lies, each on a page of its own. BAR 1 has the MSI-X table.
enum VirtioModelLayout {
  static let bar = 4
  static let common = 0x0000
  static let commonCount = 64
  static let interruptStatus = 0x1000
  static let interruptStatusCount = 4
  static let device = 0x2000
  static let deviceCount = 24
  static let notify = 0x3000
  static let notifyCount = 0x1000
  static let count = 0x4000
  static let interruptBAR = 1
  static let interruptBARCount = 0x1000
  static let pendingBits = 0x800
  /// Configuration space: the capability that reaches a BAR's registers (clause 4.1.4.9).
  static let access = 0x94
  static let accessBAR = access + 4
  static let accessOffset = access + 8
  static let accessLength = access + 12
  static let accessData = access + 16
}

/// The device's registers as they stand.
struct VirtioModelRegisters {
  var status: UInt8 = 0
  var deviceFeatureSelect: UInt32 = 0
  var driverFeatureSelect: UInt32 = 0
  var driverFeatures: UInt64 = 0
  var configurationVector: UInt16 = 0xffff
  var queueSelect: UInt16 = 0
  var generation: UInt8 = 0
  /// ISR status: bit 0 a queue, bit 1 the configuration (clause 4.1.4.5).
  var interruptStatus: UInt8 = 0
  var linkUp = true
  var wantsAnnouncement = false
  var address = MACAddress(rawValue: 0)
  /// Checksums and segmentation that the driver takes on receive (GUEST_OFFLOADS_SET).
  var checksCome = true
}
