// Requests and their answers.

internal import CRingway
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
internal import Platform

/// What goes back to a program.
struct Answer: ~Copyable {
  var payload: [UInt8] = []
  /// Borrowed for the length of the sending.
  var descriptors: [Int32] = []
  /// Closed after it.
  var owned: OwnedDescriptor?
  var error: NetmapError?
}

extension NetmapServer {
  /// Handles one request, and answers on the socket that came with it.
  func serve(_ packet: consuming IncomingPacket, _ connection: Connection) {
    count { $0.requests += 1 }
    let answer = self.answer(packet, connection)
    let bytes = NetmapReplyHead.packet(
      errno: answer.error?.code.rawValue ?? 0, payload: answer.payload, text: answer.error?.problem ?? "",
      descriptors: answer.descriptors.count)
    // A program that does not take its answer goes without.
    let sent = unsafe bytes.withUnsafeBytes { buffer in
      unsafe answer.descriptors.withUnsafeBufferPointer { list in
        // SAFETY: the kernel reads the arrays' own elements.
        unsafe rw_answer_packet(packet.answer.raw, buffer.baseAddress!, buffer.count, list.baseAddress, UInt32(list.count))
      }
    }
    if sent < 0 { count { $0.refused += 1 } }
  }

  private func answer(_ packet: borrowing IncomingPacket, _ connection: Connection) -> Answer {
    do throws(NetmapError) {
      if packet.isCut { throw NetmapError(.EMSGSIZE, "A request has at most \(NetmapMessageLimit.bytes) bytes.") }
      let (head, payload) = try NetmapRequestHead.read(packet: packet.bytes)
      switch head.kind {
      case .ioctl: return request(head, payload, packet, connection)
      case .attach: return try attach(connection)
      case .query:
        var answer = Answer()
        answer.payload = try options.query(try PortQuery(decoding: payload).name).encoded()
        return answer
      }
    } catch {
      var answer = Answer()
      answer.error = error
      return answer
    }
  }

  private func request(
    _ head: NetmapRequestHead, _ payload: [UInt8], _ packet: borrowing IncomingPacket, _ connection: Connection
  ) -> Answer {
    let reply = connection.descriptor.ioctl(head.number, payload, external: external(head, packet.fileNumber, connection))
    var answer = Answer()
    answer.payload = reply.payload
    if reply.errno != 0 { answer.error = NetmapError(NetmapError.Code(rawValue: reply.errno) ?? .EIO, reply.problem) }
    noteRegistration(head.number, payload, connection)
    connection.showFlags()
    return answer
  }

  /// What makes the region of an EXTMEM option in the memory file that came with the request; nil without a file.
  private func external(_ head: NetmapRequestHead, _ file: Int32, _ connection: Connection) -> ExternalRegion? {
    guard file >= 0 else { return nil }
    let memory = system.memory, name = "process \(connection.peer.pid)"
    return { option throws(NetmapError) in
      // The answer to an attach has 32 bits for it, in units of 4096.
      guard option.start < 1 << 44 else {
        throw NetmapError(.EINVAL, "\(name): external memory starts at byte \(option.start) of its file. Use a smaller file.")
      }
      let copy = rw_fcntl(file, F_DUPFD_CLOEXEC, 0)
      guard copy >= 0 else {
        throw NetmapError(.ENOMEM, "\(name): no descriptor for its memory file (error \(rw_errno())). Raise the daemon's limit of open files.")
      }
      return try memory.makeExternal(
        OwnedDescriptor(taking: copy), offset: option.start, bytes: head.extra, pools: option.pools, name: name)
    }
  }

  /// What is told of a descriptor from its registration on.
  private func noteRegistration(_ number: UInt64, _ payload: [UInt8], _ connection: Connection) {
    guard !connection.isRegistered, let port = connection.descriptor.port else { return }
    connection.isRegistered = true
    connection.mode = Self.mode(number, payload)
    state.withLock { state in
      state.past.sessions += 1
      state.clients[connection.token]?.port = port
    }
  }

  /// `nr_mode` of a registration that was accepted.
  private static func mode(_ number: UInt64, _ payload: [UInt8]) -> UInt32 {
    do throws(NetmapError) {
      let flat = number == NetmapIoctl.control ? try FlatRequest(decoding: payload) : try LegacyRequest(decoding: payload).registration()
      return try RegisterRequest(decoding: flat.body).mode
    } catch { return 0 }
  }

  private func attach(_ connection: Connection) throws(NetmapError) -> Answer {
    let session = try connection.attach(placement)
    state.withLock { $0.clients[connection.token]?.session = session }
    let region: OwnedDescriptor
    do { region = try session.port.region.allocator.exportDescriptor() } catch { throw NetmapError(.ENOMEM, "\(error)") }
    var answer = Answer()
    answer.payload = session.attachReply(mode: UInt16(truncatingIfNeeded: connection.mode)).encoded()
    answer.descriptors = [region.raw, session.page.descriptor] + session.parts.map { $0.doorbell.descriptor }
    answer.owned = consume region
    return answer
  }
}
