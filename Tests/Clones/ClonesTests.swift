import Testing

@testable import Clones
