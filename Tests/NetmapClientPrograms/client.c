/* A program over ringway-netmap.h: sends numbered frames through the tests' loop port and takes them back. */
#include <errno.h>
#include <poll.h>
#include <ringway-netmap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
            exit(1); \
        } \
    } while (0)

static void send_and_receive(rw_netmap *port, unsigned number)
{
    struct rw_netmap_ring out, in;
    CHECK(rw_netmap_ring(port, RW_NETMAP_TRANSMIT, 0, &out) == 0 && out.slots == 16 && out.direction == RW_NETMAP_TRANSMIT);
    CHECK(rw_netmap_ring(port, RW_NETMAP_RECEIVE, 0, &in) == 0 && in.buffer_size == 2048 && !in.is_host);
    CHECK(rw_netmap_available(&out) == 15);
    uint32_t i = rw_netmap_head(&out);
    struct rw_netmap_slot *slot = rw_netmap_slot(&out, i);
    slot->length = 60;
    memcpy(rw_netmap_bytes(&out, slot->buffer), &number, sizeof number);
    rw_netmap_set_head(&out, rw_netmap_next(&out, i));
    CHECK(rw_netmap_wait(port, RW_NETMAP_RECEIVE, 2000) == RW_NETMAP_RECEIVE);
    CHECK(rw_netmap_available(&in) == 1);
    slot = rw_netmap_slot(&in, rw_netmap_head(&in));
    CHECK(slot->length == 60 && memcmp(rw_netmap_bytes(&in, slot->buffer), &number, sizeof number) == 0);
    rw_netmap_set_head(&in, rw_netmap_tail(&in));
}

int main(void)
{
    char why[200];
    CHECK(!rw_netmap_open("netmap:missing", 0, why, sizeof why) && errno == ENXIO && strstr(why, "no such interface"));
    CHECK(!rw_netmap_open("netmap:fake0/?", 0, why, sizeof why) && errno == EINVAL && strlen(why) > 10);
    CHECK(!rw_netmap_open("netmap:fake0", "/tmp/rw-nobody", why, 8) && errno == ENOENT && strlen(why) == 7);

    rw_netmap *port = rw_netmap_open_sized("netmap:fake0", 0, 16, 16, 4, 0, 0);
    CHECK(port && strcmp(rw_netmap_error(port), "") == 0);
    CHECK(rw_netmap_rings(port, RW_NETMAP_TRANSMIT) == 1 && rw_netmap_rings(port, RW_NETMAP_RECEIVE) == 1);
    for (unsigned i = 0; i < 50; i++) send_and_receive(port, i);
    CHECK(rw_netmap_wait(port, RW_NETMAP_RECEIVE, 10) == 0);
    CHECK(rw_netmap_wait(port, RW_NETMAP_RECEIVE | RW_NETMAP_TRANSMIT, -1) == RW_NETMAP_TRANSMIT);
    CHECK(rw_netmap_sync(port, RW_NETMAP_TRANSMIT) == 0 && rw_netmap_sync(port, RW_NETMAP_RECEIVE) == 0);

    struct rw_netmap_ring ring;
    CHECK(rw_netmap_ring(port, RW_NETMAP_RECEIVE, 7, &ring) == -1 && errno == ENOENT && strstr(rw_netmap_error(port), "no number 7"));
    uint32_t buffer = rw_netmap_take_buffer(port);
    CHECK(buffer >= 2);
    rw_netmap_give_buffer(port, buffer);
    CHECK(rw_netmap_take_buffer(port) == buffer);

    struct pollfd p = {rw_netmap_descriptor(port), POLLIN, 0};
    rw_netmap_arm(port, RW_NETMAP_RECEIVE);
    CHECK(rw_netmap_wait(port, RW_NETMAP_RECEIVE, 0) == 0);
    CHECK(poll(&p, 1, 10) == 0);
    rw_netmap_drain(port);

    CHECK(rw_netmap_reopen(port) == 0);
    send_and_receive(port, 99);
    rw_netmap_close(port);
    rw_netmap_close(0);
    puts("fine");
    return 0;
}
