// Attach: drivers joined to interfaces: queues to workers, interrupts to polling, stack mode to netmap mode and back, host rings.

public enum AttachModule {}
