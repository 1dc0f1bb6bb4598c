// ioctl(2) on a netmap descriptor, as a program that knows only net/netmap.h calls it.
//
//   program's memory ── copied, checked by the kernel ──> flat request ── daemon ──> answer ── copied back
//
// Sync loops and control blocks stay in this process: their entries lie in its memory.

internal import CRingway
internal import NetmapAPI

public enum ProgramIoctl {
  /// Whether a number is one of netmap's.
  public static func isNetmap(_ number: UInt64) -> Bool {
    switch number {
    case NetmapIoctl.info, NetmapIoctl.register, NetmapIoctl.transmitSync, NetmapIoctl.receiveSync, NetmapIoctl.configure, NetmapIoctl.control: true
    default: false
    }
  }

  /// Makes one call.
  /// - Parameters:
  ///   - argument: the address that the program passed; anything may stand there.
  ///   - attachment: this process's hold on the descriptor, made when it is needed.
  /// - Returns: 0, or errno.
  public static func run(
    _ descriptor: Int32, _ number: UInt64, _ argument: UInt64, _ attachment: () throws(NetmapClientError) -> NetmapAttachment
  ) -> Int32 {
    do throws(NetmapClientError) {
      switch number {
      case NetmapIoctl.transmitSync: return try attachment().sync(receive: false, on: descriptor)
      case NetmapIoctl.receiveSync: return try attachment().sync(receive: true, on: descriptor)
      case NetmapIoctl.control: return try control(descriptor, argument, attachment)
      case NetmapIoctl.info, NetmapIoctl.register: return try plain(descriptor, number, argument, NetmapLayout.legacySize)
      case NetmapIoctl.configure: return try plain(descriptor, number, argument, NetmapLayout.configureSize)
      default: return EINVAL
      }
    } catch { return error.errno }
  }

  /// A structure without pointers: there and back.
  private static func plain(_ descriptor: Int32, _ number: UInt64, _ argument: UInt64, _ size: Int) throws(NetmapClientError) -> Int32 {
    guard let bytes = copyIn(argument, size) else { return EFAULT }
    let answer = try NetmapChannel.ask(descriptor, NetmapRequestHead(.ioctl, number: number), bytes)
    guard answer.errno == 0 else { return answer.errno }
    guard answer.payload.count == size else { return EIO }
    return copyOut(argument, answer.payload) ? 0 : EFAULT
  }

  private static func control(
    _ descriptor: Int32, _ argument: UInt64, _ attachment: () throws(NetmapClientError) -> NetmapAttachment
  ) throws(NetmapClientError) -> Int32 {
    var program = FlatRequest.read(at: argument, from: copyIn)
    var result = program.refusal?.code.rawValue ?? 0
    if result == 0 {
      do throws(NetmapClientError) {
        switch program.request.kind {
        case .syncLoopStart: result = try startLoop(descriptor, &program, attachment)
        case .syncLoopStop: result = try SyncLoop.stop(attachment())
        default: result = try forward(descriptor, &program, attachment)
        }
      } catch { result = error.errno }
    }
    for write in program.writeBack(errno: result) where !copyOut(write.address, write.bytes) { result = EFAULT }
    return result
  }

  /// Lets the daemon answer; brings external memory along, and notes control blocks that it took.
  private static func forward(
    _ descriptor: Int32, _ program: inout ProgramRequest, _ attachment: () throws(NetmapClientError) -> NetmapAttachment
  ) throws(NetmapClientError) -> Int32 {
    let blocks = (try? program.request.option(ControlBlocksOption.self)) ?? nil
    let takesBlocks = program.request.kind.map(NetmapOptionType.controlBlocks.isFor) ?? false
    // Before the daemon takes them: it cannot look at this process's memory.
    if takesBlocks, let blocks, !SyncLoop.areReachable(blocks, rings: (try? attachment())?.ringCount ?? 1) {
      program.request.settle(.controlBlocks, .EFAULT)
      return EFAULT
    }
    let answer: NetmapAnswer
    if let index = program.request.firstOption(.externalMemory), program.request.kind == .register {
      answer = try withExternalMemory(descriptor, &program, index)
    } else {
      answer = try NetmapChannel.ask(descriptor, NetmapRequestHead(.ioctl, number: NetmapIoctl.control), program.request.encoded())
    }
    do { try program.take(answer: answer.payload) } catch { return answer.errno != 0 ? answer.errno : EIO }
    if answer.errno == 0, takesBlocks, let blocks {
      let result = SyncLoop.enable(try attachment(), toLoop: blocks.toLoop, toProgram: blocks.toProgram)
      if result != 0 {
        program.request.settle(.controlBlocks, NetmapError.Code(rawValue: result) ?? .EINVAL)
        return result
      }
    }
    return answer.errno
  }

  private static func withExternalMemory(
    _ descriptor: Int32, _ program: inout ProgramRequest, _ index: Int
  ) throws(NetmapClientError) -> NetmapAnswer {
    guard let option = ((try? program.request.option(ExternalMemoryOption.self)) ?? nil) else {
      return NetmapAnswer(errno: EINVAL, payload: [], text: "", descriptors: [])
    }
    let mapped: MappedFile
    do { mapped = try MappedFile.behind(option.start) } catch {
      program.request.options[index].status = UInt32(error.errno)
      throw error
    }
    var request = program.request
    request.options[index].bytes = ExternalMemoryOption(start: mapped.offset, pools: option.pools).encoded()
    return try NetmapChannel.ask(
      descriptor, NetmapRequestHead(.ioctl, number: NetmapIoctl.control, extra: mapped.count), request.encoded(), file: mapped.file.raw)
  }

  private static func startLoop(
    _ descriptor: Int32, _ program: inout ProgramRequest, _ attachment: () throws(NetmapClientError) -> NetmapAttachment
  ) throws(NetmapClientError) -> Int32 {
    do throws(NetmapError) {
      try program.request.admit()
      let sleep = try SyncLoopStart(decoding: program.request.body).sleep
      guard sleep <= SyncLoopStart.longestSleep else { return EINVAL }
      let events: LoopEventsOption?
      do { events = try program.request.option(LoopEventsOption.self) } catch {
        program.request.settle(.loopEvents, .EINVAL)
        throw error
      }
      let mode = try program.request.option(LoopModeOption.self)
      let held: NetmapAttachment
      do throws(NetmapClientError) { held = try attachment() } catch { return error.errno }
      let loop = SyncLoop(held, descriptor, sleep: sleep, events: events?.rings, mode: mode?.mode ?? 0)
      return loop.run { option, code in program.request.settle(option, code) }
    } catch { return error.code.rawValue }
  }

  // MARK: The program's memory

  static func copyIn(_ address: UInt64, _ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the kernel copies at most the array's bytes, and refuses addresses that cannot be read.
    let copied = unsafe bytes.withUnsafeMutableBytes { unsafe rw_copy_in($0.baseAddress!, address, count) }
    return copied == count ? bytes : nil
  }

  static func copyOut(_ address: UInt64, _ bytes: [UInt8]) -> Bool {
    if bytes.isEmpty { return true }
    // SAFETY: the kernel copies the array's bytes, and refuses addresses that cannot be written.
    return unsafe bytes.withUnsafeBytes { unsafe rw_copy_out(address, $0.baseAddress!, $0.count) } == bytes.count
  }
}
