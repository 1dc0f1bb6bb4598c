// The steps at work: each looks first, and changes what differs.

import Glibc

extension Binder {
  func perform(_ step: BindStep) throws(BindError) {
    switch step {
    case .record(let journal): try store.save(journal)
    case .forget(let address): try store.remove(address)
    case .setOverride(let address, let driver):
      if scanner.driverOverride(of: address) == driver { return }
      try attempt { () throws(EffectError) in
        try effects.writeAttribute((driver ?? "") + "\n", at: roots.device(address) + "/driver_override")
      }
    case .release(let address, let keeping):
      guard let driver = scanner.driver(of: address), driver != keeping else { return }
      try attempt { () throws(EffectError) in
        try effects.writeAttribute(address.description, at: roots.driver(driver) + "/unbind")
      }
    case .probe(let address, let wanted): try probe(address, wanted)
    case .restoreInterfaces(let address, let interfaces, let nameOnly):
      restoreInterfaces(address, interfaces, nameOnly)
    case .handOver(let path, let account):
      try attempt { () throws(EffectError) in
        try effects.setOwner(path, user: account.userID, group: account.groupID, mode: account.mode)
      }
    case .writeFile(let path, let text):
      if SystemFiles.bytes(path).map({ String(decoding: $0, as: UTF8.self) }) == text { return }
      try attempt { () throws(EffectError) in try effects.replaceFile(path, text: text) }
    case .removeFile(let path):
      // With it goes what a stopped process left beside it.
      for name in [path + ".new", path] where SystemFiles.exists(name) || SystemFiles.link(name) != nil {
        try attempt { () throws(EffectError) in try effects.remove(name) }
      }
    case .link(let path, let target):
      try attempt { () throws(EffectError) in
        try effects.makeDirectory(path.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 })
        try effects.link(path, to: target)
      }
    }
  }

  /// Drivers may make their interfaces a little later, and udev may be about to name them.
  private func restoreInterfaces(_ address: PCIAddress, _ wanted: [InterfaceSettings], _ nameOnly: Bool) {
    var current: [String] = []
    for _ in 0..<100 {
      current = (try? scanner.device(at: address))?.interfaces ?? []
      if current.count == wanted.count && current.sorted() == wanted.map(\.name).sorted() { break }
      usleep(20_000)
    }
    guard current.count == wanted.count else {
      return warn("\(address) came back with other interfaces: \(current.joined(separator: ", "))")
    }
    // Interfaces that kept their names first, so that the others find theirs free.
    let kept = wanted.filter { current.contains($0.name) }
    let renamed = zip(
      wanted.filter { !current.contains($0.name) }, current.filter { name in !wanted.contains { $0.name == name } })
    for (settings, name) in kept.map({ ($0, $0.name) }) + Array(renamed) {
      do throws(EffectError) {
        try effects.restoreInterface(settings, current: name, nameOnly: nameOnly)
      } catch {
        warn("\(settings.name), now \(name), could not be made all that it was: \(error)")
      }
    }
  }

  /// A driver that fails to start the card may or may not fail the write; the link tells.
  private func probe(_ address: PCIAddress, _ wanted: String?) throws(BindError) {
    if let driver = scanner.driver(of: address), driver == wanted || wanted == nil { return }
    var failure: BindError?
    do throws(BindError) {
      try attempt { () throws(EffectError) in
        try effects.writeAttribute(address.description, at: roots.sys + "/bus/pci/drivers_probe")
      }
    } catch { failure = error }
    let found = scanner.driver(of: address)
    guard let wanted, found != wanted else { return }
    if let failure, case .effect(let cause) = failure, cause.isRefusalOfCaller { throw failure }
    throw .driverRefused(address, wanted: wanted, found: found)
  }
}
