/* floor: the least a WebSocket server can do, so that a real one has something to be measured against.
 *
 *   floor echo|fanout [PORT]
 *
 * echo returns each message to its sender, fanout sends it to every connection. One thread, one epoll loop, one
 * send(2) per message and receiver. It decodes nothing, remembers nothing and limits nothing; it checks only what
 * would make its figures a lie: a frame that arrives in pieces is put together, and a receiver that cannot take a
 * message at once ends the program, because skipping that receiver would be cheaper than serving it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* The sample key of RFC 6455 §1.3 and its answer. The load generator sends this key and no other,
 * which saves the floor a SHA-1 that has nothing to do with messages. */
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char switching[] =
    "HTTP/1.1 101 Switching Protocols\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

enum { EVENTS = 256, INPUT = 256 * 1024, MASK = 4, CLOSE = 8, MOST = 1 << 20 };

struct peer {
    int fd;
    int place;             /* among the members, −1 before the handshake */
    size_t kept;           /* bytes of an unfinished head or frame */
    unsigned char *bytes;  /* those bytes, NULL almost always */
};

static unsigned char input[INPUT];

/* Who has shaken hands, in no order. The sockets stand apart, so that a fan-out walks through one array of numbers. */
static int member_count, sockets[MOST];
static struct peer *members[MOST];

static bool echoing;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void hang_up(struct peer *p) {
    if (p->place >= 0) {
        struct peer *last = members[--member_count];
        last->place = p->place;
        members[last->place] = last;
        sockets[last->place] = last->fd;
    }
    close(p->fd);
    free(p->bytes);
    free(p);
}

static void send_whole(int fd, const unsigned char *bytes, size_t size) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent == (ssize_t)size || (sent < 0 && (errno == EPIPE || errno == ECONNRESET))) return;
    fputs("floor: a receiver is too slow, and the floor keeps nothing for later\n", stderr);
    exit(1);
}

/* Answers the handshake at the start of `b`. Returns its length, 0 if it is not whole yet, −1 to hang up. */
static ssize_t shake_hands(struct peer *p, const unsigned char *b, size_t size) {
    const unsigned char *end = memmem(b, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (!memmem(b, end - b, key, sizeof key - 1) || member_count == MOST) return -1;
    send_whole(p->fd, (const unsigned char *)switching, sizeof switching - 1);
    p->place = member_count++;
    members[p->place] = p;
    sockets[p->place] = p->fd;
    return end + 4 - b;
}

/* Serves the frame at the start of `b`. Returns its length, 0 if it is not whole yet, −1 to hang up. */
static ssize_t serve_frame(struct peer *p, unsigned char *b, size_t size) {
    if (size < 2) return 0;
    size_t length = b[1] & 127, head = length == 127 ? 10 : length == 126 ? 4 : 2;
    if (size < head) return 0;
    if (head > 2) {
        length = 0;
        for (size_t i = 2; i < head; i++) length = length << 8 | b[i];
    }
    if (length > INPUT / 2 || (b[0] & 15) == CLOSE) return -1;
    if (size < head + MASK + length) return 0;

    unsigned char *mask = b + head, *payload = mask + MASK;
    for (size_t i = 0; i < length; i++) payload[i] ^= mask[i & 3];
    /* A server's frame is the client's without the mask: slide the head up to the payload, nothing is copied. */
    unsigned char *frame = memmove(b + MASK, b, head);
    frame[1] &= 127;

    if (echoing) send_whole(p->fd, frame, head + length);
    else
        for (int i = 0; i < member_count; i++) send_whole(sockets[i], frame, head + length);
    return head + MASK + length;
}

static void receive(struct peer *p) {
    if (p->kept) memcpy(input, p->bytes, p->kept);
    ssize_t got = recv(p->fd, input + p->kept, sizeof input - p->kept, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        hang_up(p);
        return;
    }

    size_t size = p->kept + got, used = 0;
    ssize_t step;
    do {
        step = p->place < 0 ? shake_hands(p, input + used, size - used) : serve_frame(p, input + used, size - used);
        if (step < 0) {
            hang_up(p);
            return;
        }
        used += step;
    } while (step);

    p->kept = size - used;
    if (p->kept || p->bytes) {
        free(p->bytes);
        p->bytes = p->kept ? memcpy(malloc(p->kept), input + used, p->kept) : NULL;
    }
}

static void welcome(int listener, int epoll) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct peer *p = calloc(1, sizeof *p);
        *p = (struct peer){.fd = fd, .place = -1};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event readable = {.events = EPOLLIN, .data.ptr = p};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &readable)) fail("floor: epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) fail("floor: accept");
}

int main(int argc, char **argv) {
    if (argc < 2 || (strcmp(argv[1], "echo") && strcmp(argv[1], "fanout"))) {
        fputs("usage: floor echo|fanout [PORT]\n", stderr);
        return 2;
    }
    echoing = !strcmp(argv[1], "echo");

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (argc > 2) at.sin_port = htons(atoi(argv[2]));
    socklen_t at_size = sizeof at;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 4096) ||
        getsockname(listener, (void *)&at, &at_size))
        fail("floor: listen");

    int epoll = epoll_create1(0);
    struct epoll_event readable = {.events = EPOLLIN}, ready[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &readable);
    printf("floor is ready on http://127.0.0.1:%d\n", ntohs(at.sin_port));
    fflush(stdout);

    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr) receive(ready[i].data.ptr);
            else welcome(listener, epoll);
        }
    }
}
