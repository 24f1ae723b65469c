/* The least that a program can do to ask a shim for a task's statistics: connect, send the two raw ttrpc
 * frames (State, Stats) one after the other, read both replies, exit. The baseline for `events --stats`.
 *
 * With the socket of a Kata guest's agent (hybrid vsock) it asks that as well: Check, StatsContainer, then Stats of the
 * shim.
 *
 * usage: raw_stats SOCKET SERVICE ID [AGENT]      (SERVICE: containerd.task.v2.Task or containerd.task.v3.Task)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static unsigned char reply[4 << 20];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static unsigned char *field(unsigned char *p, int number, const char *bytes, size_t length) {
    *p++ = (unsigned char)(number << 3 | 2);
    for (; length > 127; length >>= 7) *p++ = (unsigned char)(length | 128);
    *p++ = (unsigned char)length;
    memcpy(p, bytes, strlen(bytes) < length ? strlen(bytes) : length);
    return p + length;
}

static void read_all(int fd, unsigned char *to, size_t length) {
    while (length > 0) {
        ssize_t n = read(fd, to, length);
        if (n <= 0) die("read");
        to += n;
        length -= (size_t)n;
    }
}

/* Calls a method about a task, or about none. */
static void call(int fd, uint32_t stream, const char *service, const char *method, const char *id) {
    unsigned char frame[1024] = {0}, payload[128], *p = frame + 10;
    size_t payload_length = id ? (size_t)(field(payload, 1, id, strlen(id)) - payload) : 0;
    p = field(p, 1, service, strlen(service));
    p = field(p, 2, method, strlen(method));
    if (payload_length > 0) {
        *p++ = 3 << 3 | 2;
        *p++ = (unsigned char)payload_length; /* an id has 76 characters at most */
        memcpy(p, payload, payload_length);
        p += payload_length;
    }
    uint32_t length = (uint32_t)(p - frame - 10);
    for (int i = 0; i < 4; i++) {
        frame[i] = (unsigned char)(length >> (24 - 8 * i));
        frame[4 + i] = (unsigned char)(stream >> (24 - 8 * i));
    }
    frame[8] = 1; /* request */
    if (write(fd, frame, (size_t)(p - frame)) != p - frame) die("write");
    unsigned char header[10];
    read_all(fd, header, sizeof header);
    length = (uint32_t)header[0] << 24 | (uint32_t)header[1] << 16 | (uint32_t)header[2] << 8 | header[3];
    if (length > sizeof reply) die("length");
    read_all(fd, reply, length);
    /* A reply that begins with field 1 is an error's status. */
    if (length > 0 && reply[0] == (1 << 3 | 2) && reply[1] != 0) {
        fprintf(stderr, "%s: the answer is an error\n", method);
        exit(1);
    }
}

static int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) exit(2);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    return fd;
}

/* Asks the agent whether it lives, and about a container. */
static void ask_agent(const char *path, const char *id) {
    static const char hello[] = "CONNECT 1024\n";
    int fd = dial(path);
    if (write(fd, hello, sizeof hello - 1) != (ssize_t)(sizeof hello - 1)) die("write");
    for (char byte = 0; byte != '\n';) read_all(fd, (unsigned char *)&byte, 1);
    call(fd, 1, "grpc.Health", "Check", NULL);
    call(fd, 3, "grpc.AgentService", "StatsContainer", id);
}

int main(int argc, char **argv) {
    if ((argc != 4 && argc != 5) || strlen(argv[3]) > 76) return 2;
    if (argc == 5) ask_agent(argv[4], argv[3]);
    int fd = dial(argv[1]);
    if (argc == 4) call(fd, 1, argv[2], "State", argv[3]);
    call(fd, 3, argv[2], "Stats", argv[3]);
    return 0;
}
