/* A slow disk for any program: each call that waits for the disk takes SLOW_FSYNC_US microseconds more.
 *
 *     cc -shared -fPIC -O2 -o slow_fsync.so slow_fsync.c -ldl
 *     SLOW_FSYNC_US=2000 LD_PRELOAD=.../slow_fsync.so PROGRAM
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static void wait_for_disk(void) {
    const char *text = getenv("SLOW_FSYNC_US");
    const long us = text ? atol(text) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    const int said = errno;
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
    errno = said;
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    const int result = real(file);
    wait_for_disk();
    return result;
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const int result = real(file);
    wait_for_disk();
    return result;
}

int msync(void *begin, size_t size, int flags) {
    static int (*real)(void *, size_t, int);
    if (!real) real = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    const int result = real(begin, size, flags);
    if (flags & MS_SYNC) wait_for_disk();
    return result;
}

/* Without SYNC_FILE_RANGE_WAIT_… it only asks for writing, and returns at once on a slow disk too. */
int sync_file_range(int file, off64_t begin, off64_t size, unsigned int flags) {
    static int (*real)(int, off64_t, off64_t, unsigned int);
    if (!real) real = (int (*)(int, off64_t, off64_t, unsigned int))dlsym(RTLD_NEXT, "sync_file_range");
    const int result = real(file, begin, size, flags);
    if (flags & (SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER)) wait_for_disk();
    return result;
}
