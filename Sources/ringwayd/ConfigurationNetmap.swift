// The table [netmap].

extension ConfigurationFile {
  static func netmap(_ table: ConfigurationTable) -> NetmapSection {
    var section = NetmapSection()
    section.enabled = table.bool("enabled") ?? section.enabled
    section.socket = path(table, "socket")
    section.mode = mode(table, "mode") ?? section.mode
    section.group = table.string("group")
    section.clients = table.int("clients", 1...65536) ?? section.clients
    section.clientsPerUser = table.int("clients-per-user", 1...65536) ?? section.clientsPerUser
    section.interfaces = table.int("interfaces", 1...65536) ?? section.interfaces
    section.rings = table.int("rings", 1...65536) ?? section.rings
    section.ringSize = multiple(table, "ring-size", 320...(1 << 22)) ?? section.ringSize
    section.buffers = table.int("buffers", 512...16_777_216) ?? section.buffers
    section.bufferSize = multiple(table, "buffer-size", 64...65536) ?? section.bufferSize
    section.privateInterfaces = table.int("private-interfaces", 1...65536) ?? section.privateInterfaces
    section.privateRings = table.int("private-rings", 1...65536) ?? section.privateRings
    section.privateBuffers = table.int("private-buffers", 128...16_777_216) ?? section.privateBuffers
    section.regions = table.int("regions", 0...65533) ?? section.regions
    section.regionBytes = table.bytes("region-bytes", 0...(1 << 46)) ?? section.regionBytes
    section.spin = table.int("spin", 0...1_000_000) ?? section.spin
    table.finish()
    return section
  }

  /// Objects of a pool start on cache lines.
  private static func multiple(_ table: ConfigurationTable, _ key: String, _ range: ClosedRange<Int>) -> Int? {
    guard let size = table.bytes(key, range) else { return nil }
    if size % 64 != 0 { table.report.add(table.full(key), "a multiple of 64 was expected") }
    return size
  }

  static func path(_ table: ConfigurationTable, _ key: String) -> String? {
    guard let path = table.string(key) else { return nil }
    if !path.hasPrefix("/") || path.utf8.count > 107 {
      table.report.add(table.full(key), "an absolute path of at most 107 bytes was expected")
    }
    return path
  }

  static func mode(_ table: ConfigurationTable, _ key: String) -> UInt32? {
    guard let text = table.string(key) else { return nil }
    if let mode = UInt32(text, radix: 8), mode <= 0o777 { return mode }
    table.report.add(table.full(key), "an octal mode such as \"0660\" was expected")
    return nil
  }
}
