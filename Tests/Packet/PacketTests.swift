import Testing

@testable import Packet
