/* SPDX-License-Identifier: MIT */
/* Finds instruction lists: the one that -l names, or the default, among the lists that are shipped
 * beside the tool's checkout or installed in the data folder. */
#include "patchc/options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_LIST "kvm.list"

/* Folders to look in, relative to that of the executable: a checkout's build/patchc, its
 * build/san/patchc, an installation under any prefix. */
static const char *const beside[] = {"../lists", "../../lists", "../share/patchvisor/lists"};

/* The folder of the running executable, without a slash at the end; "." if it cannot be told. */
static void own_folder(char folder[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    char *slash;

    if (length > 0) {
        folder[length] = '\0';
        slash = strrchr(folder, '/');
        if (slash && slash > folder) {
            *slash = '\0';
            return;
        }
    }
    snprintf(folder, PATH_MAX, ".");
}

static bool readable(const char *folder, const char *name, const char *ending, char **path)
{
    if (asprintf(path, "%s/%s%s", folder, name, ending) < 0) {
        *path = NULL;
        return false;
    }
    if (access(*path, R_OK) == 0)
        return true;
    free(*path);
    *path = NULL;
    return false;
}

static bool shipped(const char *folder, const char *name, char **path)
{
    return readable(folder, name, "", path) || readable(folder, name, ".list", path);
}

int find_list(const char *name, char **path, struct error *err)
{
    char own[PATH_MAX], folder[PATH_MAX + 40];

    if (name && (strchr(name, '/') || access(name, F_OK) == 0)) {
        *path = strdup(name);
        return *path ? 0 : fail(err, EXIT_IO, "out of memory");
    }
    own_folder(own);
    for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) {
        snprintf(folder, sizeof folder, "%s/%s", own, beside[i]);
        if (shipped(folder, name ? name : DEFAULT_LIST, path))
            return 0;
    }
    if (shipped(DATA_DIR "/lists", name ? name : DEFAULT_LIST, path))
        return 0;
    return fail(err, EXIT_IO,
                "%s: no such instruction list, neither here nor in %s/../lists nor in %s",
                name ? name : DEFAULT_LIST, own, DATA_DIR "/lists");
}
