// The system's clock is a time source for drivers. Platform knows nothing of devices, and DeviceIO
// nothing of the system: this is the lowest floor that sees both and needs them together.

public import DeviceIO
public import Platform

extension MonotonicClock: TimeSource {}
