/* SPDX-License-Identifier: MIT */
/* image/output.c: files appear whole or not at all. */
#include "image/output.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

/* The test's own open, fsync and rename stand before the C library's: they fail when told to. */
static bool no_nameless_files, no_fsync, no_rename;

int open(const char *path, int flags, ...)
{
    if (no_nameless_files && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, unsigned);
    va_end(arguments);
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int fsync(int fd)
{
    if (no_fsync) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    if (no_rename) {
        errno = EROFS;
        return -1;
    }
    return syscall(SYS_rename, from, to);
}

static char folder[] = "/tmp/test_output.XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static unsigned next;
    char *at = path[next++ % 4];
    snprintf(at, sizeof path[0], "%s/%s", folder, name);
    return at;
}

/* Number of names in a folder, hidden ones included. */
static int names_in(const char *path)
{
    DIR *dir = opendir(path);
    int count = -2; /* . and .. */
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void holds(const char *path, const char *text)
{
    char buffer[64] = "";
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t got = read(fd, buffer, sizeof buffer - 1);
    close(fd);
    assert_int_equal(got, strlen(text));
    assert_string_equal(buffer, text);
}

static int put(const char *path, const char *text, mode_t mode, struct error *err)
{
    struct iovec piece = {(void *)(uintptr_t)text, strlen(text)};
    *err = (struct error){0};
    return output_write(path, &piece, 1, mode, err);
}

static void written(const char *path, const char *text)
{
    struct error err;
    if (put(path, text, 0644, &err))
        fail_msg("%s", err.text);
    holds(path, text);
}

static void not_written(const char *path, const char *what)
{
    struct error err;
    assert_int_equal(put(path, "some text", 0644, &err), -1);
    assert_int_equal(err.code, EXIT_IO);
    if (!strstr(err.text, what) || strncmp(err.text, path, strlen(path)))
        fail_msg("%s: does not say: %s", err.text, what);
}

static void test_pieces_are_written_in_order_with_the_mode(void **state)
{
    (void)state;
    struct error err = {0};
    struct iovec pieces[] = {{"", 0}, {"one ", 4}, {"", 0}, {"two ", 4}, {"three", 5}, {"", 0}};
    struct stat st;
    mode_t mask = umask(077); /* the mode is the caller's, whatever the umask */
    const char *path = in_folder("file");
    assert_int_equal(output_write(path, pieces, 6, 0751, &err), 0);
    umask(mask);
    holds(path, "one two three");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0751);
    assert_int_equal(names_in(folder), 1);
    written(path, "again"); /* an existing file is replaced */
    assert_int_equal(names_in(folder), 1);
    assert_int_equal(output_write(path, NULL, 0, 0600, &err), 0);
    holds(path, "");
    unlink(path);
}

static void test_many_pieces_are_written(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static uint32_t words[COUNT];
    static struct iovec pieces[COUNT];
    struct error err = {0};
    for (uint32_t i = 0; i < COUNT; i++) {
        words[i] = i;
        pieces[i] = (struct iovec){&words[i], i % 7 ? sizeof *words : 0};
    }
    const char *path = in_folder("many");
    assert_int_equal(output_write(path, pieces, COUNT, 0600, &err), 0);
    FILE *file = fopen(path, "rb");
    uint32_t word;
    for (uint32_t i = 0; i < COUNT; i++)
        if (i % 7) {
            assert_int_equal(fread(&word, sizeof word, 1, file), 1);
            assert_int_equal(word, i);
        }
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
    unlink(path);
}

static void test_full_disk_is_reported(void **state)
{
    (void)state;
    not_written("/dev/full", "No space left on device; free some space");
}

static void test_file_size_limit_leaves_nothing_behind(void **state)
{
    (void)state;
    struct rlimit old, limit;
    struct error err = {0};
    static uint8_t large[1 << 20];
    struct iovec pieces[] = {{large, 1000}, {large, sizeof large}};
    const char *path = in_folder("kept");
    written(path, "as it was");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = (struct rlimit){65536, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int result = output_write(path, pieces, 2, 0644, &err);
    int other = output_write(in_folder("new"), pieces, 2, 0644, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(result, -1);
    assert_int_equal(other, -1);
    assert_int_equal(err.code, EXIT_IO);
    assert_non_null(strstr(err.text, "File too large"));
    holds(path, "as it was");
    assert_int_equal(names_in(folder), 1);
    unlink(path);
}

static void test_file_system_without_nameless_files_is_written_to(void **state)
{
    (void)state;
    struct stat st;
    const char *path = in_folder("named");
    no_nameless_files = true;
    written(path, "one");
    written(path, "two");
    no_nameless_files = false;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(names_in(folder), 1);
    unlink(path);
}

static void test_disk_error_leaves_nothing_behind(void **state)
{
    (void)state;
    const char *path = in_folder("kept"), *fresh = in_folder("new");
    written(path, "as it was");
    for (int i = 0; i < 4; i++) {
        no_nameless_files = i & 1;
        no_fsync = i < 2;
        no_rename = !no_fsync;
        not_written(path, no_fsync ? "Input/output error" : "Read-only file system");
        not_written(fresh, "cannot write it");
        no_nameless_files = no_fsync = no_rename = false;
        holds(path, "as it was");
        assert_int_equal(names_in(folder), 1);
    }
    unlink(path);
}

static void test_missing_folder_is_reported(void **state)
{
    (void)state;
    not_written(in_folder("no/such/file"), "No such file or directory");
    not_written("", "No such file or directory");
    assert_int_equal(names_in(folder), 0);
}

static void test_folder_is_not_replaced(void **state)
{
    (void)state;
    const char *path = in_folder("sub");
    assert_int_equal(mkdir(path, 0700), 0);
    not_written(path, "this is a directory");
    assert_int_equal(names_in(path), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(names_in(folder), 0);
}

static void test_unwritable_folder_is_reported(void **state)
{
    (void)state;
    bool root = !geteuid();
    const char *path = in_folder("closed");
    assert_int_equal(mkdir(path, 0555), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    if (root && seteuid(65534))
        skip();
    not_written(in_folder("closed/file"), "Permission denied");
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(names_in(path), 0);
    rmdir(path);
}

static bool is_link(const char *path)
{
    struct stat st;
    return !lstat(path, &st) && S_ISLNK(st.st_mode);
}

static void test_symbolic_links_are_followed_and_stay(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("real"), 0700), 0);
    assert_int_equal(symlink("real/target", in_folder("first")), 0);
    assert_int_equal(symlink(in_folder("first"), in_folder("second")), 0);
    written(in_folder("second"), "through two"); /* dangling so far */
    holds(in_folder("real/target"), "through two");
    written(in_folder("first"), "through one");
    holds(in_folder("real/target"), "through one");
    assert_true(is_link(in_folder("first")));
    assert_true(is_link(in_folder("second")));
    assert_int_equal(names_in(in_folder("real")), 1);
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    not_written(in_folder("loop"), "Too many levels of symbolic links");
    unlink(in_folder("loop"));
    unlink(in_folder("first"));
    unlink(in_folder("second"));
    unlink(in_folder("real/target"));
    rmdir(in_folder("real"));
    assert_int_equal(names_in(folder), 0);
}

/* Reads slowly, so that writes are short and a timer interrupts them. */
static void *drain(void *argument)
{
    const char *path = argument;
    static char buffer[4096];
    uintptr_t total = 0;
    ssize_t got;
    int fd = open(path, O_RDONLY);
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        total += got;
        usleep(100);
    }
    close(fd);
    return (void *)total;
}

static void on_alarm(int number)
{
    (void)number;
}

static void test_fifo_gets_all_in_spite_of_short_writes_and_signals(void **state)
{
    (void)state;
    static uint8_t bytes[1000000];
    struct iovec pieces[] = {{bytes, 1}, {bytes, 300001}, {bytes, 500000}, {bytes, 199998}};
    struct error err = {0};
    const char *path = in_folder("fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    not_written(path, "No such device or address");          /* nobody reads: no waiting */
    struct sigaction action = {.sa_handler = on_alarm}, old; /* without SA_RESTART: EINTR */
    sigset_t alarm_only, before;
    pthread_t reader;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, &before);
    assert_int_equal(pthread_create(&reader, NULL, drain, (void *)(uintptr_t)path), 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGALRM, &action, &old);
    struct itimerval timer = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    int result = -1;
    for (int i = 0; i < 1000 && result; i++) { /* until the reader has opened it */
        err = (struct error){0};
        result = output_write(path, pieces, 4, 0600, &err);
        usleep(result ? 1000 : 0);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &old, NULL);
    if (result)
        fail_msg("%s", err.text);
    void *total;
    pthread_join(reader, &total);
    assert_int_equal((uintptr_t)total, 1000000);
    struct stat st;
    assert_true(!lstat(path, &st) && S_ISFIFO(st.st_mode)); /* not replaced */
    unlink(path);
}

static void test_device_is_written_to_and_not_replaced(void **state)
{
    (void)state;
    struct error err;
    struct stat st;
    assert_int_equal(put("/dev/null", "text", 0644, &err), 0);
    assert_true(!lstat("/dev/null", &st) && S_ISCHR(st.st_mode));
}

static void test_relative_name_is_written(void **state)
{
    (void)state;
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    written("here", "text");
    assert_int_equal(unlink("here"), 0);
    assert_int_equal(chdir(before), 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_written_in_order_with_the_mode),
        cmocka_unit_test(test_many_pieces_are_written),
        cmocka_unit_test(test_full_disk_is_reported),
        cmocka_unit_test(test_file_size_limit_leaves_nothing_behind),
        cmocka_unit_test(test_file_system_without_nameless_files_is_written_to),
        cmocka_unit_test(test_disk_error_leaves_nothing_behind),
        cmocka_unit_test(test_missing_folder_is_reported),
        cmocka_unit_test(test_folder_is_not_replaced),
        cmocka_unit_test(test_unwritable_folder_is_reported),
        cmocka_unit_test(test_symbolic_links_are_followed_and_stay),
        cmocka_unit_test(test_fifo_gets_all_in_spite_of_short_writes_and_signals),
        cmocka_unit_test(test_device_is_written_to_and_not_replaced),
        cmocka_unit_test(test_relative_name_is_written),
    };
    return cmocka_run_group_tests_name("output", tests, make_folder, remove_folder);
}
