// The way from an attached card to its netmap side.

public import NetmapAPI
internal import NetmapCore
internal import Netisr

extension CardAttachment {
  /// The card's netmap side, made at the first call: `try card.netmap().open(…)`. From worker 0 or
  /// from a thread that is no worker.
  /// - Throws: ENXIO when the card has gone.
  public func netmap() throws(NetmapError) -> NetmapCard {
    let control = table.netisr.worker(0)
    if Worker.current != nil, !control.isCurrent {
      throw NetmapError(.EINVAL, "\(interface.name): netmap is asked for from worker 0 or from a thread that is no worker")
    }
    return try control.perform { [self] in
      Result { () throws(NetmapError) -> NetmapCard in
        if let netmapSide { return netmapSide }
        guard attached != nil else { throw NetmapError(.ENXIO, "\(interface.name) is gone") }
        let made = try NetmapCard(self, region: memory.region)
        netmapSide = made
        return made
      }
    }.get()
  }
}
