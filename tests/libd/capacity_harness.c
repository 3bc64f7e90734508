/* capacity.c on a machine that a test makes up. */
static char root[1024];

#define CAPACITY_ROOT root
#include "capacity.c"

__attribute__((visibility("default"))) uint64_t c_available(const char *where)
{
    snprintf(root, sizeof root, "%s", where);
    return libd_available();
}
