import Testing

@testable import E1000e
