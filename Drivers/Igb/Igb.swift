// Igb
