/* The functions are Swift (module NetmapClientExports); this file holds the header to C. */
#include "ringway-netmap.h"

_Static_assert(sizeof(struct rw_netmap_slot) == 16, "a slot has 16 bytes");
_Static_assert(sizeof(struct rw_netmap_ring) == 48, "Swift fills these fields by their offsets");
