// Regions of a device: what they are, and accesses to them.

internal import CRingway
internal import ModelKit
internal import SystemPackage

/// Region numbers behind the six BARs (linux/vfio.h).
enum RegionIndex {
  static let rom = 6, configuration = 7, vga = 8
}

extension ModelSession {
  private func bar(_ index: Int) -> ModelBAR? { model.bars.first { $0.index == index } }

  private var configurationSize: Int { model.configuration.hasCapability(0x10) ? 4096 : 256 }

  private func size(of region: Int) -> Int {
    switch region {
    case 0...5: bar(region)?.memory.count ?? 0
    case RegionIndex.configuration: configurationSize
    default: 0
    }
  }

  /// The client asks with as much room as it has, and again when the answer says that more is needed.
  func regionInfo(_ fields: Fields, _ reply: inout SessionReply) throws(Errno) -> [UInt8] {
    try fields.require(12)
    let room = fields.le32(0), region = Int(fields.le32(8))
    guard room >= 32, region < ModelSession.regionCount else { throw .invalidArgument }
    let size = size(of: region)
    let bar = bar(region)
    let areas = mode == .shared ? bar?.shared ?? [] : []
    var flags: UInt32 = size > 0 ? 3 : 0
    let needed = areas.isEmpty ? 32 : 32 + 16 + 16 * areas.count
    if !areas.isEmpty { flags |= 4 | 8 }
    let hasRoom = room >= UInt32(needed)
    var out: [UInt8] = []
    out.append32(UInt32(needed))
    out.append32(flags)
    out.append32(UInt32(region))
    // Also in an answer that has no room for them: QEMU refuses capabilities that begin nowhere.
    out.append32(areas.isEmpty ? 0 : 32)
    out.append64(UInt64(size))
    // Where the region begins in the file that goes with the answer.
    out.append64(0)
    guard !areas.isEmpty else { return out }
    reply.descriptor = bar?.memory.descriptor ?? -1
    guard hasRoom else { return out }
    out.append16(1)
    out.append16(1)
    out.append32(0)
    out.append32(UInt32(areas.count))
    out.append32(0)
    for area in areas {
      out.append64(UInt64(area.lowerBound))
      out.append64(UInt64(area.count))
    }
    return out
  }

  /// An access that a message describes: inside its region, and not too long.
  private func access(_ fields: Fields) throws(Errno) -> (region: Int, offset: Int, count: Int) {
    try fields.require(16)
    let region = Int(fields.le32(8)), count = Int(fields.le32(12))
    let size = size(of: region)
    guard let offset = Int(exactly: fields.le64(0)), count > 0, count <= MessageHeader.largestTransfer, offset <= size,
      count <= size - offset
    else { throw .invalidArgument }
    return (region, offset, count)
  }

  func regionRead(_ fields: Fields) throws(Errno) -> [UInt8] {
    let (region, offset, count) = try access(fields)
    var out = Array(fields.bytes.prefix(16))
    out.reserveCapacity(16 + count)
    forPieces(offset, count) { at, width in
      let value = read(region, at, width)
      for byte in 0..<width { out.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))) }
    }
    return out
  }

  func regionWrite(_ fields: Fields) throws(Errno) -> [UInt8] {
    let (region, offset, count) = try access(fields)
    try fields.require(16 + count)
    write(region, offset, fields.bytes[16..<16 + count])
    return Array(fields.bytes.prefix(16))
  }

  /// Writes of up to eight bytes each; the answer says how many were done.
  func regionWriteMultiple(_ fields: Fields) throws(Errno) -> [UInt8] {
    try fields.require(8)
    let wanted = fields.le64(0)
    guard wanted <= UInt64((fields.count - 8) / 24) else { throw .invalidArgument }
    var done: UInt64 = 0
    while done < wanted {
      let start = 8 + Int(done) * 24
      let one = Fields(fields.bytes[start..<start + 24])
      let (region, offset, count) = try access(one)
      guard count <= 8 else { throw .invalidArgument }
      countWrite()
      write(region, offset, one.bytes[16..<16 + count])
      done += 1
    }
    var out: [UInt8] = []
    out.append64(done)
    return out
  }

  private func write(_ region: Int, _ offset: Int, _ bytes: ArraySlice<UInt8>) {
    forPieces(offset, bytes.count) { at, width in
      let first = bytes.startIndex + at - offset
      var value: UInt32 = 0
      for byte in 0..<width { value |= UInt32(bytes[first + byte]) << UInt32(8 * byte) }
      write(value, region, at, width)
    }
  }

  /// The naturally aligned accesses of 1, 2 and 4 bytes that a range is made of, ascending.
  private func forPieces(_ offset: Int, _ count: Int, _ body: (_ at: Int, _ width: Int) -> Void) {
    var at = offset
    let end = offset + count
    while at < end {
      let width = at & 3 == 0 && end - at >= 4 ? 4 : at & 1 == 0 && end - at >= 2 ? 2 : 1
      body(at, width)
      at += width
    }
  }

  private func read(_ region: Int, _ offset: Int, _ width: Int) -> UInt32 {
    if region == RegionIndex.configuration { return model.configuration.read(offset, width) }
    guard let bar = bar(region) else { return .max }
    if isShared(bar, offset) { return bar.memory.read(offset, width) }
    let value = model.read(bar: region, offset: offset, width: width)
    passTime()
    return value
  }

  private func write(_ value: UInt32, _ region: Int, _ offset: Int, _ width: Int) {
    if region == RegionIndex.configuration {
      model.configuration.write(value, offset, width)
      model.bus.memory.isBusMaster = model.configuration.isBusMaster
      return
    }
    guard let bar = bar(region) else { return }
    // A client that maps nothing: its doorbells are memory all the same, which `step` looks at.
    if isShared(bar, offset) { return bar.memory.write(value, offset, width) }
    model.write(value, bar: region, offset: offset, width: width)
    passTime()
    if mode == .trapped { settle() }
  }

  private func isShared(_ bar: ModelBAR, _ offset: Int) -> Bool {
    mode == .shared && bar.shared.contains { $0.contains(offset) }
  }

  private func passTime() {
    if mode == .trapped { model.bus.now &+= nanosecondsAnAccess }
  }

  /// Trapped: what a write starts is done before it is answered, as far as it takes no time.
  func settle() {
    for _ in 0..<64 where model.step(budget: 4096) == 0 { return }
  }

  /// Trapped, and nobody asks anything: time goes on to the next thing that happens by itself.
  /// - Returns: whether there was something.
  func jumpToDeadline() -> Bool {
    let next = [model.deadline, model.wire.nextArrival].compactMap { $0 }.min()
    guard mode == .trapped, let next, next > model.bus.now else { return false }
    model.bus.now = next
    settle()
    return true
  }
}
