// Ixgbe
