/* The least that a program can do to read what names the tasks of a node: list each namespace's directory, read each
 * bundle's address file (the mark of a task that has been created: bootstrap.json, or else address), write the names,
 * exit. The baseline for `list -q`. With "look" the files are not opened: only whether they are there is looked at.
 *
 * usage: read_bundles read|look STATE-DIR
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_them;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static DIR *list(int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) die(name);
    return dir;
}

/* Whether the file is there. */
static int file(int parent, const char *bundle, const char *name) {
    char path[512], text[4096];
    snprintf(path, sizeof path, "%s/%s", bundle, name);
    if (!read_them) return faccessat(parent, path, F_OK, 0) == 0;
    int fd = openat(parent, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text) <= 0) die(path);
    close(fd);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    read_them = strcmp(argv[1], "read") == 0;
    int state = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *namespaces = list(state, "io.containerd.runtime.v2.task");
    for (struct dirent *namespace; (namespace = readdir(namespaces));) {
        if (namespace->d_name[0] == '.') continue;
        DIR *bundles = list(dirfd(namespaces), namespace->d_name);
        for (struct dirent *bundle; (bundle = readdir(bundles));) {
            if (bundle->d_name[0] == '.') continue;
            if (file(dirfd(bundles), bundle->d_name, "bootstrap.json") ||
                file(dirfd(bundles), bundle->d_name, "address"))
                puts(bundle->d_name);
        }
        closedir(bundles);
    }
    return 0;
}
