// What every control request must keep to, whichever it is; the statuses of options are netmap's on errors too.

extension FlatRequest {
  /// Looks at the request as netmap does before it handles it, and sets every option's status to EOPNOTSUPP: who takes
  /// an option writes its status. The errors:
  /// EINVAL: the version, the request's number, a body where none is expected or of the wrong size, an option of type 0 or
  /// one that is there twice (in both statuses), a payload of the wrong size. EMSGSIZE: more than 4096 bytes.
  /// EOPNOTSUPP: an option of an unknown type, or one that REGISTER has no use for.
  public mutating func admit() throws(NetmapError) {
    guard NetmapLayout.versions.contains(version) else { throw Self.wrongVersion(version) }
    guard weight <= NetmapLayout.mostBytes else { throw Self.tooLong() }
    guard body.count == (kind?.bodySize ?? 0) else {
      throw NetmapError(.EINVAL, "Request \(type) has a body of \(body.count) bytes where \(kind?.bodySize ?? 0) are expected.")
    }
    for i in options.indices { options[i].status = 0 }
    for i in options.indices { try checkOption(i) }
    for i in options.indices { options[i].status = Self.notSupported }
    guard let kind else { throw NetmapError(.EINVAL, "There is no control request \(type); they are 1 to 15.") }
    try refuseUnusable(kind)
  }

  static let notSupported = UInt32(NetmapError.Code.EOPNOTSUPP.rawValue)
  static let invalid = UInt32(NetmapError.Code.EINVAL.rawValue)

  static func wrongVersion(_ version: UInt16) -> NetmapError {
    NetmapError(
      .EINVAL,
      "Version \(version) of netmap's interface is not understood; \(NetmapLayout.versions.lowerBound) to \(NetmapLayout.versions.upperBound) are.")
  }

  /// The rules for option `i` and those before it. Its status says what is wrong.
  mutating func checkOption(_ i: Int) throws(NetmapError) {
    let type = options[i].type
    guard type != 0 else {
      options[i].status = Self.invalid
      throw NetmapError(.EINVAL, "An option has type 0; the types are 1 to 5.")
    }
    guard let known = NetmapOptionType(rawValue: type) else { return }
    if let first = options[..<i].firstIndex(where: { $0.type == type }) {
      options[first].status = Self.invalid
      options[i].status = Self.invalid
      throw NetmapError(.EINVAL, "Option \(type) is there twice; leave one of them out.")
    }
    if let size = known.payloadSize, options[i].bytes.count != size {
      options[i].status = Self.invalid
      throw wrongLength("Option \(type)", options[i].bytes.count, size)
    }
  }

  private mutating func refuseUnusable(_ kind: NetmapRequestType) throws(NetmapError) {
    var refused: UInt32?
    for option in options {
      let known = NetmapOptionType(rawValue: option.type)
      if known == nil || (kind == .register && known?.isFor(.register) == false) { refused = refused ?? option.type }
    }
    guard let refused else { return }
    // The others would have been taken.
    for i in options.indices where NetmapOptionType(rawValue: options[i].type)?.isFor(kind) == true { options[i].status = 0 }
    throw NetmapError(.EOPNOTSUPP, "Option \(refused) is not one that request \(type) understands.")
  }
}
