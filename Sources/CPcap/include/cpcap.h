/* libpcap's filter compiler. Nothing here opens a device through libpcap. */
#ifndef RINGWAY_CPCAP_H
#define RINGWAY_CPCAP_H
#include <pcap/pcap.h>
#endif
