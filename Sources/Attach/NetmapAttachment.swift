// The way from an attached card to its netmap side.

public import DMAMemory
public import NetmapAPI
public import NetmapCore
internal import Netisr

extension CardAttachment {
  /// The card's netmap side, made at the first call. From worker 0 or from a thread that is no worker.
  /// - Parameter memory: the system's; the first call's counts.
  /// - Throws: ENXIO when the card has gone.
  public func netmap(in memory: NetmapMemory, settings: NetmapSettings = NetmapSettings()) throws(NetmapError) -> NetmapCard {
    let control = table.netisr.worker(0)
    if Worker.current != nil, !control.isCurrent {
      throw NetmapError(.EINVAL, "\(interface.name): netmap is asked for from worker 0 or from a thread that is no worker")
    }
    return try control.perform { [self] in
      Result { () throws(NetmapError) -> NetmapCard in
        if let netmapSide { return netmapSide }
        guard attached != nil else { throw NetmapError(.ENXIO, "\(interface.name) is gone") }
        let made = try NetmapCard(self, memory: memory, settings: settings)
        netmapSide = made
        return made
      }
    }.get()
  }

  public var mapper: (any DMAMapper)? { function }

  public func recallBuffers() { if isRunning { restart() } }
}
