/*
 * libpcap's archive pulls in capture back ends for D-Bus, and with them libraries that have no
 * static form. Ringway only compiles and runs filter expressions, so these two entry points say
 * that no such device exists; the linker then leaves the real ones in the archive.
 */
#include <pcap/pcap.h>
#include <stddef.h>

typedef struct pcap_if_list pcap_if_list_t;

pcap_t *dbus_create(const char *device, char *errbuf, int *is_ours);
int dbus_findalldevs(pcap_if_list_t *list, char *errbuf);

pcap_t *dbus_create(const char *device, char *errbuf, int *is_ours)
{
    (void)device;
    (void)errbuf;
    *is_ours = 0;
    return NULL;
}

int dbus_findalldevs(pcap_if_list_t *list, char *errbuf)
{
    (void)list;
    (void)errbuf;
    return 0;
}
