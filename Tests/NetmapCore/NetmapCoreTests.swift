import Testing

@testable import NetmapCore
