// From an address to a function that is ours.

internal import DriverKit
internal import PCI
internal import Synchronization
internal import VFIO

/// The right to a card within this process: released with the last reference.
final class CardClaim: Sendable {
  let name: String
  private static let taken = Mutex<Set<String>>([])

  init(_ name: String) throws(RingwayError) {
    self.name = name
    let isNew = Self.taken.withLock { $0.insert(name).inserted }
    if !isNew { throw .alreadyOpen(card: name) }
  }

  deinit { Self.taken.withLock { _ = $0.remove(name) } }
}

/// A function on its way to a port; closed when it does not get there.
final class OpenCard {
  let claim: CardClaim
  let function: CardFunction
  /// NUMA node of the card.
  let node: Int?
  private var isReleased = false

  /// Opens a card by its PCI address: it must be bound to vfio-pci and served by a driver of ours.
  /// "vfio-user:PATH" is the device of the vfio-user server that listens at a socket.
  convenience init(_ text: String) throws(RingwayError) {
    if text.hasPrefix(VFIOFunction.socketPrefix) {
      try self.init(socket: String(text.dropFirst(VFIOFunction.socketPrefix.count)))
    } else {
      try self.init(slot: text)
    }
  }

  private init(slot text: String) throws(RingwayError) {
    let address: PCIAddress
    let device: PCIDevice
    do { address = try PCIAddress(text) } catch { throw .address(error) }
    do { device = try SysfsPCI().device(at: address) } catch { throw .scan(error) }
    let identity = device.identity
    guard DriverTable.driver(for: identity) != nil else {
      throw .unsupported(card: address.description, vendor: identity.vendor, device: identity.device)
    }
    guard device.driver == "vfio-pci" else {
      throw .vfio(.notBound(address: address.description, driver: device.driver))
    }
    claim = try CardClaim(address.description)
    node = device.numaNode
    do { function = try VFIOFunction.open(address.description) } catch { throw .vfio(error) }
  }

  private init(socket path: String) throws(RingwayError) {
    claim = try CardClaim(VFIOFunction.socketPrefix + path)
    node = nil
    let opened: VFIOFunction
    do { opened = try VFIOFunction.open(socket: path) } catch { throw .vfio(error) }
    let identity = opened.identity
    guard DriverTable.driver(for: identity) != nil else {
      opened.close()
      throw .unsupported(card: opened.name, vendor: identity.vendor, device: identity.device)
    }
    function = opened
  }

  /// Takes a function that is held already.
  init(_ function: CardFunction) throws(RingwayError) {
    claim = try CardClaim(function.name)
    self.function = function
    node = nil
  }

  /// The port closes the function from now on.
  func release() -> CardFunction {
    isReleased = true
    return function
  }

  /// Memory options with the card's node filled in, where nobody chose one.
  func placed(_ options: MemoryOptions) -> MemoryOptions {
    var options = options
    options.node = options.node ?? node
    return options
  }

  deinit { if !isReleased { function.close() } }
}
