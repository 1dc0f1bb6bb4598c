// The words behind `ringway ifconfig`, as the BSDs have them: not getopt's.

import ArgumentParser
import Control
import Wire

/// One call of `ifconfig`, understood.
struct IfconfigLine: Equatable {
  enum Action: Equatable {
    case show(String?)
    case cloners
    case create(String, options: [String: String], changes: [InterfaceChange])
    case destroy(String)
    case change(String, [InterfaceChange])
  }

  var action = Action.show(nil)
  var socket: String?
  var json = false
  var verbose = false
  var namesOnly = false
  var onlyUp = false
  var onlyDown = false
  var group: String?
  var wantsHelp = false

  init(_ words: [String]) throws {
    var rest = try takeOptions(words)
    guard !rest.isEmpty else { return }
    let name = rest.removeFirst()
    guard !name.hasPrefix("-") else { throw ValidationError("There is no option \(name). See `ringway ifconfig --help`.") }
    if rest.isEmpty {
      action = .show(name)
      return
    }
    var reader = KeywordReader(name, rest)
    try reader.readAll()
    if reader.isDestroy {
      guard rest.count == 1 else { throw ValidationError("`destroy` stands alone.") }
      action = .destroy(name)
    } else if reader.isCreate {
      action = .create(name, options: reader.options, changes: reader.changes)
    } else {
      action = .change(name, reader.changes)
    }
  }

  /// Options of the command itself may stand in front or at the end.
  private mutating func takeOptions(_ words: [String]) throws -> [String] {
    var rest: [String] = []
    var index = 0
    func value(_ option: String) throws -> String {
      index += 1
      guard index < words.count else { throw ValidationError("\(option) wants a value.") }
      return words[index]
    }
    while index < words.count {
      let word = words[index]
      let inFront = rest.isEmpty
      switch word {
      case "--json": json = true
      case "--socket": socket = try value(word)
      case "--help", "-h": wantsHelp = true
      case "--": break
      case _ where word.hasPrefix("--socket="): socket = String(word.dropFirst("--socket=".count))
      case "-a" where inFront: action = .show(nil)
      case "-l" where inFront: namesOnly = true
      case "-u" where inFront: onlyUp = true
      case "-d" where inFront: onlyDown = true
      case "-v" where inFront: verbose = true
      case "-C" where inFront: action = .cloners
      case "-g" where inFront: group = try value(word)
      default: rest.append(word)
      }
      index += 1
    }
    return rest
  }
}

/// Reads keywords and their values.
private struct KeywordReader {
  private let interface: String
  private let words: [String]
  private var index = 0
  var changes: [InterfaceChange] = []
  var options: [String: String] = [:]
  var isCreate = false
  var isDestroy = false

  /// Flags by their keyword.
  private static let flags = [
    "debug": "DEBUG", "link0": "LINK0", "link1": "LINK1", "link2": "LINK2", "monitor": "MONITOR", "staticarp": "STATICARP",
    "promisc": "PPROMISC",
  ]
  private static let capabilities: [String: [String]] = [
    "rxcsum": ["RXCSUM"], "txcsum": ["TXCSUM"], "tso": ["TSO4", "TSO6"], "tso4": ["TSO4"], "tso6": ["TSO6"],
    "vlanhwtag": ["VLAN_HWTAGGING"], "vlanmtu": ["VLAN_MTU"],
  ]
  /// Values that go to a cloner with `create`.
  private static let created = ["netns": "netns", "device": "device", "peer": "peer", "vlan": "tag", "vlandev": "parent"]

  init(_ interface: String, _ words: [String]) {
    self.interface = interface
    self.words = words
  }

  private mutating func value(_ keyword: String) throws -> String {
    guard index < words.count else { throw ValidationError("\(keyword) wants a value.") }
    defer { index += 1 }
    return words[index]
  }

  private mutating func number(_ keyword: String) throws -> Int {
    let text = try value(keyword)
    guard let number = Int(text) else { throw ValidationError("\(keyword) wants a number, not \"\(text)\".") }
    return number
  }

  mutating func readAll() throws {
    while index < words.count {
      let word = words[index]
      index += 1
      try read(word)
    }
  }

  private mutating func read(_ word: String) throws {
    let isOff = word.hasPrefix("-")
    let name = isOff ? String(word.dropFirst()) : word
    if let flag = Self.flags[name] { return changes.append(.flags(set: isOff ? [] : [flag], clear: isOff ? [flag] : [])) }
    if let names = Self.capabilities[name] {
      return changes.append(.capabilities(enable: isOff ? [] : names, disable: isOff ? names : []))
    }
    switch (name, isOff) {
    case ("up", false): changes.append(.flags(set: ["UP"], clear: []))
    case ("down", false): changes.append(.flags(set: [], clear: ["UP"]))
    case ("arp", _): changes.append(.flags(set: isOff ? ["NOARP"] : [], clear: isOff ? [] : ["NOARP"]))
    case ("allmulti", _): changes.append(.allMulticast(on: !isOff))
    case ("polling", _): changes.append(.polling(on: !isOff))
    case ("mtu", false): changes.append(.mtu(bytes: try number(name)))
    case ("metric", false): changes.append(.metric(value: try number(name)))
    case ("name", false): changes.append(.name(new: try value(name)))
    case ("description", _), ("descr", _): changes.append(.description(text: isOff ? "" : try value(name)))
    case ("media", false): changes.append(.media(type: try value(name)))
    case ("group", _): changes.append(isOff ? .deleteGroup(name: try value(name)) : .addGroup(name: try value(name)))
    case ("ether", false), ("lladdr", false): changes.append(.linkAddress(address: try value(name)))
    case ("inet", false), ("inet6", false): try address(name)
    case ("addm", false), ("deletem", false): changes.append(.generic(name: name, value: try value(name)))
    case ("tunnel", _):
      changes.append(isOff ? .tunnel(source: nil, destination: nil) : .tunnel(source: try value(name), destination: try value(name)))
    case ("create", false): isCreate = true
    case ("destroy", false): isDestroy = true
    case ("member", false) where isCreate: options["members"] = (options["members"].map { $0 + "," } ?? "") + (try value(name))
    case _ where isCreate && !isOff && Self.created[name] != nil: options[Self.created[name]!] = try value(name)
    case _ where IPv4Address(prefix(name)) != nil || IPv6Address(prefix(name)) != nil:
      index -= 1
      try address(IPv4Address(prefix(name)) != nil ? "inet" : "inet6")
    case _ where name.contains("=") && !isOff:
      let parts = name.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if isCreate { options[String(parts[0])] = String(parts[1]) } else {
        changes.append(.generic(name: String(parts[0]), value: String(parts[1])))
      }
    default:
      throw ValidationError("\"\(word)\" is no keyword of ifconfig. See `ringway ifconfig --help`.")
    }
  }

  private func prefix(_ text: String) -> Substring { text.prefix { $0 != "/" } }

  /// inet 198.18.0.1[/24] [netmask M] [prefixlen N] [broadcast B] [DESTINATION] [alias|add|delete|-alias]
  private mutating func address(_ family: String) throws {
    var text = try value(family)
    var broadcast: String?, destination: String?
    var isDelete = false, isAlias = family == "inet6"
    while index < words.count {
      let word = words[index]
      if word == "netmask" {
        index += 1
        let mask = try value(word)
        guard let length = Self.maskLength(mask) else { throw ValidationError("\"\(mask)\" is no netmask. Write it as 255.255.255.0 or 0xffffff00.") }
        text = prefix(text) + "/\(length)"
      } else if word == "prefixlen" {
        index += 1
        text = prefix(text) + "/\(try number(word))"
      } else if word == "broadcast" {
        index += 1
        broadcast = try value(word)
      } else if word == "alias" || word == "add" {
        isAlias = true
        index += 1
      } else if ["delete", "-alias", "remove"].contains(word) {
        isDelete = true
        index += 1
      } else if IPv4Address(word) != nil || IPv6Address(word) != nil {
        destination = word
        index += 1
      } else {
        break
      }
    }
    if isDelete {
      changes.append(.deleteAddress(address: String(prefix(text))))
    } else if isAlias {
      changes.append(.addAddress(address: text, broadcast: broadcast, destination: destination))
    } else {
      changes.append(.setAddress(address: text, broadcast: broadcast, destination: destination))
    }
  }

  /// Dotted or hexadecimal.
  private static func maskLength(_ text: String) -> Int? {
    if text.hasPrefix("0x"), let value = UInt32(text.dropFirst(2), radix: 16) { return IPv4Address(rawValue: value).maskLength }
    return IPv4Address(text)?.maskLength
  }
}
