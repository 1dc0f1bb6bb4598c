// The Ringway module.
