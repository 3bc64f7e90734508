#include "capacity.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is never promised: the kernel and everybody else need room too. */
#define MARGIN_MIN (UINT64_C(64) << 20)
#define MARGIN_SHARE 64

/* Where /proc and /sys are; the tests have their own. */
#ifndef CAPACITY_ROOT
#define CAPACITY_ROOT ""
#endif

static FILE *open_text(const char *path)
{
    char where[4736];

    return snprintf(where, sizeof where, "%s%s", CAPACITY_ROOT, path) < (int)sizeof where ? fopen(where, "re") : NULL;
}

static bool read_number(const char *dir, const char *file, uint64_t *out)
{
    char path[4608];
    FILE *f;
    bool ok;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    f = open_text(path);
    if (!f)
        return false;
    ok = fscanf(f, "%" SCNu64, out) == 1; /* "max" is no number: no limit */
    fclose(f);
    return ok;
}

/* Page cache counts as used by a cgroup but is given back under pressure. */
static uint64_t reclaimable(const char *dir, const char *name)
{
    char path[4608], key[64];
    uint64_t value, found = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/memory.stat", dir);
    f = open_text(path);
    if (!f)
        return 0;
    while (fscanf(f, "%63s %" SCNu64, key, &value) == 2)
        if (strcmp(key, name) == 0)
            found = value;
    fclose(f);
    return found;
}

static void limit_by(uint64_t *left, const char *dir, bool v2)
{
    uint64_t limit = UINT64_MAX, high, used, cache;

    bool limited = read_number(dir, v2 ? "memory.max" : "memory.limit_in_bytes", &limit);
    /* Beyond `high` nobody is killed, but shared memory that cannot be written out makes everybody in the group crawl. */
    if (v2 && read_number(dir, "memory.high", &high)) {
        limit = high < limit ? high : limit;
        limited = true;
    }
    if (!limited || !read_number(dir, v2 ? "memory.current" : "memory.usage_in_bytes", &used))
        return;
    cache = reclaimable(dir, v2 ? "inactive_file" : "total_inactive_file");
    used = used > cache ? used - cache : 0;
    uint64_t here = limit > used ? limit - used : 0;
    if (here < *left)
        *left = here;
}

static void limit_by_cgroups(uint64_t *left)
{
    char line[4096];
    FILE *f = open_text("/proc/self/cgroup");

    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        controllers++;
        path[strcspn(path, "\n")] = '\0';
        bool v2 = *controllers == '\0';
        if (!v2 && !strstr(controllers, "memory"))
            continue;
        const char *root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        /* Every ancestor's limit counts; in a container only the root of what is mounted may be visible. */
        for (;;) {
            char dir[4352];
            snprintf(dir, sizeof dir, "%s%s", root, path);
            limit_by(left, dir, v2);
            char *slash = strrchr(path, '/');
            if (!slash)
                break;
            *slash = '\0';
        }
    }
    fclose(f);
}

uint64_t libd_available(void)
{
    char key[64];
    uint64_t value, total = 0, left = 0, margin;
    FILE *f = open_text("/proc/meminfo");

    if (!f)
        return 0;
    while (fscanf(f, "%63s %" SCNu64 " kB", key, &value) == 2) {
        if (strcmp(key, "MemTotal:") == 0)
            total = value << 10;
        else if (strcmp(key, "MemAvailable:") == 0) {
            left = value << 10;
            break;
        }
    }
    fclose(f);
    limit_by_cgroups(&left);
    margin = total / MARGIN_SHARE > MARGIN_MIN ? total / MARGIN_SHARE : MARGIN_MIN;
    return left > margin ? left - margin : 0;
}

static uint64_t private_memory(const char *statm)
{
    unsigned long size, resident = 0, shared = 0;
    FILE *f = fopen(statm, "re");

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu %lu", &size, &resident, &shared) != 3)
        resident = shared = 0;
    fclose(f);
    return (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t libd_private_memory(void) { return private_memory("/proc/self/statm"); }

uint64_t libd_private_memory_of(int pid)
{
    char statm[32];

    snprintf(statm, sizeof statm, "/proc/%d/statm", pid);
    return private_memory(statm);
}
