/* Fails the n-th write to files of one name, and every later one when asked: preloaded into a process under test.

   FAIL_AT n (from 1; 0 never), FAIL_FOR "once" or "ever", FAIL_WITH an errno, FAIL_NAME a part of the file's path,
   FAIL_COUNT a file that is told how many calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls, syncs;

/* How many times files of that name were synced: for the process itself to ask, through ctypes. */
long syncs_so_far(void) { return syncs; }

static int is_ours(int fd) {
    const char *name = getenv("FAIL_NAME");
    char link[64], path[PATH_MAX];
    if (name == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strstr(path, name) != NULL && strstr(path, ".lock") == NULL && strstr(path, "-shm") == NULL;
}

static int fails(int fd) {
    if (!is_ours(fd)) return 0;
    calls++;
    const char *told = getenv("FAIL_COUNT");
    if (told != NULL) {
        FILE *file = fopen(told, "w");
        if (file != NULL) {
            fprintf(file, "%ld\n", calls);
            fclose(file);
        }
    }
    const char *at = getenv("FAIL_AT"), *how = getenv("FAIL_FOR"), *with = getenv("FAIL_WITH");
    long n = at == NULL ? 0 : atol(at);
    int is_hit = n > 0 && (calls == n || (calls > n && how != NULL && strcmp(how, "ever") == 0));
    if (is_hit) errno = with == NULL ? EIO : atoi(with);
    return is_hit;
}

#define NEXT(name)                    \
    static __typeof__(name) *next;    \
    if (next == NULL) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    return fails(fd) ? -1 : next(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    NEXT(pwrite);
    return fails(fd) ? -1 : next(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    return fails(fd) ? -1 : next(fd, data, size, at);
}

int fsync(int fd) {
    NEXT(fsync);
    if (is_ours(fd)) syncs++;
    return fails(fd) ? -1 : next(fd);
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    if (is_ours(fd)) syncs++;
    return fails(fd) ? -1 : next(fd);
}

int ftruncate(int fd, off_t size) {
    NEXT(ftruncate);
    return fails(fd) ? -1 : next(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    NEXT(ftruncate64);
    return fails(fd) ? -1 : next(fd, size);
}
