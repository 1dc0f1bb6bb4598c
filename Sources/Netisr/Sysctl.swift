// The tree of controls: names with values that can be read, and some that can be set.

internal import Platform

/// A control's value.
public enum SysctlValue: Equatable, Sendable, CustomStringConvertible {
  case integer(Int64)
  case string(String)
  /// A table: column names, rows of texts.
  case table(columns: [String], rows: [[String]])

  public var description: String {
    switch self {
    case .integer(let value): "\(value)"
    case .string(let value): value
    case .table(let columns, let rows): ([columns] + rows).map { $0.joined(separator: " ") }.joined(separator: "\n")
    }
  }
}

/// Why a control could not be read or set.
public enum SysctlError: Error, Equatable, Sendable, CustomStringConvertible {
  /// ENOENT
  case unknown(String)
  /// EPERM
  case readOnly(String)
  /// EINVAL: name, value, what is possible.
  case invalid(name: String, value: String, allowed: String)

  /// "ENOENT", "EPERM" or "EINVAL".
  public var errno: String {
    switch self {
    case .unknown: "ENOENT"
    case .readOnly: "EPERM"
    case .invalid: "EINVAL"
    }
  }

  public var description: String {
    switch self {
    case .unknown(let name): "there is no control \"\(name)\". `ringway sysctl -a` lists them."
    case .readOnly(let name): "\(name) can only be read."
    case .invalid(let name, let value, let allowed): "\(name) cannot be \"\(value)\"; allowed: \(allowed)."
    }
  }
}

/// Controls by name ("net.isr.dispatch"). Modules add theirs.
public final class SysctlTree: Sendable {
  public struct Node: Sendable {
    public var name: String
    /// One line for people.
    public var summary: String
    public var read: @Sendable () -> SysctlValue
    /// Takes the text that was given; nil: read only.
    public var write: (@Sendable (String) throws(SysctlError) -> Void)?
  }
  private let nodes = Guarded<[String: Node]>([:])
  public init() {}

  /// Adds a control, or replaces the one with its name.
  public func add(
    _ name: String, _ summary: String, read: @escaping @Sendable () -> SysctlValue,
    write: (@Sendable (String) throws(SysctlError) -> Void)? = nil
  ) {
    nodes.withLock { $0[name] = Node(name: name, summary: summary, read: read, write: write) }
  }

  public func remove(_ name: String) { nodes.withLock { _ = $0.removeValue(forKey: name) } }

  public func read(_ name: String) throws(SysctlError) -> SysctlValue {
    guard let node = nodes.withLock({ $0[name] }) else { throw .unknown(name) }
    return node.read()
  }

  public func write(_ name: String, _ value: String) throws(SysctlError) {
    guard let node = nodes.withLock({ $0[name] }) else { throw .unknown(name) }
    guard let write = node.write else { throw .readOnly(name) }
    try write(value)
  }

  /// Every control at or below `prefix` ("net.isr"), by name; all for "".
  public func list(_ prefix: String = "") -> [Node] {
    nodes.withLock { $0.values.filter { prefix.isEmpty || $0.name == prefix || $0.name.hasPrefix(prefix + ".") } }
      .sorted { $0.name < $1.name }
  }
}
