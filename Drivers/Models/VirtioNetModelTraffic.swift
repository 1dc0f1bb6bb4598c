// What the device does in a step: frames out, frames in, commands (clauses 5.1.6.2 to 5.1.6.5).

import CRingway
import Wire

/// Which frames are let through.
struct VirtioModelFilter {
  var promiscuous = false
  var allMulticast = false
  var addresses: [MACAddress] = []
  var vlans: Set<UInt16> = []
}

extension VirtioNetModel {
  /// One round of the device's work: everything that was notified, then everything that is on the
  /// wire and has a buffer.
  public func step() {
    guard !isRemoved else { return }
    takeNotifications()
    guard registers.status & 4 != 0, registers.status & 0x40 == 0, busMaster else { return }
    for pair in 0..<options.pairs { deliver(pair) }
  }

  /// The index of the control queue (clause 5.1.2): 2, or behind all pairs with multiqueue.
  private var controlIndex: Int { has(VirtioModelFeature.multiqueue) ? 2 * options.pairs : 2 }

  private func takeNotifications() {
    for index in queues.indices {
      let at = index * Int(options.notifyMultiplier)
      // SAFETY: inside the page for every queue: at most 4096 bytes of offsets are handed out.
      guard at < VirtioModelBAR.notifyCount else { continue }
      let value = unsafe rw_read16(notifyPage + at)
      guard value != 0xffff, options.notifyMultiplier != 0 || Int(value) == index else { continue }
      unsafe rw_write16(notifyPage + at, 0xffff)
      if Int(value) != index { complain("queue \(index) notified with \(value)") }
      notifications[index, default: 0] += 1
      guard registers.status & 4 != 0 else {
        complain("queue \(index) notified before DRIVER_OK")
        continue
      }
      guard registers.status & 0x40 == 0, busMaster else { continue }
      if index == controlIndex && has(VirtioModelFeature.controlQueue) {
        runCommands(index)
      } else if index & 1 == 1 {
        transmit(index)
      } else {
        publish(index)
      }
    }
  }

  // MARK: Frames out

  private func transmit(_ index: Int) {
    guard !stopsTransmitting else { return }
    var done: [UInt16] = []
    // Publishing says up to where the device has looked; a driver may have added in between.
    while let chain = takeChain(index) {
      if chain.parts.contains(where: \.isWritable) { complain("a frame to send has writable descriptors") }
      let bytes = chain.parts.flatMap { read($0) }
      if bytes.count < 12 + 14 {
        complain("a frame of \(bytes.count - 12) bytes")
      } else {
        if bytes[0..<12].contains(where: { $0 != 0 }) { complain("a header that asks for offloads: \(bytes[0..<12])") }
        if registers.linkUp { sent[index / 2].append(Array(bytes[12...])) }
      }
      done.append(chain.id)
    }
    if options.reversesCompletions { done.reverse() }
    for id in done { use(index, id, count: 0) }
    publish(index)
  }

  private func read(_ part: VirtioModelChain.Part) -> [UInt8] {
    guard let at = unsafe memory.pointer(part.address, part.count) else { return [] }
    return unsafe [UInt8](UnsafeRawBufferPointer(start: at, count: part.count))
  }

  // MARK: Frames in

  private func deliver(_ pair: Int) {
    let index = 2 * pair
    while let frame = backlog[pair].first {
      guard registers.linkUp, accepts(frame) else {
        filtered += 1
        backlog[pair].removeFirst()
        continue
      }
      guard let chains = buffers(for: frame.count + 12, index) else { break }
      backlog[pair].removeFirst()
      var header = [UInt8](repeating: 0, count: 12)
      var claimed = UInt16(chains.count)
      if case .bufferCount(let value)? = faults[index]?.first {
        claimed = value
        faults[index]?.removeFirst()
      }
      header[10] = UInt8(truncatingIfNeeded: claimed)
      header[11] = UInt8(truncatingIfNeeded: claimed >> 8)
      var rest = ArraySlice(header + frame)
      for chain in chains {
        var written = 0
        for part in chain.parts where !rest.isEmpty {
          let n = min(part.count, rest.count)
          guard let at = unsafe memory.pointer(part.address, n) else { break }
          for (i, byte) in rest.prefix(n).enumerated() { unsafe rw_write8(at + i, byte) }
          rest = rest.dropFirst(n)
          written += n
        }
        use(index, chain.id, count: written)
      }
    }
    publish(index)
  }

  /// Enough buffers for `count` bytes: one, or with mergeable buffers as many as it takes.
  private func buffers(for count: Int, _ index: Int) -> [VirtioModelChain]? {
    let queue = queues[index]
    var chains: [VirtioModelChain] = []
    var room = 0
    while room < count {
      guard let chain = nextBuffer(index) else {
        queue.held = chains + queue.held
        return nil
      }
      if chain.parts.contains(where: { !$0.isWritable }) { complain("a receive buffer has readable descriptors") }
      chains.append(chain)
      room += chain.parts.reduce(0) { $0 + $1.count }
      if !has(VirtioModelFeature.mergeableBuffers) {
        if room < 1526 { complain("a receive buffer of \(room) bytes") }
        break
      }
    }
    return chains
  }

  /// The next receive buffer; with `reversesCompletions` the newest of up to eight.
  private func nextBuffer(_ index: Int) -> VirtioModelChain? {
    let queue = queues[index]
    guard options.reversesCompletions else { return queue.held.isEmpty ? takeChain(index) : queue.held.removeFirst() }
    while queue.held.count < 8, let chain = takeChain(index) { queue.held.append(chain) }
    return queue.held.popLast()
  }

  private func accepts(_ frame: [UInt8]) -> Bool {
    guard has(VirtioModelFeature.controlReceive), !filter.promiscuous else { return true }
    if has(VirtioModelFeature.controlVLAN), frame.count >= 16, frame[12] == 0x81, frame[13] == 0 {
      let vlan = UInt16(frame[14]) << 8 & 0xf00 | UInt16(frame[15])
      if !filter.vlans.contains(vlan) { return false }
    }
    guard let target = MACAddress(bytes: frame) else { return false }
    if target == .broadcast || target == registers.address { return true }
    return target.isMulticast && filter.allMulticast || filter.addresses.contains(target)
  }

  // MARK: Commands

  private func runCommands(_ index: Int) {
    guard !ignoresCommands else { return }
    while let chain = takeChain(index) {
      let bytes = chain.parts.filter { !$0.isWritable }.flatMap { read($0) }
      guard let answer = chain.parts.last, answer.isWritable, bytes.count >= 2 else {
        complain("a command without class, command or room for the answer")
        use(index, chain.id, count: 0)
        continue
      }
      commands.append(Array(bytes.prefix(2)))
      let ok = !refusesCommands && obey(bytes[0], bytes[1], Array(bytes.dropFirst(2)))
      if let at = unsafe memory.pointer(answer.address, 1) { unsafe rw_write8(at, ok ? 0 : 1) }
      use(index, chain.id, count: 1)
    }
    publish(index)
  }

  private func obey(_ group: UInt8, _ command: UInt8, _ data: [UInt8]) -> Bool {
    func word(_ at: Int) -> UInt16? { data.count >= at + 2 ? UInt16(data[at]) | UInt16(data[at + 1]) << 8 : nil }
    switch (group, command) {
    case (0, 0) where data.count == 1 && has(VirtioModelFeature.controlReceive): filter.promiscuous = data[0] != 0
    case (0, 1) where data.count == 1 && has(VirtioModelFeature.controlReceive): filter.allMulticast = data[0] != 0
    case (1, 0) where has(VirtioModelFeature.controlReceive):
      guard let addresses = tables(data) else { return false }
      filter.addresses = addresses
    case (1, 1) where has(VirtioModelFeature.controlMAC):
      guard data.count == 6, let address = MACAddress(bytes: data) else { return false }
      registers.address = address
    case (2, 0...1) where has(VirtioModelFeature.controlVLAN):
      guard let vlan = word(0), data.count == 2, vlan < 4096 else { return false }
      if command == 0 { filter.vlans.insert(vlan) } else { filter.vlans.remove(vlan) }
    case (4, 0) where has(VirtioModelFeature.multiqueue):
      guard let pairs = word(0), pairs >= 1, Int(pairs) <= options.pairs else { return false }
      registers.activePairs = Int(pairs)
    default: return false
    }
    return true
  }

  /// Two tables, unicast and multicast: a 32-bit count and that many addresses each.
  private func tables(_ data: [UInt8]) -> [MACAddress]? {
    var addresses: [MACAddress] = []
    var at = 0
    for isMulticast in [false, true] {
      guard data.count >= at + 4 else { return nil }
      let n = (0..<4).reduce(0) { $0 | Int(data[at + $1]) << (8 * $1) }
      at += 4
      guard n <= 4096, data.count >= at + 6 * n else { return nil }
      for _ in 0..<n {
        guard let address = MACAddress(bytes: data[at...]), address.isMulticast == isMulticast else { return nil }
        addresses.append(address)
        at += 6
      }
    }
    return at == data.count ? addresses : nil
  }
}
