// VirtioNet: the driver of virtio network devices (virtio 1.2, clause 5.1).
//
//   VirtioNetDriver ──> QueuePair[i]: ReceiveQueue, TransmitQueue ──> SplitQueue ──> ring memory
//          │                                        (packet path)
//          ├──> ControlQueue (filters, addresses, queue pairs)
//          └──> VirtqueueTransport (PCI here; a vhost-user front end uses the same driver)
//
// Receive: one buffer a descriptor, the device's 12-byte header at its start, the frame behind it
// (`offset` 12). With mergeable buffers a frame may come over several of them: a chain of records.
//
// Send: a frame whose buffer has 12 bytes of headroom goes out on one descriptor, header and all:
// a received frame always has. Any other frame takes one descriptor more, which points to a
// constant header in descriptor memory.
//
// Invariants
// - Queue memory and shadows are made once, at attach; start, stop and recovery reuse them.
// - A record is in exactly one place: a pool, a packet, or the shadow of one descriptor. A
//   completion empties its shadow entry, so a second one for the same descriptor is noticed.
// - Nothing that the device can write is read twice, and nothing is used before it was checked.

public import DriverKit
import VirtioTransport

/// Feature bits of network devices (clause 5.1.3).
extension VirtioFeatures {
  /// VIRTIO_NET_F_CSUM: the device finishes checksums of sent frames.
  static let checksum = VirtioFeatures(rawValue: 1 << 0)
  static let mtu = VirtioFeatures(rawValue: 1 << 3)
  static let mac = VirtioFeatures(rawValue: 1 << 5)
  /// VIRTIO_NET_F_HOST_TSO4 and TSO6: the device cuts sent frames into segments.
  static let hostTSO4 = VirtioFeatures(rawValue: 1 << 11)
  static let hostTSO6 = VirtioFeatures(rawValue: 1 << 12)
  /// VIRTIO_NET_F_MRG_RXBUF: the device may spread a frame over several buffers.
  static let mergeableBuffers = VirtioFeatures(rawValue: 1 << 15)
  static let status = VirtioFeatures(rawValue: 1 << 16)
  static let controlQueue = VirtioFeatures(rawValue: 1 << 17)
  static let controlReceive = VirtioFeatures(rawValue: 1 << 18)
  static let controlVLAN = VirtioFeatures(rawValue: 1 << 19)
  static let multiqueue = VirtioFeatures(rawValue: 1 << 22)
  static let controlMAC = VirtioFeatures(rawValue: 1 << 23)
  static let speedDuplex = VirtioFeatures(rawValue: 1 << 63)
  /// Those that work only with a control queue.
  static let overControlQueue: VirtioFeatures = [.controlReceive, .controlVLAN, .multiqueue, .controlMAC]
}

/// The header before each frame (clause 5.1.6): 12 bytes with VIRTIO_F_VERSION_1.
@usableFromInline enum NetHeader {
  @usableFromInline static let size = 12
  /// num_buffers, 16 bits: how many buffers a received frame is spread over.
  @usableFromInline static let bufferCountOffset = 10
}

/// The device configuration structure (clause 5.1.4): byte offsets.
enum NetConfiguration {
  static let mac = 0
  static let status = 6
  static let maximumPairs = 8
  static let mtu = 10
  static let speed = 12
  static let duplex = 16
  /// VIRTIO_NET_S_LINK_UP in `status`.
  static let linkUp: UInt16 = 1
}

extension VirtioNetDriver {
  public static var driverName: String { "virtio-net" }
  public static var interfacePrefix: String { "vtnet" }
  /// Modern devices, and transitional ones that show the modern structures too.
  public static var matches: [PCIMatch] {
    [
      PCIMatch(vendor: 0x1af4, device: 0x1041, model: "Virtio network device"),
      PCIMatch(vendor: 0x1af4, device: 0x1000, model: "Virtio network device (transitional)"),
    ]
  }
}
