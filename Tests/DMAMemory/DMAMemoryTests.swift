import Testing

@testable import DMAMemory
