// The DriverKit module.
