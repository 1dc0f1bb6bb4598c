// The control socket's bytes, cut into lines and read as messages and requests.

import Control

enum ControlReads {
  static func run(_ input: inout FuzzInput) -> [String] {
    var problems: [String] = []
    var lines = ControlLines(limit: 4096)
    while !input.isAtEnd {
      lines.append(input.take(1 + input.below(300)))
      do throws(ControlError) {
        while let line = try lines.next() {
          guard line.count <= 4096 else {
            problems.append("a line of \(line.count) bytes came through")
            continue
          }
          problems += read(line)
        }
      } catch {
        if error.message.isEmpty { problems.append("an error without a sentence") }
        return problems
      }
    }
    return problems + read(Array("".utf8))
  }

  private static func read(_ line: [UInt8]) -> [String] {
    let message: ControlMessage
    do throws(ControlError) { message = try ControlMessage(line: line) } catch {
      return error.message.isEmpty ? ["an error without a sentence"] : []
    }
    // What was understood is said again in the same way.
    guard let again = try? ControlMessage(line: message.line.dropLast()), again == message else {
      return ["\(message) is not read as it was written"]
    }
    guard case .call(_, _, let arguments) = message else { return [] }
    tryAll(arguments)
    return []
  }

  /// As every request in turn: it fits, or is refused.
  private static func tryAll(_ value: ControlValue) {
    func attempt<R: ControlRequest>(_ type: R.Type) { _ = try? ControlCoder.structure(type, from: value) }
    attempt(Hello.self)
    attempt(InterfaceList.self)
    attempt(InterfaceSet.self)
    attempt(InterfaceCreate.self)
    attempt(RouteAdd.self)
    attempt(NeighbourSet.self)
    attempt(SysctlWrite.self)
    attempt(Subscribe.self)
    attempt(CaptureStart.self)
  }
}
