// Commands over the control queue (clause 5.1.6.5).

import ModelKit
import Wire

extension VirtioNetModel {
  /// Clause 5.1.2: 2, or behind all pairs with several queues.
  var controlIndex: Int {
    registers.driverFeatures & VirtioModelFeature.severalQueues != 0 ? 2 * options.pairs : 2
  }
  func isControl(_ queue: VirtioModelQueue) -> Bool {
    has(VirtioModelFeature.controlQueue) && queue.index == controlIndex
  }

  /// Longest command that is read: an address table of some thousands.
  private static var commandLimit: Int { 32 * 1024 }

  func runCommands() -> Int {
    guard has(VirtioModelFeature.controlQueue), !habits.ignoresCommands, controlIndex < queues.count else { return 0 }
    let queue = queues[controlIndex]
    guard queue.isEnabled, bus.sharesDoorbells || queue.isNotified else { return 0 }
    queue.isNotified = false
    var done = 0
    repeat {
      while isRunning, done < 64, available(queue) > 0, let id = head(queue, ahead: 0) {
        gather.removeAll()
        guard readChain(queue, head: id) else { break }
        queue.taken &+= 1
        done += 1
        guard let count = runCommand(gather.chains[0]) else { break }
        use(queue, id, count: count)
      }
      publish(queue)
      if done == 64 { queue.isNotified = true }
    } while done < 64 && isRunning && offerNotification(queue, true)
    return done
  }

  /// Runs the command in a chain and writes its answer. Returns bytes written; nil on a DMA error.
  private func runCommand(_ chain: VirtioModelGather.Chain) -> Int? {
    let parts = gather.parts[chain.parts]
    guard let answer = parts.last, answer.isWritable, chain.readable >= 2, chain.readable <= Self.commandLimit else {
      complain("a command without class, command or room for the answer")
      return 0
    }
    var bytes: [UInt8] = []
    for part in parts where !part.isWritable {
      guard let piece = bus.memory.read(part.address, count: part.count) else {
        memoryError("a command")
        return nil
      }
      bytes += piece
    }
    counters.commands += 1
    if commands.count >= 1024 { commands.removeFirst(512) }
    commands.append(Array(bytes.prefix(2)))
    let isDone = !habits.refusesCommands && obey(bytes[0], bytes[1], Array(bytes.dropFirst(2)))
    if !isDone { counters.refusedCommands += 1 }
    guard bus.memory.write([isDone ? 0 : 1], at: answer.address) else {
      memoryError("a command's answer")
      return nil
    }
    return 1
  }

  private func obey(_ group: UInt8, _ command: UInt8, _ data: [UInt8]) -> Bool {
    switch group {
    case 0: return setMode(command, data)
    case 1: return setAddresses(command, data)
    case 2:
      guard has(VirtioModelFeature.controlVLAN), command < 2, data.count == 2 else { return false }
      let vlan = UInt16(data[0]) | UInt16(data[1]) << 8
      guard vlan < 4096 else { return false }
      if command == 0 { filter.vlans.insert(vlan) } else { filter.vlans.remove(vlan) }
      return true
    case 3:
      guard has(VirtioModelFeature.announce), command == 0 else { return false }
      registers.wantsAnnouncement = false
      return true
    case 4: return setQueues(command, data)
    case 5:
      // Of the offloads that can be switched off, the device has one (clause 5.1.6.5.6.1).
      guard has(VirtioModelFeature.guestOffloads), command == 0, data.count == 8 else { return false }
      registers.checksCome = data[0] & 2 != 0
      return true
    case 6: return setCoalescing(command, data)
    default: return false
    }
  }

  private func setMode(_ command: UInt8, _ data: [UInt8]) -> Bool {
    guard has(VirtioModelFeature.controlReceive), data.count == 1,
      command < 2 || has(VirtioModelFeature.controlReceiveExtra)
    else { return false }
    let isOn = data[0] != 0
    switch command {
    case 0: filter.promiscuous = isOn
    case 1: filter.allMulticast = isOn
    case 2: filter.allUnicast = isOn
    case 3: filter.noMulticast = isOn
    case 4: filter.noUnicast = isOn
    case 5: filter.noBroadcast = isOn
    default: return false
    }
    return true
  }

  private func setAddresses(_ command: UInt8, _ data: [UInt8]) -> Bool {
    switch command {
    case 0:
      guard has(VirtioModelFeature.controlReceive), let addresses = tables(data) else { return false }
      filter.addresses = addresses
    case 1:
      guard has(VirtioModelFeature.controlMAC), data.count == 6, let address = MACAddress(bytes: data) else {
        return false
      }
      registers.address = address
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

  private func setQueues(_ command: UInt8, _ data: [UInt8]) -> Bool {
    switch command {
    case 0:
      guard has(VirtioModelFeature.multiqueue), data.count == 2 else { return false }
      return steering.setPairs(Int(data[0]) | Int(data[1]) << 8)
    case 1: return has(VirtioModelFeature.receiveScaling) && steering.configureTable(data)
    case 2: return has(VirtioModelFeature.hashReport) && steering.configureHash(data)
    default: return false
    }
  }

  /// Two 32-bit words: packets and microseconds.
  private func setCoalescing(_ command: UInt8, _ data: [UInt8]) -> Bool {
    guard has(VirtioModelFeature.coalescing), data.count == 8, command < 2 else { return false }
    func word(_ at: Int) -> Int { (0..<4).reduce(0) { $0 | Int(data[at + $1]) << (8 * $1) } }
    if command == 0 { filter.transmitCoalescing = (word(0), word(4)) } else { filter.receiveCoalescing = (word(0), word(4)) }
    return true
  }
}
