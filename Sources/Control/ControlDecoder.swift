// Values as Codable structures.

struct ControlDecoder: Decoder {
  let value: ControlValue
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    guard case .object(let members) = value else { throw mismatch(type, "an object was expected") }
    return KeyedDecodingContainer(Keyed<Key>(decoder: self, members: members))
  }
  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    guard case .array(let elements) = value else { throw mismatch([Any].self, "a list was expected") }
    return Unkeyed(decoder: self, elements: elements)
  }
  func singleValueContainer() -> any SingleValueDecodingContainer { Single(decoder: self) }

  func mismatch(_ type: Any.Type, _ problem: String) -> DecodingError {
    .typeMismatch(type, .init(codingPath: codingPath, debugDescription: problem))
  }

  func read<T: Decodable>(_ type: T.Type) throws -> T {
    if type == String.self {
      guard case .string(let text) = value, let result = text as? T else { throw mismatch(type, "a text was expected") }
      return result
    }
    if type == Bool.self {
      guard case .bool(let flag) = value, let result = flag as? T else { throw mismatch(type, "true or false was expected") }
      return result
    }
    if type == Double.self || type == Float.self {
      let number: Double
      switch value {
      case .double(let value): number = value
      case .int(let value): number = Double(value)
      case .uint(let value): number = Double(value)
      default: throw mismatch(type, "a number was expected")
      }
      guard let result = (type == Double.self ? number as? T : Float(number) as? T) else {
        throw mismatch(type, "a number was expected")
      }
      return result
    }
    if let integer = type as? any (FixedWidthInteger & Decodable).Type {
      guard let result = exact(integer) as? T else {
        throw mismatch(type, "a whole number from \(integer.lowest) to \(integer.highest) was expected")
      }
      return result
    }
    return try T(from: self)
  }

  private func exact<I: FixedWidthInteger>(_ type: I.Type) -> I? {
    switch value {
    case .int(let value): I(exactly: value)
    case .uint(let value): I(exactly: value)
    default: nil
    }
  }

  func child(_ value: ControlValue, _ key: any CodingKey) -> ControlDecoder {
    ControlDecoder(value: value, codingPath: codingPath + [key])
  }

  struct Keyed<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let decoder: ControlDecoder
    let members: [ControlValue.Member]
    var codingPath: [any CodingKey] { decoder.codingPath }
    var allKeys: [Key] { members.compactMap { Key(stringValue: $0.name) } }
    func contains(_ key: Key) -> Bool { members.contains { $0.name == key.stringValue } }

    func member(_ key: Key) throws -> ControlDecoder {
      guard let member = members.first(where: { $0.name == key.stringValue }) else {
        throw DecodingError.keyNotFound(key, .init(codingPath: codingPath, debugDescription: "missing"))
      }
      return decoder.child(member.value, key)
    }
    func decodeNil(forKey key: Key) throws -> Bool { try member(key).value == .null }
    func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T { try member(key).read(type) }
    func nestedContainer<K>(keyedBy type: K.Type, forKey key: Key) throws -> KeyedDecodingContainer<K> {
      try member(key).container(keyedBy: type)
    }
    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer { try member(key).unkeyedContainer() }
    func superDecoder() throws -> any Decoder { decoder }
    func superDecoder(forKey key: Key) throws -> any Decoder { try member(key) }
  }

  struct Unkeyed: UnkeyedDecodingContainer {
    let decoder: ControlDecoder
    let elements: [ControlValue]
    var currentIndex = 0
    var codingPath: [any CodingKey] { decoder.codingPath }
    var count: Int? { elements.count }
    var isAtEnd: Bool { currentIndex >= elements.count }

    mutating func next() throws -> ControlDecoder {
      guard currentIndex < elements.count else { throw decoder.mismatch([Any].self, "the list is too short") }
      defer { currentIndex += 1 }
      return decoder.child(elements[currentIndex], ControlKey(intValue: currentIndex))
    }
    mutating func decodeNil() throws -> Bool {
      guard currentIndex < elements.count, elements[currentIndex] == .null else { return false }
      currentIndex += 1
      return true
    }
    mutating func decode<T: Decodable>(_ type: T.Type) throws -> T { try next().read(type) }
    mutating func nestedContainer<K>(keyedBy type: K.Type) throws -> KeyedDecodingContainer<K> { try next().container(keyedBy: type) }
    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer { try next().unkeyedContainer() }
    mutating func superDecoder() throws -> any Decoder { try next() }
  }

  struct Single: SingleValueDecodingContainer {
    let decoder: ControlDecoder
    var codingPath: [any CodingKey] { decoder.codingPath }
    func decodeNil() -> Bool { decoder.value == .null }
    func decode<T: Decodable>(_ type: T.Type) throws -> T { try decoder.read(type) }
  }
}

extension FixedWidthInteger {
  fileprivate static var lowest: String { String(min) }
  fileprivate static var highest: String { String(max) }
}
