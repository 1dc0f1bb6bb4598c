import Testing

@testable import Netisr
