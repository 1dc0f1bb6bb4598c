// The VirtioTransport module.
