// How a function's device is reached, and how its memory is mapped.

internal import DMAMemory
internal import Platform
internal import SystemPackage

/// A device that speaks VFIO: the requests of a device descriptor, or the messages of vfio-user.
///
/// May be called from several threads. After `close` every call fails with ENODEV, reads give nil
/// and writes do nothing.
protocol VFIOChannel: AnyObject, Sendable {
  /// For messages: "0000:03:00.0", or a socket's path.
  var name: String { get }
  func deviceInfo() throws(VFIOError) -> VFIODeviceInfo
  func region(_ index: Int) throws(VFIOError) -> VFIORegion
  func interrupt(_ index: Int) throws(VFIOError) -> VFIOInterrupt

  /// Sends interrupts 0 to n-1 of a kind to eventfds (-1 for none), or none at all.
  /// - Returns: 0, or how many vectors there are when there are fewer.
  func setInterrupts(_ kind: Int, to descriptors: [Int32]) throws(Errno) -> Int
  /// Raises one as if the device had done it.
  func trigger(_ kind: Int, vector: Int) throws(Errno)

  /// 1, 2 or 4 bytes of a region, as the processor's integer; nil when it cannot be read.
  func read(region: Int, offset: Int, width: Int) -> UInt32?
  func write(_ value: UInt32, region: Int, offset: Int, width: Int)
  /// Maps a part of a region.
  func map(_ region: VFIORegion, _ area: Range<Int>, event: Int32) throws(Errno) -> BARWindow
  /// Maps the device over a window that faulted.
  func remap(_ window: BARWindow) throws(Errno)

  func reset() throws(Errno)
  func close()

  /// Ends (EPOLLRDHUP) when the device goes away without another word; -1 when it cannot.
  var hangUpDescriptor: Int32 { get }
  /// Whether it has.
  var hasHungUp: Bool { get }
}

extension VFIOChannel {
  var hangUpDescriptor: Int32 { -1 }
  var hasHungUp: Bool { false }
}

/// The IOMMU domain of one card.
protocol DMAContext: DMAMapper, Sendable {
  /// Takes away every mapping that is left.
  func unmapAll()
  /// After the device has been closed.
  func close()
}
