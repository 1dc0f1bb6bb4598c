import Testing

@testable import VirtioNet
