/* SPDX-License-Identifier: MIT */
/* Containment: code that has taken over the process tries to get out of it, on the thread that was contained and on a
 * thread that was there before. Each attempt is made by a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/clerk.h"
#include "runtime/contain.h"
#include "runtime/vm.h"

#include <cmocka.h>

/* ---- attempts: 0 = it worked ---- */
static int opens_a_file(void)
{
    return open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
}

static int makes_a_file(void)
{
    return open("/tmp", O_TMPFILE | O_WRONLY, 0600) < 0 ? errno : 0;
}

static int makes_a_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
}

static int makes_a_local_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? errno : 0;
}

static int runs_a_program(void)
{
    char *const arguments[] = {"true", NULL};
    execve("/bin/true", arguments, NULL);
    return errno;
}

static int forks(void)
{
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        _exit(0);
    return child < 0 ? errno : 0;
}

static int makes_code(void)
{
    void *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? errno : 0;
}

static int makes_its_memory_code(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0 ? errno : 0;
}

static int kills_its_parent(void)
{
    return kill(getppid(), 0) < 0 ? errno : 0;
}

static int signals_a_thread_of_another_process(void)
{
    long parent =
        syscall(SYS_getpid); /* the parent's number cannot be asked for: 1 exists anywhere */
    (void)parent;
    return syscall(SYS_tgkill, 1, 1, 0) < 0 ? errno : 0;
}

static int traces(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 ? errno : 0;
}

static int mounts(void)
{
    return mount("none", "/tmp", "tmpfs", 0, NULL) < 0 ? errno : 0;
}

static int removes(void)
{
    return unlink("/tmp/test_contain.none") < 0 && errno != ENOENT ? errno : 0;
}

static int renames(void)
{
    return rename("/tmp/test_contain.none", "/tmp/test_contain.other") < 0 && errno != ENOENT
               ? errno
               : 0;
}

static int looks_at_a_file(void)
{
    struct stat st;
    return stat("/etc/passwd", &st) < 0 ? errno : 0;
}

static int types_at_the_terminal(void)
{
    return ioctl(STDIN_FILENO, TIOCSTI, "x") < 0 && errno != ENOTTY && errno != EIO ? errno : 0;
}

static int separates(void)
{
    return unshare(CLONE_NEWUSER) < 0 ? errno : 0;
}

static int loads_another_filter(void)
{
    return prctl(PR_SET_SECCOMP, 2, NULL) < 0 && errno != EFAULT ? errno : 0;
}

/* What must go on working. */
static int writes(void)
{
    return write(STDERR_FILENO, "", 0) == 0 ? 0 : errno;
}

static void *add(void *context)
{
    ++*(int *)context;
    return NULL;
}

static int starts_a_thread(void)
{
    pthread_t thread;
    int count = 0, failed = pthread_create(&thread, NULL, add, &count);
    if (failed)
        return failed;
    pthread_join(thread, NULL);
    return count == 1 ? 0 : EINVAL;
}

static int allocates(void)
{
    char *bytes = malloc(1 << 24);
    if (!bytes)
        return ENOMEM;
    memset(bytes, 1, 1 << 24);
    free(bytes);
    return 0;
}

static int aborts_as_a_program_does(void)
{
    signal(SIGUSR1, SIG_IGN);
    return raise(SIGUSR1) ? errno : 0;
}

/* ---- making them ---- */
struct other_thread {
    int (*attempt)(void);
    int result;
    int pipe[2];
};

static void *wait_and_try(void *context)
{
    struct other_thread *other = context;
    char byte;
    if (read(other->pipe[0], &byte, 1) == 1)
        other->result = other->attempt();
    return NULL;
}

#define NOT_CONTAINED 250

/* What the attempt gives in a process that is contained: 0 or an errno. */
static int contained(int (*attempt)(void), bool on_other_thread, const struct vm_config *config)
{
    pid_t child = fork();
    if (child == 0) {
        struct error err = {0};
        struct other_thread other = {.attempt = attempt};
        pthread_t thread;
        if (on_other_thread &&
            (pipe(other.pipe) || pthread_create(&thread, NULL, wait_and_try, &other)))
            _exit(NOT_CONTAINED);
        if (contain(config, &err) < 0) {
            dprintf(2, "# %s\n", err.text);
            _exit(NOT_CONTAINED);
        }
        if (!on_other_thread)
            _exit(attempt());
        if (write(other.pipe[1], "", 1) != 1)
            _exit(NOT_CONTAINED);
        pthread_join(thread, NULL);
        _exit(other.result);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_not_equal(WEXITSTATUS(status), NOT_CONTAINED);
    return WEXITSTATUS(status);
}

static const struct vm_config plain = {.jail_user = "nobody"};

static const struct {
    const char *name;
    int (*attempt)(void);
} escapes[] = {
    {"open a file", opens_a_file},
    {"make a file", makes_a_file},
    {"make a socket", makes_a_socket},
    {"make a local socket", makes_a_local_socket},
    {"run a program", runs_a_program},
    {"fork", forks},
    {"make new memory executable", makes_code},
    {"make its memory executable", makes_its_memory_code},
    {"send its parent a signal", kills_its_parent},
    {"send another process's thread a signal", signals_a_thread_of_another_process},
    {"be traced", traces},
    {"mount", mounts},
    {"remove a file", removes},
    {"rename a file", renames},
    {"look at a file", looks_at_a_file},
    {"type at the terminal", types_at_the_terminal},
    {"make a user namespace", separates},
    {"replace the filter", loads_another_filter},
};

static void try_to_escape(bool on_other_thread)
{
    if (!contain_filters()) {
        print_message("# sanitizers need system calls that the filter forbids: not filtered\n");
        skip();
    }
    for (size_t n = 0; n < sizeof escapes / sizeof escapes[0]; n++) {
        int result = contained(escapes[n].attempt, on_other_thread, &plain);
        if (result != EPERM)
            fail_msg("%s: %s", escapes[n].name, result ? strerror(result) : "it worked");
    }
}

static void test_code_that_took_over_the_process_cannot_leave_it(void **state)
{
    (void)state;
    try_to_escape(false);
}

static void test_nor_can_a_thread_that_was_there_before(void **state)
{
    (void)state;
    try_to_escape(true);
}

static void test_what_a_run_needs_goes_on_working(void **state)
{
    (void)state;
    assert_int_equal(contained(writes, false, &plain), 0);
    assert_int_equal(contained(starts_a_thread, false, &plain), 0);
    assert_int_equal(contained(allocates, false, &plain), 0);
    assert_int_equal(contained(aborts_as_a_program_does, false, &plain), 0);
}

static void test_no_sandbox_filters_nothing(void **state)
{
    (void)state;
    const struct vm_config open_house = {.jail_user = "nobody", .no_sandbox = true};
    assert_int_equal(contained(opens_a_file, false, &open_house), 0);
}

/* ---- descriptors, privileges, jail ---- */
#define INHERITED 77

static int uses_what_was_inherited(void)
{
    return write(INHERITED, "", 0) < 0 ? errno : 0;
}

static void test_descriptors_that_were_inherited_are_closed(void **state)
{
    (void)state;
    const struct vm_config open_house = {.jail_user = "nobody", .no_sandbox = true};
    assert_int_equal(dup2(STDERR_FILENO, INHERITED), INHERITED);
    contain_note_inherited();
    assert_int_equal(uses_what_was_inherited(), 0);
    assert_int_equal(contained(uses_what_was_inherited, false, &open_house), EBADF);
    close(INHERITED);
}

static int may_gain_privileges(void)
{
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static void test_no_new_privileges(void **state)
{
    (void)state;
    const struct vm_config open_house = {.jail_user = "nobody", .no_sandbox = true};
    assert_int_equal(may_gain_privileges(), 0);
    assert_int_equal(contained(may_gain_privileges, false, &open_house), 1);
}

static int sees_files(void)
{
    return access("/etc/passwd", F_OK) == 0 ? 0 : errno;
}

static int is_root(void)
{
    return geteuid() == 0 ? 0 : EACCES;
}

static int reaches_the_network(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
}

/* Namespaces are not to be had everywhere: in some containers, for some users. */
static bool jails_here(const struct vm_config *config)
{
    pid_t child = fork();
    if (child == 0) {
        struct error err = {0};
        int result = contain(config, &err);
        if (result < 0)
            dprintf(2, "# %s\n", err.text);
        _exit(result < 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void test_the_jail_is_all_that_is_left_of_files_users_and_network(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_contain.XXXXXX";
    assert_non_null(mkdtemp(folder));
    chmod(folder, 0755);
    const struct vm_config jail = {.jail = folder, .jail_user = "nobody", .no_sandbox = true};
    bool works = jails_here(&jail);
    if (works) {
        assert_int_equal(contained(sees_files, false, &jail), ENOENT);
        assert_int_equal(contained(reaches_the_network, false, &jail), ENETUNREACH);
        assert_int_equal(contained(is_root, false, &jail), EACCES);
    }
    rmdir(folder);
    if (!works)
        skip();
}

static void refused(const struct vm_config *config, const char *text)
{
    struct error err = {0};
    assert_int_equal(contain(config, &err), -1);
    assert_non_null(strstr(err.text, text));
}

static void test_a_jail_that_is_not_there_is_told(void **state)
{
    (void)state;
    const struct vm_config nowhere = {.jail = "/nowhere/at/all", .jail_user = "nobody"};
    refused(&nowhere, "--jail /nowhere/at/all: cannot enter: No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_code_that_took_over_the_process_cannot_leave_it),
        cmocka_unit_test(test_nor_can_a_thread_that_was_there_before),
        cmocka_unit_test(test_what_a_run_needs_goes_on_working),
        cmocka_unit_test(test_no_sandbox_filters_nothing),
        cmocka_unit_test(test_descriptors_that_were_inherited_are_closed),
        cmocka_unit_test(test_no_new_privileges),
        cmocka_unit_test(test_the_jail_is_all_that_is_left_of_files_users_and_network),
        cmocka_unit_test(test_a_jail_that_is_not_there_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
