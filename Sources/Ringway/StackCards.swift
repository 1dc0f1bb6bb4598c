// Cards of a stack: opened first, so that the memory can be made for all of them; attached then.

internal import Attach
internal import Control
public import DriverKit
internal import Ifnet
internal import Netisr
internal import Synchronization

/// A card that is held by this process and not yet attached; given back with its last reference.
public final class StackCard {
  let opened: OpenCard

  /// - Parameter device: "0000:03:00.0", bound to vfio-pci, or "vfio-user:/path".
  public init(_ device: String) throws(RingwayError) { opened = try OpenCard(device) }
  /// A function that is held already: a device model in this process.
  public init(_ function: CardFunction) throws(RingwayError) { opened = try OpenCard(function) }

  public var name: String { opened.claim.name }
}

/// How a card is attached to a stack.
public struct StackCardPlan: Sendable {
  /// nil: the driver's prefix and the lowest free unit.
  public var name: String?
  /// nil: one a worker.
  public var queues: Int?
  /// Descriptors of each ring.
  public var ringSize = 512
  /// The largest MTU that the rings are laid out for; nil: 1500.
  public var mtu: Int?
  public var allowUnsupportedSFP = false
  public init() {}
}

/// An attached card and the right to it.
struct AttachedCard {
  let attachment: CardAttachment
  let claim: CardClaim
}

extension Stack {
  /// Attaches a card: its interface is there and down then.
  /// - Returns: the interface's name.
  public func attach(_ card: StackCard, _ plan: StackCardPlan = StackCardPlan()) throws(RingwayError) -> String {
    let identity = card.opened.function.identity
    guard let type = DriverTable.driver(for: identity) else {
      throw .unsupported(card: card.name, vendor: identity.vendor, device: identity.device)
    }
    var options = AttachOptions()
    options.name = plan.name
    options.port.queues = plan.queues ?? min(16, netisr.workers.count)
    options.fewerQueues = plan.queues == nil
    options.port.receiveDescriptors = plan.ringSize
    options.port.transmitDescriptors = plan.ringSize
    options.port.mtu = plan.mtu ?? options.port.mtu
    options.port.allowUnsupportedSFP = plan.allowUnsupportedSFP
    let claim = card.opened.claim, function = card.opened.function, id = ObjectIdentifier(function)
    let attachment: CardAttachment
    do throws(AttachError) {
      attachment = try CardAttachment(card.opened.release(), driver: type, table: interfaces, memory: cardMemory, options: options, clock: clock)
    } catch {
      switch error {
      case .driver(let error): throw .driver(error)
      case .interface(let error): throw .option(name: "name", value: plan.name ?? "", allowed: error.problem)
      }
    }
    attachment.onLoss = { [weak self] lost, why in
      guard let self else { return }
      state.withLock { $0.cards.removeAll { $0.attachment === lost } }
      openCards.remove(id)
      interfaces.log("\(claim.name) has left: \(why)")
    }
    openCards.add(function)
    state.withLock { $0.cards.append(AttachedCard(attachment: attachment, claim: claim)) }
    return attachment.interface.name
  }

  /// Takes every interface away, the last one first: what was made on top of others goes before them.
  func takeDownInterfaces() {
    let cards = state.withLock { $0.cards }
    for interface in interfaces.interfaces.reversed() {
      if let card = cards.first(where: { $0.attachment === interface.driver }) {
        card.attachment.detach()
      } else {
        do throws(InterfaceError) { try interfaces.destroy(interface.name) } catch { interfaces.detach(interface) }
      }
    }
    state.withLock { $0.cards = [] }
  }

  /// A driver's own counters. EOPNOTSUPP
  func driverStatistics(of interface: Interface) throws(ControlError) -> [CounterRecord] {
    guard let card = interface.driver as? CardAttachment else {
      throw ControlError("EOPNOTSUPP", "\(interface.name) has no card below it.")
    }
    return card.statistics.map { CounterRecord($0.name, $0.name.split(separator: "_").joined(separator: " "), $0.value) }
  }
}
