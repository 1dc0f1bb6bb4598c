// The Packet module.
