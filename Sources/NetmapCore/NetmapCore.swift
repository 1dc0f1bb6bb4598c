// The NetmapCore module.
