import Testing

@testable import Ether
