// Codable structures as values, and back.

/// Turns `Codable` structures into values and values into structures.
public enum ControlCoder {
  /// EINVAL for what JSON cannot say.
  public static func value(_ structure: some Encodable) throws(ControlError) -> ControlValue {
    let node = ControlNode()
    do { try structure.encode(to: ControlEncoder(node: node, codingPath: [])) } catch {
      throw ControlError("EINVAL", "this cannot be sent: \(error).")
    }
    return node.value
  }

  /// EINVAL when members are missing or of another kind; the sentence names the member.
  public static func structure<T: Decodable>(_ type: T.Type = T.self, from value: ControlValue) throws(ControlError) -> T {
    do { return try T(from: ControlDecoder(value: value, codingPath: [])) } catch let error as DecodingError {
      throw ControlError("EINVAL", sentence(error))
    } catch let error as ControlError { throw error } catch {
      throw ControlError("EINVAL", "the message cannot be read: \(error).")
    }
  }

  private static func sentence(_ error: DecodingError) -> String {
    func path(_ context: DecodingError.Context, _ last: String? = nil) -> String {
      let names = context.codingPath.map(\.stringValue) + (last.map { [$0] } ?? [])
      return names.isEmpty ? "the message" : "\"\(names.joined(separator: "."))\""
    }
    return switch error {
    case .keyNotFound(let key, let context): "\(path(context, key.stringValue)) is missing."
    case .valueNotFound(_, let context): "\(path(context)) is null or missing."
    case .typeMismatch(_, let context), .dataCorrupted(let context): "\(path(context)): \(context.debugDescription)."
    @unknown default: "the message cannot be read."
    }
  }
}

struct ControlKey: CodingKey {
  var stringValue: String
  var intValue: Int?
  init(stringValue: String) { self.stringValue = stringValue }
  init(intValue: Int) { (stringValue, self.intValue) = (String(intValue), intValue) }
}

// MARK: Encoding

/// A value in the making.
final class ControlNode {
  enum Content {
    case value(ControlValue)
    case array([ControlNode])
    case object([(String, ControlNode)])
  }
  var content = Content.object([])
  var value: ControlValue {
    switch content {
    case .value(let value): value
    case .array(let nodes): .array(nodes.map(\.value))
    case .object(let nodes): .object(nodes.map { .init($0.0, $0.1.value) })
    }
  }
  /// A new child at the end.
  func append(_ name: String? = nil) -> ControlNode {
    let child = ControlNode()
    if let name {
      var members: [(String, ControlNode)] = []
      if case .object(let old) = content { members = old }
      content = .value(.null)
      members.append((name, child))
      content = .object(members)
    } else {
      var elements: [ControlNode] = []
      if case .array(let old) = content { elements = old }
      content = .value(.null)
      elements.append(child)
      content = .array(elements)
    }
    return child
  }
}

struct ControlEncoder: Encoder {
  let node: ControlNode
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    node.content = .object([])
    return KeyedEncodingContainer(Keyed<Key>(encoder: self))
  }
  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    node.content = .array([])
    return Unkeyed(encoder: self)
  }
  func singleValueContainer() -> any SingleValueEncodingContainer { Single(encoder: self) }

  func write<T: Encodable>(_ value: T, to node: ControlNode) throws {
    switch value {
    case let value as String: node.content = .value(.string(value))
    case let value as Bool: node.content = .value(.bool(value))
    case let value as Double: node.content = .value(.double(value))
    case let value as Float: node.content = .value(.double(Double(value)))
    case let value as any BinaryInteger & Encodable:
      if let small = Int64(exactly: value) {
        node.content = .value(.int(small))
      } else if let large = UInt64(exactly: value) {
        node.content = .value(.uint(large))
      } else {
        throw EncodingError.invalidValue(value, .init(codingPath: codingPath, debugDescription: "a number of more than 64 bits"))
      }
    default: try value.encode(to: ControlEncoder(node: node, codingPath: codingPath))
    }
  }

  struct Keyed<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let encoder: ControlEncoder
    var codingPath: [any CodingKey] { encoder.codingPath }
    func encodeNil(forKey key: Key) { encoder.node.append(key.stringValue).content = .value(.null) }
    func encode<T: Encodable>(_ value: T, forKey key: Key) throws { try encoder.write(value, to: encoder.node.append(key.stringValue)) }
    func nestedContainer<K>(keyedBy type: K.Type, forKey key: Key) -> KeyedEncodingContainer<K> {
      ControlEncoder(node: encoder.node.append(key.stringValue), codingPath: codingPath + [key]).container(keyedBy: type)
    }
    func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
      ControlEncoder(node: encoder.node.append(key.stringValue), codingPath: codingPath + [key]).unkeyedContainer()
    }
    func superEncoder() -> any Encoder { ControlEncoder(node: encoder.node.append("super"), codingPath: codingPath) }
    func superEncoder(forKey key: Key) -> any Encoder { ControlEncoder(node: encoder.node.append(key.stringValue), codingPath: codingPath) }
  }

  struct Unkeyed: UnkeyedEncodingContainer {
    let encoder: ControlEncoder
    var codingPath: [any CodingKey] { encoder.codingPath }
    var count: Int { if case .array(let nodes) = encoder.node.content { nodes.count } else { 0 } }
    func encodeNil() { encoder.node.append().content = .value(.null) }
    func encode<T: Encodable>(_ value: T) throws { try encoder.write(value, to: encoder.node.append()) }
    func nestedContainer<K>(keyedBy type: K.Type) -> KeyedEncodingContainer<K> {
      ControlEncoder(node: encoder.node.append(), codingPath: codingPath).container(keyedBy: type)
    }
    func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
      ControlEncoder(node: encoder.node.append(), codingPath: codingPath).unkeyedContainer()
    }
    func superEncoder() -> any Encoder { ControlEncoder(node: encoder.node.append(), codingPath: codingPath) }
  }

  struct Single: SingleValueEncodingContainer {
    let encoder: ControlEncoder
    var codingPath: [any CodingKey] { encoder.codingPath }
    func encodeNil() { encoder.node.content = .value(.null) }
    func encode<T: Encodable>(_ value: T) throws { try encoder.write(value, to: encoder.node) }
  }
}
