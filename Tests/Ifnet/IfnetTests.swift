import Testing

@testable import Ifnet
