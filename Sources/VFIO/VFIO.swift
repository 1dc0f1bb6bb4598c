// The VFIO module.
