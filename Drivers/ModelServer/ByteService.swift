// One connection without sockets: for fuzzers, and for tests that want to know every byte.

public import ModelKit
internal import Platform
internal import SystemPackage

extension ModelServer {
  /// Serves what one client sends, from its first byte to its last, and leaves the model as the client
  /// of a socket would: unmapped, disconnected, reset.
  ///
  /// Ends early where a connection would end. The model steps after each message, once.
  /// - Parameters:
  ///   - bytes: messages one after another; the last may be incomplete.
  ///   - descriptors: what comes with a message, by its command and number from 0. Taken over.
  /// - Returns: the answers, one after another. Descriptors that would go with them are left out.
  public static func serve(
    bytes: [UInt8], to model: any DeviceModel, mode: AccessMode = .trapped,
    descriptors: (_ command: UInt16, _ number: Int) -> [Int32] = { _, _ in [] }
  ) -> [UInt8] {
    let session = ModelSession(model, mode: mode)
    defer { session.end() }
    var answers: [UInt8] = []
    var at = 0
    var number = 0
    while let header = MessageHeader(bytes[at...]), header.isPlausible, at + Int(header.size) <= bytes.count {
      let message = bytes[at..<at + Int(header.size)]
      let reply = session.handle(message, PassedDescriptors(descriptors(header.command, number)))
      answers += reply.bytes
      _ = model.step(budget: 256)
      if reply.ends || session.memory.wasCutShort { break }
      at += Int(header.size)
      number += 1
    }
    return answers
  }
}
