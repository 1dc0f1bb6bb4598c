// The DeviceIO module.
