// The configuration in the words of the stack.

import CRingway
import DriverKit
import NetmapServer
import Netisr
import Ringway

func processID() -> Int32 { getpid() }

extension Configuration {
  /// - Parameter cards: how many are there.
  func stackOptions(cards present: Int) -> StackOptions {
    var options = StackOptions()
    options.netisr.maxThreads = netisr.workers
    options.netisr.bindThreads = netisr.bind
    options.netisr.cpus = netisr.cpus
    options.netisr.maxQueueLimit = netisr.maxQueueLimit
    options.netisr.defaultQueueLimit = netisr.defaultQueueLimit
    options.netisr.idleMicroseconds = netisr.idle
    options.netisr.dispatch = netisr.dispatch == "hybrid" ? .hybrid : netisr.dispatch == "deferred" ? .deferred : .direct
    options.memory.kind = !memory.huge ? .normal : memory.backing == "hugetlbfs" ? .hugetlbfs : .memfd
    options.memory.hugepageSize = memory.pageSize
    options.memory.bufferSize = memory.bufferSize
    options.memory.node = memory.node
    options.packetsPerWorker = memory.packets
    // Rings of each queue and batches on their way; the workers' own; two that belong to nobody.
    let rings = cards.reduce(0) { $0 + ($1.queues ?? workersAtMost) * ($1.ringSize * 2 + 1024) }
    options.memory.buffers = memory.buffers ?? max(16384, rings + workersAtMost * memory.packets + 2)
    options.netmap = netmapOptions
    return options
  }

  private var netmapOptions: NetmapOptions {
    var options = NetmapOptions()
    options.sizes.interfaces = netmap.interfaces
    options.sizes.rings = netmap.rings
    options.sizes.ringSize = netmap.ringSize
    options.sizes.buffers = netmap.buffers
    options.sizes.bufferSize = netmap.bufferSize
    options.privateSizes.interfaces = netmap.privateInterfaces
    options.privateSizes.rings = netmap.privateRings
    options.privateSizes.buffers = netmap.privateBuffers
    options.privateSizes.ringSize = netmap.ringSize
    options.privateSizes.bufferSize = netmap.bufferSize
    options.mostRegions = netmap.regions
    options.mostBytes = netmap.regionBytes
    return options
  }

  /// - Parameter group: the number of the socket's group.
  func netmapServerOptions(group: UInt32?) -> NetmapServerOptions {
    var options = NetmapServerOptions()
    options.path = netmap.path(beside: control.socket)
    options.mode = netmap.mode
    options.group = group
    options.maximumClients = netmap.clients
    options.maximumPerUser = netmap.clientsPerUser
    options.spinMicroseconds = netmap.spin
    return options
  }

  private var workersAtMost: Int { netisr.workers > 0 ? netisr.workers : 16 }
}
