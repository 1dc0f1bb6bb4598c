/* libpci: names of vendors and devices. GPL-2.0+, so only the command line links it. */
#ifndef RINGWAY_CPCI_H
#define RINGWAY_CPCI_H
#include <stddef.h>
#include <stdint.h>
#include <pci/pci.h>

/* pci_lookup_name(3) takes a variable argument list, which Swift cannot call. NULL when unknown. */
static inline const char *rw_pci_vendor_name(struct pci_access *a, char *buffer, int size, int vendor)
{
    return pci_lookup_name(a, buffer, size, PCI_LOOKUP_VENDOR | PCI_LOOKUP_NO_NUMBERS, vendor);
}
static inline const char *rw_pci_device_name(struct pci_access *a, char *buffer, int size, int vendor, int device)
{
    return pci_lookup_name(a, buffer, size, PCI_LOOKUP_DEVICE | PCI_LOOKUP_NO_NUMBERS, vendor, device);
}
#endif
