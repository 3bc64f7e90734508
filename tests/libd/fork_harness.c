/* verbs_lib.c on a kernel that a test makes up, with a library of which all is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const char *release;
static int fork_inits, answer;

static int fork_init(void)
{
    fork_inits++;
    return answer;
}

static void *stand_in(const char *name) { return strcmp(name, "ibv_fork_init") == 0 ? (void *)fork_init : (void *)&answer; }

static int made_up(struct utsname *out)
{
    snprintf(out->release, sizeof out->release, "%s", release);
    return 0;
}

#define uname made_up
#define dlopen(name, flags) ((void *)&release)
#define dlsym(handle, name) stand_in(name)
#define dlclose(handle) ((void)0)
#include "verbs_lib.c"

/* How often ibv_fork_init was called; -1: the library is not used. */
__attribute__((visibility("default"))) int f_load(const char *kernel_release, int outcome)
{
    release = kernel_release;
    answer = outcome;
    fork_inits = 0;
    loaded = false;
    load();
    return loaded ? fork_inits : -1;
}
