// The VirtioNet module.
