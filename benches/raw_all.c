/* The least that a program can do to ask many shims at once: connect to all, send the raw ttrpc frame of State on
 * each, and with "stats" that of Stats after its answer, read all replies, exit. The baseline for `list` and
 * `events --all --stats`.
 *
 * usage: raw_all state|stats FILE      (FILE: lines of SOCKET SERVICE ID, as for raw_stats)
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST = 10000, REPLY = 64 << 10 };

struct task {
    int fd, calls;
    size_t have, want;
    char service[64], id[80];
    unsigned char *reply;
};

static struct task tasks[MOST];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static unsigned char *field(unsigned char *p, int number, const void *bytes, size_t length) {
    *p++ = (unsigned char)(number << 3 | 2);
    *p++ = (unsigned char)length; /* nothing here has more than 127 bytes */
    memcpy(p, bytes, length);
    return p + length;
}

static void call(struct task *task, const char *method) {
    unsigned char frame[512] = {0}, payload[128], *p = frame + 10;
    size_t payload_length = (size_t)(field(payload, 1, task->id, strlen(task->id)) - payload);
    p = field(p, 1, task->service, strlen(task->service));
    p = field(p, 2, method, strlen(method));
    p = field(p, 3, payload, payload_length);
    uint32_t length = (uint32_t)(p - frame - 10), stream = (uint32_t)(2 * task->calls++ + 1);
    for (int i = 0; i < 4; i++) {
        frame[i] = (unsigned char)(length >> (24 - 8 * i));
        frame[4 + i] = (unsigned char)(stream >> (24 - 8 * i));
    }
    frame[8] = 1; /* request */
    task->have = 0;
    task->want = 10;
    if (write(task->fd, frame, (size_t)(p - frame)) != p - frame) die("write");
}

/* Whether the whole reply is there. */
static int reply(struct task *task) {
    for (;;) {
        ssize_t n = read(task->fd, task->reply + task->have, REPLY - task->have);
        if (n <= 0) die("read");
        task->have += (size_t)n;
        if (task->have < 10) return 0;
        const unsigned char *h = task->reply;
        task->want = 10 + ((size_t)h[0] << 24 | (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3]);
        if (task->want > REPLY) die("length");
        if (task->have < task->want) return 0;
        /* A reply that begins with field 1 is an error's status. */
        if (task->want > 11 && h[10] == (1 << 3 | 2) && h[11] != 0) {
            fprintf(stderr, "a shim answered with an error\n");
            exit(1);
        }
        return 1;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int calls = strcmp(argv[1], "stats") == 0 ? 2 : 1, count = 0;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    FILE *file = fopen(argv[2], "r");
    int poll = epoll_create1(0);
    if (!file || poll < 0) die(argv[2]);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    while (count < MOST &&
           fscanf(file, "%107s %63s %79s", address.sun_path, tasks[count].service, tasks[count].id) == 3) {
        struct task *task = &tasks[count++];
        task->fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (task->fd < 0 || connect(task->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
        task->reply = malloc(REPLY);
        call(task, "State");
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = task};
        epoll_ctl(poll, EPOLL_CTL_ADD, task->fd, &event);
    }
    for (int left = count; left > 0;) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            struct task *task = events[i].data.ptr;
            if (!reply(task)) continue;
            if (task->calls < calls) {
                call(task, "Stats");
            } else {
                close(task->fd);
                left--;
            }
        }
    }
    return 0;
}
