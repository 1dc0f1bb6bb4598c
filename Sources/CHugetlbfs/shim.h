/* libhugetlbfs: mount points and unlinked files by page size. Its header needs size_t first. */
#include <stddef.h>
#include <hugetlbfs.h>
