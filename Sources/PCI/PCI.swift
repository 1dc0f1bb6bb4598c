// The PCI module.
