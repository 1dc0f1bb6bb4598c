/* libpci: scanning and names. GPL-2.0+, so only the command line links it. */
#include <stddef.h>
#include <stdint.h>
#include <pci/pci.h>
