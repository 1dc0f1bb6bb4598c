#include "cfuzz.h"
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Weak: an ordinary build has no fuzzer, and replays inputs alone. */
extern int LLVMFuzzerRunDriver(int *argc, char ***argv, cf_target target) __attribute__((weak));

int cf_run(int argc, char **argv, cf_target target)
{
    if (!LLVMFuzzerRunDriver)
        return -1;
    return LLVMFuzzerRunDriver(&argc, &argv, target);
}

long cf_send(int socket, const void *bytes, size_t count, int descriptor)
{
    struct iovec piece = {(void *)bytes, count};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (descriptor >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *one = CMSG_FIRSTHDR(&message);
        one->cmsg_level = SOL_SOCKET;
        one->cmsg_type = SCM_RIGHTS;
        one->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(one), &descriptor, sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int cf_descriptors(void)
{
    int open = 0;
    for (int i = 0; i < 1024; i++)
        if (fcntl(i, F_GETFD) >= 0)
            open++;
    return open;
}
