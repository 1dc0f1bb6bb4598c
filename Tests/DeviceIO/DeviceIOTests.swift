import Testing

@testable import DeviceIO
