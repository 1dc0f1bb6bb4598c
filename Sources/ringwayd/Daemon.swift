// ringwayd: the daemon that owns cards, workers and interfaces.

import Ringway

@main struct Daemon {
  static func main() {}
}
