// What a card's attachment and netmap mode ask of each other.
//
//    CardAttachment ── owns ──> driver, interface, the stack's pools, one poller a queue
//         │  NetmapHost: what netmap mode may use of it
//         v
//    NetmapCard ── QueueTenant ──> takes a poller's place while its queue is in netmap mode
//
// All of it happens on the queue's owner: a tenant moves in, works and moves out on that worker.

public import DMAMemory
public import DriverKit
public import Ifnet
public import Netisr
public import Packet

/// Works a card's queue in the stack's place. Every call comes on the queue's owner.
public protocol QueueTenant: AnyObject, Sendable {
  /// Instead of the stack's receive loop: handles up to `budget` frames. Returns how many.
  func poll(budget: Int) -> Int
  /// Before the worker sleeps: lets the queue's interrupt through where somebody waits for it, then
  /// looks again; true when the worker must not sleep.
  func arm() -> Bool
  /// The worker is awake again.
  func disarm()
  /// What the stack wants to send on this queue. The batch is empty afterwards.
  /// - Returns: false, with the batch untouched, when the frames go to the card as usual.
  func send(_ batch: inout PacketBatch) -> Bool
  /// The driver was started anew with the stack's pools (interface down and up), or has reset the card.
  func restarted()
}

/// What netmap mode needs of a card that is attached to the stack.
public protocol NetmapHost: AnyObject, Sendable {
  var driver: any NetDriver { get }
  var interface: Interface { get }
  /// The card, for which memory is mapped; nil when it reaches all memory by itself.
  var mapper: (any DMAMapper)? { get }
  /// The worker that owns a queue.
  func owner(ofQueue queue: Int) -> Worker
  /// The pool that a queue of the stack's receives into and that the driver was started with.
  func stackPool(ofQueue queue: Int) -> PacketPool
  /// Puts a tenant into the place of the stack's poller, or takes it out. On the queue's owner.
  func setTenant(_ tenant: (any QueueTenant)?, queue: Int)
  /// Has the card give back every buffer that it holds, and go on with the stack's. On worker 0.
  func recallBuffers()
}
