import Testing

@testable import VirtioTransport
