import Testing

@testable import Inet6
