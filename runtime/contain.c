/* SPDX-License-Identifier: MIT */
/* Containment, in the order in which it is possible: descriptors, jail, privileges, system calls. */
#include "runtime/contain.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "runtime/syscall_filter.h"
#include "runtime/vm.h"

/* ---- descriptors ---- */
#define DESCRIPTORS 1024u /* the usual limit; what lies beyond stays open */
static bool inherited[DESCRIPTORS];

void contain_note_inherited(void)
{
    DIR *list = opendir("/proc/self/fd");
    if (!list)
        return;
    for (const struct dirent *entry; (entry = readdir(list));) {
        unsigned long fd = strtoul(entry->d_name, NULL, 10);
        if (fd > STDERR_FILENO && fd < DESCRIPTORS && fd != (unsigned long)dirfd(list))
            inherited[fd] = true;
    }
    closedir(list);
}

static void close_inherited(void)
{
    for (unsigned fd = 0; fd < DESCRIPTORS; fd++)
        if (inherited[fd])
            close((int)fd);
}

/* ---- the jail ---- */
#define SEPARATE (CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static int jail_failed(const struct vm_config *config, const char *what, struct error *err)
{
    return fail(err, HVRUN_HOST, "--jail %s: %s: %s", config->jail, what, strerror(errno));
}

/* Root becomes the user that was asked for. Anybody else stays who they are, in a user namespace that owns the rest. */
static int change_user(const struct vm_config *config, struct error *err)
{
    const struct passwd *user = getpwnam(config->jail_user);
    if (!user || !user->pw_uid)
        return fail(err, HVRUN_USAGE, "--jail-user %s: %s", config->jail_user,
                    user ? "is root; name another user" : "there is no such user");
    uid_t uid = user->pw_uid;
    gid_t gid = user->pw_gid;
    if (chroot(config->jail) < 0 || chdir("/") < 0)
        return jail_failed(config, "cannot enter", err);
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return jail_failed(config, "cannot change user", err);
    return 0;
}

static int enter_jail(const struct vm_config *config, struct error *err)
{
    bool root = geteuid() == 0;
    if (access(config->jail, X_OK) < 0)
        return jail_failed(config, "cannot enter", err);
    if (unshare(root ? SEPARATE : SEPARATE | CLONE_NEWUSER) < 0)
        return jail_failed(config, "no namespaces of its own", err);
    if (root)
        return change_user(config, err);
    if (chroot(config->jail) < 0 || chdir("/") < 0)
        return jail_failed(config, "cannot enter", err);
    return 0;
}

/* ---- all of it ---- */
bool contain_filters(void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    return false;
#else
    return true;
#endif
}

int contain(const struct vm_config *config, struct error *err)
{
    close_inherited();
    if (config->jail && enter_jail(config, err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(err, HVRUN_HOST, "no new privileges: %s", strerror(errno));
    if (config->no_sandbox || !contain_filters())
        return 0;
    return syscall_filter_load(err);
}
