/* SPDX-License-Identifier: MIT */
/* The clerk: output files appear when they are committed, and when this process dies before, they do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/output.h"
#include "runtime/clerk.h"
#include "runtime/vm.h"

#include <cmocka.h>

static char folder[] = "/tmp/test_clerk.XXXXXX";
static char stats[64], trace[64], gdb[64];

static unsigned files(void)
{
    unsigned count = 0;
    DIR *list = opendir(folder);
    assert_non_null(list);
    for (const struct dirent *entry; (entry = readdir(list));)
        count += entry->d_name[0] != '.' || strncmp(entry->d_name, ".patchvisor", 11) == 0;
    closedir(list);
    return count;
}

static void append(struct clerk *clerk, enum clerk_file file, const char *text)
{
    struct error err = {0};
    struct iovec piece = {(void *)(uintptr_t)text, strlen(text)};
    assert_int_equal(output_append(clerk->files[file], &piece, 1, &err), 0);
}

static void holds(const char *path, const char *text)
{
    char bytes[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t count = fread(bytes, 1, sizeof bytes - 1, file);
    fclose(file);
    assert_int_equal(count, strlen(text));
    assert_string_equal(bytes, text);
}

static void start(struct clerk *clerk, const struct vm_config *config)
{
    struct error err = {0};
    if (clerk_start(clerk, config, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_a_file_appears_whole_when_it_is_committed(void **state)
{
    (void)state;
    struct clerk clerk;
    struct error err = {0};
    const struct vm_config config = {.stats = stats, .trace = trace};
    start(&clerk, &config);
    append(&clerk, CLERK_STATS, "one ");
    append(&clerk, CLERK_TRACE, "line");
    assert_int_not_equal(access(stats, F_OK), 0);
    append(&clerk, CLERK_STATS, "two");
    assert_int_equal(clerk_commit(&clerk, CLERK_STATS, &err), 0);
    holds(stats, "one two");
    assert_int_not_equal(access(trace, F_OK), 0);
    clerk_end(&clerk); /* the trace was not committed */
    assert_int_equal(files(), 1);
    unlink(stats);
}

static void test_nothing_is_left_when_the_process_is_killed(void **state)
{
    (void)state;
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct clerk clerk;
        const struct vm_config config = {.stats = stats, .trace = trace};
        start(&clerk, &config);
        append(&clerk, CLERK_STATS, "text");
        if (write(ready[1], &clerk.process, sizeof clerk.process) < 0)
            _exit(1);
        pause();
    }
    pid_t clerk = 0;
    close(ready[1]);
    assert_int_equal(read(ready[0], &clerk, sizeof clerk), sizeof clerk);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(read(ready[0], &byte, 1), 0); /* the clerk has ended, too */
    close(ready[0]);
    assert_int_equal(files(), 0);
}

static void test_what_cannot_be_written_is_told_before_the_run(void **state)
{
    (void)state;
    struct clerk clerk;
    struct error err = {0};
    const struct vm_config config = {.trace = trace, .stats = "/nowhere/at/all"};
    assert_int_equal(clerk_start(&clerk, &config, &err), -1);
    assert_int_equal(err.code, HVRUN_HOST);
    assert_non_null(strstr(err.text, "/nowhere/at/all: cannot write it"));
    assert_int_equal(files(), 0);
}

static void test_a_commit_that_fails_is_told(void **state)
{
    (void)state;
    struct clerk clerk;
    struct error err = {0};
    const struct vm_config config = {.stats = stats};
    start(&clerk, &config);
    append(&clerk, CLERK_STATS, "text");
    assert_int_equal(mkdir(stats, 0700), 0); /* a folder has come there meanwhile */
    assert_int_equal(clerk_commit(&clerk, CLERK_STATS, &err), -1);
    assert_int_equal(err.code, HVRUN_HOST);
    assert_non_null(strstr(err.text, stats));
    clerk_end(&clerk);
    rmdir(stats);
    assert_int_equal(files(), 0);
}

static void test_a_clerk_that_died_is_told(void **state)
{
    (void)state;
    struct clerk clerk;
    struct error err = {0};
    const struct vm_config config = {.stats = stats};
    start(&clerk, &config);
    kill(clerk.process, SIGKILL);
    assert_int_equal(clerk_commit(&clerk, CLERK_STATS, &err), -1);
    assert_non_null(strstr(err.text, "has died"));
    clerk_end(&clerk);
}

static void test_the_socket_is_removed_and_nothing_else_under_its_name(void **state)
{
    (void)state;
    struct clerk clerk;
    char target[80];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(target, sizeof target, "unix:%s", gdb);
    const struct vm_config config = {.gdb = target};
    start(&clerk, &config);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, gdb);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    clerk_remove_socket(&clerk);
    assert_int_not_equal(access(gdb, F_OK), 0);
    fclose(fopen(gdb, "w"));
    clerk_remove_socket(&clerk);
    assert_int_equal(access(gdb, F_OK), 0);
    clerk_end(&clerk);
    close(fd);
    unlink(gdb);
}

static void test_nothing_to_do_is_no_process(void **state)
{
    (void)state;
    struct clerk clerk;
    const struct vm_config config = {.gdb = "1234"};
    start(&clerk, &config);
    assert_int_equal(clerk.channel, -1);
    clerk_remove_socket(&clerk);
    clerk_end(&clerk);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(stats, sizeof stats, "%s/stats", folder);
    snprintf(trace, sizeof trace, "%s/trace", folder);
    snprintf(gdb, sizeof gdb, "%s/gdb", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_appears_whole_when_it_is_committed),
        cmocka_unit_test(test_nothing_is_left_when_the_process_is_killed),
        cmocka_unit_test(test_what_cannot_be_written_is_told_before_the_run),
        cmocka_unit_test(test_a_commit_that_fails_is_told),
        cmocka_unit_test(test_a_clerk_that_died_is_told),
        cmocka_unit_test(test_the_socket_is_removed_and_nothing_else_under_its_name),
        cmocka_unit_test(test_nothing_to_do_is_no_process),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
