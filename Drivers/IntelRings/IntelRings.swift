// IntelRings
