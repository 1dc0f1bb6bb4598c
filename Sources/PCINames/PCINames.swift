// The PCINames module.
