// What can be set for all cards in netmap mode.

public import NetmapCore
internal import Synchronization

/// netmap's settings, for any number of cards. Any thread.
public final class NetmapSettings: Sendable {
  private let verbosity = Atomic(0)
  /// What holds for the rings of every kind of port.
  public let rings = KringSettings()
  private let mitigating = Atomic(true)
  private let unprompted = Atomic(true)

  public init() {}

  /// `verbose`: 0 says nothing; 1 logs ports that are opened and closed, and rings that were reset.
  public var verbose: Int {
    get { verbosity.load(ordering: .relaxed) }
    set { verbosity.store(newValue, ordering: .relaxed) }
  }
  /// `no_timestamp`: receive rings get no time of their sync, unless their flag asks for it.
  public var noTimestamp: Bool {
    get { rings.noTimestamp }
    set { rings.noTimestamp = newValue }
  }
  /// `mitigate`: a queue's interrupt stays away from when its program has been woken until the program asks for what came.
  public var mitigate: Bool {
    get { mitigating.load(ordering: .relaxed) }
    set { mitigating.store(newValue, ordering: .relaxed) }
  }
  /// `no_pendintr`: a receive sync looks at the card by itself. Otherwise it shows what the queue's worker has taken from
  /// the card after an interrupt: cheaper for programs that sync often, later by a turn of the worker.
  public var noPendingInterrupt: Bool {
    get { unprompted.load(ordering: .relaxed) }
    set { unprompted.store(newValue, ordering: .relaxed) }
  }
}
