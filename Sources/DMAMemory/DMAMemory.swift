// The DMAMemory module.
