/* libFuzzer's entry points, when it is linked in; and descriptors passed over a socket. */
#ifndef RINGWAY_CFUZZ_H
#define RINGWAY_CFUZZ_H
#include <stddef.h>
#include <stdint.h>

typedef int (*cf_target)(const uint8_t *_Nonnull data, size_t size);

/* Hands the command line to libFuzzer, which calls `target` with inputs; -1 when it is not linked in. */
int cf_run(int argc, char *_Nullable *_Nonnull argv, cf_target _Nonnull target);

/* Sends bytes, with a descriptor beside them unless it is negative. */
long cf_send(int socket, const void *_Nonnull bytes, size_t count, int descriptor);

/* How many descriptors this process has open. */
int cf_descriptors(void);
#endif
