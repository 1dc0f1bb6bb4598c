// Clones: interfaces that are made by name: lo, tap, epair, vlan, bridge.

public enum ClonesModule {}
