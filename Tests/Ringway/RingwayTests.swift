import Testing

@testable import Ringway
