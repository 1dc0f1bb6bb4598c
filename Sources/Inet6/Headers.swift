// Extension headers (RFC 8200, section 4): one walk over them, for whoever must know what follows.

internal import Packet
internal import Wire

/// What a walk over the headers ends at.
enum HeaderEnd {
  /// The upper header's number, where it starts, and where the field lies that named it.
  case upper(next: UInt8, offset: Int, field: Int)
  /// A fragment header at `offset`; `field` names it. Not one of an atomic fragment.
  case fragment(offset: Int, field: Int)
  case problem(ICMPv6Error, DropReason)
  case drop(DropReason, Inet6Counter)
}

/// What options ask for.
enum OptionResult: Equatable {
  /// The value of a router alert, when there is one.
  case fine(routerAlert: UInt16?)
  case problem(ICMPv6Error)
  case drop
}

enum Headers {
  /// Walks from the fixed header on. `bytes` must hold it.
  /// - Parameter skipsFragment: the fragment header of a datagram that was put together is gone; this walk is for that.
  static func walk(_ bytes: IPv6Bytes, limit: Int, counters: CounterBlock) -> HeaderEnd {
    var field = IPv6Header.next
    var next = bytes.get8(field)
    var at = IPv6Header.size
    var count = 0
    while true {
      switch next {
      case IPv6Next.hopByHop, IPv6Next.destination, IPv6Next.routing:
        // Hop-by-hop options come first or not at all (section 4.1).
        if next == IPv6Next.hopByHop, at != IPv6Header.size { return .problem(.unknownNext(at: field), .ipv6ExtensionHeaders) }
        guard bytes.holds(8, at: at) else { return .drop(.ipMalformed, .tooShort) }
        let length = (Int(bytes.get8(at + 1)) + 1) * 8
        guard bytes.holds(length, at: at) else { return .drop(.ipMalformed, .tooShort) }
        if next == IPv6Next.routing {
          // Type 0 is no longer known (RFC 5095), and no other is: it may only be passed when used up (section 4.4).
          if bytes.get8(at + 3) != 0 { return .problem(.badField(at: at + 2), .ipv6ExtensionHeaders) }
        } else {
          switch options(bytes, at, length) {
          case .fine: break
          case .problem(let error): return .problem(error, .ipv6ExtensionHeaders)
          case .drop: return .drop(.ipv6ExtensionHeaders, .badOptions)
          }
        }
        (field, next) = (at, bytes.get8(at))
        at += length
      case IPv6Next.fragment:
        guard bytes.holds(8, at: at) else { return .drop(.fragmentMalformed, .tooShort) }
        if bytes.get16(at + 2) & 0xfff9 != 0 { return .fragment(offset: at, field: field) }
        // A whole datagram in one fragment is no matter for reassembly (RFC 6946).
        counters.add(.atomicFragments)
        (field, next) = (at, bytes.get8(at))
        at += IPv6Header.fragmentSize
      default: return .upper(next: next, offset: at, field: field)
      }
      count += 1
      if count > limit { return .drop(.ipv6ExtensionHeaders, .tooManyHeaders) }
    }
  }

  /// Reads the options of a header of `length` bytes at `offset` (section 4.2). `bytes` must hold it.
  static func options(_ bytes: IPv6Bytes, _ offset: Int, _ length: Int) -> OptionResult {
    var at = offset + 2
    let end = offset + length
    var alert: UInt16?
    while at < end {
      let type = bytes.get8(at)
      if type == 0 {
        at += 1
        continue
      }
      guard at + 2 <= end else { return .problem(.badField(at: at)) }
      let size = Int(bytes.get8(at + 1))
      guard at + 2 + size <= end else { return .problem(.badField(at: at + 1)) }
      switch type {
      case 1: break
      case 5 where size == 2: alert = bytes.get16(at + 2)
      case 5: return .problem(.badField(at: at + 1))
      default:
        switch type >> 6 {
        case 0: break
        case 1: return .drop
        case 2: return .problem(.unknownOption(at: at))
        default: return bytes.get8(IPv6Header.destination) == 0xff ? .drop : .problem(.unknownOption(at: at))
        }
      }
      at += 2 + size
    }
    return .fine(routerAlert: alert)
  }

  /// Where the upper header is, without a look at options: for messages about packets. nil: not to be found.
  static func find(_ bytes: IPv6Bytes) -> (next: UInt8, offset: Int)? {
    var next = bytes.get8(IPv6Header.next)
    var at = IPv6Header.size
    for _ in 0..<32 {
      switch next {
      case IPv6Next.hopByHop, IPv6Next.destination, IPv6Next.routing:
        guard bytes.holds(8, at: at) else { return nil }
        next = bytes.get8(at)
        at += (Int(bytes.get8(at + 1)) + 1) * 8
      case IPv6Next.fragment:
        guard bytes.holds(8, at: at), bytes.get16(at + 2) & 0xfff8 == 0 else { return nil }
        next = bytes.get8(at)
        at += IPv6Header.fragmentSize
      default: return bytes.holds(1, at: at) ? (next, at) : nil
      }
    }
    return nil
  }

  /// How many bytes in front go into every fragment, and where the field lies that names what follows (section 4.5).
  static func unfragmentable(_ bytes: IPv6Bytes) -> (length: Int, field: Int) {
    var field = IPv6Header.next
    var at = IPv6Header.size
    var found = (length: at, field: field)
    while bytes.holds(8, at: at) {
      let next = bytes.get8(field)
      guard next == IPv6Next.hopByHop || next == IPv6Next.routing || next == IPv6Next.destination else { break }
      field = at
      at += (Int(bytes.get8(at + 1)) + 1) * 8
      if next != IPv6Next.destination { found = (at, field) }
    }
    return found
  }
}
