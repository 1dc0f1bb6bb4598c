/* libhugetlbfs: mount points and unlinked files by page size. Its header needs size_t first. */
#include <stddef.h>
#include <hugetlbfs.h>

/*
 * The library learns page sizes and mounts in a constructor. A static program is linked without
 * it: the archive's member that holds it has no symbol that anybody could ask for. These are the
 * constructor's steps that matter here. A shared library keeps them to itself, so that the weak
 * references are null there, and has run them.
 */
extern void __lh_hugetlbfs_setup_env(void) __attribute__((weak));
extern void __lh_hugetlbfs_setup_debug(void) __attribute__((weak));
extern void __lh_setup_features(void) __attribute__((weak));
extern void __lh_setup_mounts(void) __attribute__((weak));

/* Once a process, before any other call. */
static inline void rw_hugetlbfs_setup(void)
{
    if (__lh_hugetlbfs_setup_env)
        __lh_hugetlbfs_setup_env();
    if (__lh_hugetlbfs_setup_debug)
        __lh_hugetlbfs_setup_debug();
    if (__lh_setup_features)
        __lh_setup_features();
    if (__lh_setup_mounts)
        __lh_setup_mounts();
}
