// The E1000e module.
