// Attach: cards joined to interfaces.
//
//     NetDriver (em, igb, ix, vtnet) ── CardAttachment ── Interface em0, igb0, ix0, vtnet0
//        queue i ── CardQueue i ── owner: worker i % workers
//            in:  interrupt ─> worker wakes, or polls ─> receive ─> Interface.input
//            out: Subqueue i ─> start on the owner ─> one send, one tail write ─> completion ─> ready
//     worker 0: requests, link, once a second the card's look after itself, the account of what it lost
//
// A queue works for the stack, or for a tenant (netmap mode) that takes its poller's place on its owner.
//
// Invariants
// - A queue's registers, rings and pool are touched by its owner alone. What concerns the whole card (start, stop,
//   filters, a reset) happens while every owner stands still: the workers are held one in the other, in ascending
//   order, by messages.
// - The card is stopped before its memory is unmapped, and that before the function is closed. Buffers that the stack
//   still holds keep their pool.
// - What the card says that it lost is in the ledger, by differences: what reached the wire's end here is what the
//   interface counts as received and the drops of its ring.

public import DriverKit
public import Ifnet
public import Netisr

/// How a card is attached.
public struct AttachOptions: Sendable {
  /// Rings, MTU, moderation. The interface decides on filters: it starts without `promiscuous`.
  public var port = PortOptions()
  /// "ix3"; nil takes the driver's prefix with the lowest unit that is free.
  public var name: String?
  /// Packets of a send queue; 0 takes as many as the transmit ring has descriptors.
  public var queueLength = 0
  /// Buffers of a queue beyond its rings: what netisr's queues and the protocols may hold.
  public var extraBuffers = 512
  public var vnet = Vnet.base
  /// The number of queues is a wish: a card that has fewer gets as many as it has.
  public var fewerQueues = false

  public init() { port.promiscuous = false }
}

/// Why a card was not attached, or left.
public enum AttachError: Error, Equatable, Sendable, CustomStringConvertible {
  case driver(DriverError)
  case interface(InterfaceError)

  public var description: String {
    switch self {
    case .driver(let error): error.description
    case .interface(let error): error.description
    }
  }
}

/// Why a card's interface went away by itself.
public enum CardLoss: Equatable, Sendable, CustomStringConvertible {
  case gone
  case quarantined(String)
  /// The kernel wants the card back (a driver of its own, a removal).
  case askedBack

  public var description: String {
    switch self {
    case .gone: "the card is gone: it was unplugged or unbound"
    case .quarantined(let reason): "the card was quarantined: \(reason)"
    case .askedBack: "the kernel asked for the card"
    }
  }
}
