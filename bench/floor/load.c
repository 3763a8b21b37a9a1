/* load: many WebSocket clients in one thread, which measure a server and check that it lost nothing.
 *
 *   load fanout|echo|idle|connect --port P --pid PID [options]
 *
 *   fanout    message i is sent by connection i mod N; everybody must get every message, once, in the same order
 *   echo      each connection keeps messages in flight, and each comes back to it alone
 *   idle      connect, hold, and look at the server's memory and CPU meanwhile
 *   connect   connect, and look at what a handshake costs
 *
 *   --port P            the server's port
 *   --pid PID           the server's process, whose CPU and memory are measured
 *   --path PATH         request target; %d becomes the connection's number                  [/]
 *   --connections N                                                                         [100]
 *   --messages M        messages to measure; for echo the sum over all connections          [1000]
 *   --warmup M          messages sent before those, not measured                            [0]
 *   --window W          messages in flight. fanout: no more than W × N deliveries are outstanding; echo: W per
 *                       connection                                                          [1]
 *   --rate R            fanout only: R messages a second by the clock, however many are in flight
 *   --text TEXT         what is sent; %d becomes the connection's number, %g that number / 10, and %m the mark by
 *                       which the message is known again wherever the server puts it        [%m]
 *   --greeting TEXT     sent once by each connection, which then waits for an answer
 *   --offer EXTENSION   fanout only: offered in the handshake, and the server must take it. Messages may then come
 *                       compressed: they are not read, but must be the same bytes for everybody
 *   --hold SECONDS      idle only                                                           [1]
 *
 * The result is one line of JSON on stdout. Anything missing, doubled, out of order, refused with an error or 10 s
 * late ends the program with status 1 and the reason on stderr. Loopback only; WebSocket pings are answered.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 128,          /* small, so that a paced send never waits behind a thousand reads */
    INPUT = 256 * 1024,    /* what one read can take, shared by all connections */
    LARGEST = 64 * 1024,   /* payload of a frame, either way */
    SHAKING = 64,          /* handshakes under way at a time: below any server's backlog */
    MARK = 10,             /* "~", eight digits, "~" */
    TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10,
};

static const int64_t second = 1000000000, patience = 10 * second;

/* The sample key of RFC 6455 §1.3 and its answer. */
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==", key_answer[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

typedef struct {
    int fd, number;
    bool open;            /* the server said 101 */
    long sent, got;       /* marked messages of this connection */
    long others;          /* frames without a mark: answers of other kinds */
    int64_t *asked;       /* echo: when each message in flight was sent, a ring of `window` */
    size_t kept;          /* bytes of an unfinished head or frame */
    unsigned char *bytes; /* those bytes, NULL almost always */
} connection;

/* What was asked for on the command line. */
static const char *mode, *path = "/", *text = "%m", *greeting, *offer;
static int port, pid, connection_count = 100;
static long messages = 1000, warmup, window = 1;
static double rate, hold = 1;

static connection *connections;
static int epoll, open_count;
static int answered_count;       /* connections that got a frame without a mark */
static int metronome;            /* a timerfd that ticks at `rate`; in the epoll set it has no connection */
static long deliveries;          /* marked messages that arrived, since the start */
static long bytes_came;          /* since the start */
static int64_t progress;         /* when something we wait for last happened */
static int64_t text_came;        /* when any text frame last came */
static unsigned char input[INPUT];
static FILE *result;             /* the line for stdout, held back until all is well */

static void give_up(const char *reason, ...) {
    va_list rest;
    va_start(rest, reason);
    fputs("load: ", stderr);
    vfprintf(stderr, reason, rest);
    fputc('\n', stderr);
    exit(1);
}

static void *zeroed(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) give_up("out of memory");
    return memory;
}

/* ---- the clock, and the server as /proc and its CPU clock show it ---- */

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t)) give_up("a clock went away: is the server still running?");
    return t.tv_sec * second + t.tv_nsec;
}

static int64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

/* CPU time of all threads of the server, past and present, user and system. In nanoseconds and exact to the call:
 * the utime and stime of /proc/PID/stat are the same sum in steps of 10 ms. */
static int64_t server_cpu(void) {
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock)) give_up("there is no process %d", pid);
    return read_clock(clock);
}

/* Resident memory of the server in KiB. smaps_rollup counts pages; VmRSS may be some hundred KiB off per CPU. */
static long server_rss(void) {
    char name[64], line[256];
    long kib = 0;
    snprintf(name, sizeof name, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(name, "r");
    if (!file) give_up("cannot read %s", name);
    while (fgets(line, sizeof line, file) && sscanf(line, "Rss: %ld", &kib) != 1) continue;
    fclose(file);
    return kib;
}

/* ---- latencies: 64 steps for each power of two, so that a figure is right to 1.6 % at any size ---- */

enum { STEPS = 64, SLOTS = STEPS * 58 };

typedef struct {
    long count[SLOTS], total;
    int64_t most;
} latencies;

static latencies each, last; /* every delivery; and, for fanout, the last delivery of every message */

static void note(latencies *l, int64_t ns) {
    if (ns < 0) ns = 0;
    int shift = ns < STEPS ? -1 : 63 - __builtin_clzll(ns) - 6;
    int slot = shift < 0 ? ns : (shift + 1) * STEPS + (ns >> shift) - STEPS;
    l->count[slot]++;
    l->total++;
    if (ns > l->most) l->most = ns;
}

static double milliseconds(const latencies *l, double share) {
    long before = 0, wanted = l->total * share;
    for (int slot = 0; slot < SLOTS; slot++) {
        before += l->count[slot];
        if (before <= wanted) continue;
        int64_t ns = slot < STEPS ? slot : (int64_t)(slot % STEPS + STEPS + 1) << (slot / STEPS - 1);
        return (ns < l->most ? ns : l->most) / 1e6;
    }
    return l->most / 1e6;
}

/* ---- frames out ---- */

static void write_whole(connection *c, const unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(c->fd, bytes, size, MSG_NOSIGNAL);
        if (sent >= 0) {
            bytes += sent;
            size -= sent;
            continue;
        }
        struct pollfd writable = {.fd = c->fd, .events = POLLOUT};
        if (errno != EAGAIN) give_up("connection %d broke while sending: %s", c->number, strerror(errno));
        if (poll(&writable, 1, patience / 1000000) == 0)
            give_up("the server reads nothing from connection %d", c->number);
    }
}

static void send_frame(connection *c, int opcode, const char *payload, size_t size) {
    static unsigned char frame[14 + LARGEST];
    static uint32_t random = 2463534242; /* xorshift32: a mask need not be a secret on loopback, only varied */
    size_t head = 2;
    frame[0] = 0x80 | opcode;
    if (size < 126) frame[1] = 0x80 | size;
    else {
        int width = size < 65536 ? 2 : 8;
        frame[1] = 0x80 | (width == 2 ? 126 : 127);
        for (int i = width; i--;) frame[head++] = (uint64_t)size >> 8 * i;
    }
    random ^= random << 13, random ^= random >> 17, random ^= random << 5;
    unsigned char *mask = memcpy(frame + head, &random, sizeof random);
    head += sizeof random;
    for (size_t i = 0; i < size; i++) frame[head + i] = payload[i] ^ mask[i & 3];
    write_whole(c, frame, head + size);
}

/* Fills in the template of a path or a text. Returns its length. */
static size_t fill_in(char *out, size_t room, const char *template, const connection *c, long message) {
    size_t size = 0;
    for (const char *t = template; *t; t++) {
        if (size + 24 > room) give_up("a text is longer than %zu bytes", room);
        if (*t != '%' || !t[1] || !strchr("dgm", t[1])) out[size++] = *t;
        else if (*++t == 'm') size += sprintf(out + size, "~%08ld~", message);
        else size += sprintf(out + size, "%d", *t == 'd' ? c->number : c->number / 10);
    }
    out[size] = 0;
    return size;
}

static void send_text(connection *c, const char *template, long message) {
    static char filled[LARGEST];
    send_frame(c, TEXT, filled, fill_in(filled, sizeof filled, template, c, message));
}

/* ---- frames in ---- */

/* The number in a message's mark, or −1. Only the first "~" is hot: it is memchr that scans. */
static long marked(const unsigned char *b, size_t size) {
    const unsigned char *end = b + size;
    while ((b = memchr(b, '~', end - b)) && end - b >= MARK) {
        long number = 0;
        int digits = 0;
        for (; digits < MARK - 2 && b[1 + digits] >= '0' && b[1 + digits] <= '9'; digits++)
            number = number * 10 + b[1 + digits] - '0';
        if (digits == MARK - 2 && b[MARK - 1] == '~') return number;
        b++;
    }
    return -1;
}

/* fanout: the first connection to reach a place in the order of messages decides which message has that place, all
 * others must agree. So one comparison per delivery finds what is missing, doubled or out of order. */
static long *order;        /* the message at each place, −1 when nobody has got so far */
static int *arrivals;      /* by place: how many connections have got so far */
static bool *placed;       /* by message */
static int64_t *sent_at;   /* by message */
static long complete;      /* places that all connections have reached */

static void take_broadcast(connection *c, long message, int64_t at) {
    long place = c->got++;
    if (place >= warmup + messages) give_up("connection %d got more messages than were sent", c->number);
    if (order[place] < 0) {
        if (message >= warmup + messages || !sent_at[message]) give_up("message %ld came, and nobody sent it", message);
        if (placed[message]) give_up("connection %d got message %ld twice", c->number, message);
        order[place] = message;
        placed[message] = true;
    }
    if (order[place] != message)
        give_up("connection %d got message %ld where others got %ld: lost, doubled or out of order",
                c->number, message, order[place]);
    note(&each, at - sent_at[message]);
    if (++arrivals[place] < connection_count) return;
    complete++;
    note(&last, at - sent_at[message]);
}

/* What is compressed has no mark to be seen. So it counts as the next message in order, and what must agree is the
 * bytes: everybody's at one place, and nobody's at two. */
static uint64_t *contents; /* by place: a hash of the bytes that came, 0 when nobody has got so far */

static void take_unread(connection *c, const unsigned char *b, size_t size, int64_t at) {
    long place = c->got;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) hash = (hash ^ b[i]) * 1099511628211u;
    take_broadcast(c, place, at);
    if (place && contents[place - 1] == hash) give_up("connection %d got a message twice", c->number);
    if (!contents[place]) contents[place] = hash;
    if (contents[place] != hash) give_up("connection %d got other bytes than others", c->number);
}

static void take_answer(connection *c, long message, int64_t at) {
    if (message != c->got || c->got == c->sent)
        give_up("connection %d got message %ld, its next was %ld of %ld: lost, doubled or out of order",
                c->number, message, c->got, c->sent);
    note(&each, at - c->asked[c->got++ % window]);
}

static void (*take)(connection *, long message, int64_t at);

static void take_frame(connection *c, int opcode, bool compressed, const unsigned char *payload, size_t size,
                       int64_t at) {
    if (opcode == PING) send_frame(c, PONG, (const char *)payload, size);
    if (opcode == CLOSE)
        give_up("the server closed connection %d with %d %.*s", c->number,
                size < 2 ? 1005 : payload[0] << 8 | payload[1], size < 2 ? 0 : (int)size - 2, payload + 2);
    if (opcode != TEXT && opcode != BINARY) return;

    text_came = at;
    if (compressed && take) {
        deliveries++;
        progress = at;
        take_unread(c, payload, size, at);
        return;
    }
    long message = take ? marked(payload, size) : -1;
    if (message >= 0) {
        deliveries++;
        progress = at;
        take(c, message, at);
        return;
    }
    if (memmem(payload, size, "\"type\":\"error\"", 14)) give_up("the server says: %.*s", (int)size, payload);
    if (c->others++ == 0) {
        answered_count++;
        progress = at;
    }
}

/* Takes one frame off the start of `b`. Returns its length, 0 if it is not whole yet. */
static size_t unwrap(connection *c, const unsigned char *b, size_t size, int64_t at) {
    if (size < 2) return 0;
    size_t length = b[1], head = length == 127 ? 10 : length == 126 ? 4 : 2;
    if (size < head) return 0;
    if (head > 2) {
        length = 0;
        for (size_t i = 2; i < head; i++) length = length << 8 | b[i];
    }
    bool compressed = offer && b[0] & 0x40;
    if (!(b[0] & 0x80) || b[0] & (compressed ? 0x30 : 0x70) || b[1] & 0x80)
        give_up("a frame begins %02x %02x: in fragments, compressed or masked", b[0], b[1]);
    if (length > LARGEST) give_up("a frame of %zu bytes came, the most is %d", length, LARGEST);
    if (size < head + length) return 0;
    take_frame(c, b[0] & 15, compressed, b + head, length, at);
    return head + length;
}

/* Takes the answer to the handshake off the start of `b`. Returns its length, 0 if it is not whole yet. */
static size_t finish_handshake(connection *c, const unsigned char *b, size_t size, int64_t at) {
    const unsigned char *end = memmem(b, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(b, "HTTP/1.1 101", 12) || !memmem(b, end - b, key_answer, sizeof key_answer - 1))
        give_up("connection %d was not upgraded:\n%.*s", c->number, (int)size, b);
    if (offer && !memmem(b, end - b, "Sec-WebSocket-Extensions: ", 26))
        give_up("connection %d was not given %s:\n%.*s", c->number, offer, (int)size, b);
    c->open = true;
    open_count++;
    progress = at;
    return end + 4 - b;
}

static void receive(connection *c) {
    if (c->kept) memcpy(input, c->bytes, c->kept);
    ssize_t got = recv(c->fd, input + c->kept, sizeof input - c->kept, 0);
    int64_t at = now();
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) give_up("the server cut connection %d: %s", c->number, got ? strerror(errno) : "end of stream");

    bytes_came += got;
    size_t size = c->kept + got, used = 0, step;
    do {
        step = c->open ? unwrap(c, input + used, size - used, at) : finish_handshake(c, input + used, size - used, at);
        used += step;
    } while (step && used < size);

    c->kept = size - used;
    if (c->kept || c->bytes) {
        free(c->bytes);
        c->bytes = c->kept ? memcpy(zeroed(c->kept, 1), input + used, c->kept) : NULL;
    }
}

/* Reads what has come, waiting up to `timeout` ms for something. Gives up when nothing wanted came for 10 s. */
static void serve(int timeout, const char *wanted) {
    struct epoll_event ready[EVENTS];
    uint64_t ticks;
    int count = epoll_wait(epoll, ready, EVENTS, timeout);
    for (int i = 0; i < count; i++) {
        if (ready[i].data.ptr) receive(ready[i].data.ptr);
        else if (read(metronome, &ticks, sizeof ticks) < 0 && errno != EAGAIN) give_up("the timer broke");
    }
    if (wanted && now() - progress > patience)
        give_up("no %s for 10 s; %d of %d connections open, %ld messages delivered",
                wanted, open_count, connection_count, deliveries);
}

static void serve_for(int64_t ns) {
    for (int64_t end = now() + ns, left; (left = end - now()) > 0;) serve(left / 1000000 + 1, NULL);
}

/* ---- connecting ---- */

static void watch(int fd, connection *c) {
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &readable)) give_up("epoll_ctl: %s", strerror(errno));
}

static void dial(connection *c) {
    char target[2048], request[4096];
    int on = 1;
    struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (void *)&server, sizeof server))
        give_up("connection %d: %s", c->number, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c->fd, c);
    fill_in(target, sizeof target, path, c, 0);
    int size = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n", target, port, key,
        offer ? "Sec-WebSocket-Extensions: " : "", offer ? offer : "", offer ? "\r\n" : "");
    write_whole(c, (unsigned char *)request, size);
}

static void connect_all(void) {
    progress = now();
    for (int i = 0; i < connection_count; i++) {
        while (i - open_count >= SHAKING) serve(1000, "handshake");
        connections[i].number = i;
        dial(&connections[i]);
    }
    while (open_count < connection_count) serve(1000, "handshake");
}

/* Sends the greetings, waits for an answer to each, and until no text has come for half a second. */
static void settle(void) {
    if (greeting) {
        for (int i = 0; i < connection_count; i++) {
            send_text(&connections[i], greeting, 0);
            serve(0, "answer to the greeting");
        }
        while (answered_count < connection_count) serve(1000, "answer to the greeting");
    }
    text_came = now();
    while (now() - text_came < second / 2) serve(100, NULL);
}

/* ---- the questions ---- */

static long broadcasts; /* sent so far */

static void fan_out(long count, double pace) {
    long first = broadcasts, until = broadcasts + count;
    if (pace) {
        int64_t interval = second / pace;
        struct timespec tick = {interval / second, interval % second};
        timerfd_settime(metronome, 0, &(struct itimerspec){tick, tick}, NULL);
    }
    int64_t start = progress = now();
    while (complete < until) {
        for (; broadcasts < until; broadcasts++) {
            /* By the clock, a message counts from when it was due: a server that holds up the next one pays for it. */
            int64_t at = pace ? start + (int64_t)((broadcasts - first) / pace * second) : now();
            /* Otherwise by deliveries and not by messages that are complete: a server that answers many messages with
             * one write would complete them all at one instant, and be asked in bursts that no real senders make. */
            if (pace ? at > now() : broadcasts - deliveries / connection_count >= window) break;
            sent_at[broadcasts] = at;
            send_text(&connections[broadcasts % connection_count], text, broadcasts);
        }
        serve(1000, "message");
    }
}

static long quota; /* echo: what each connection may have sent by now */

static void top_up(connection *c) {
    for (; c->sent < quota && c->sent - c->got < window; c->sent++) {
        c->asked[c->sent % window] = now();
        send_text(c, text, c->sent);
    }
}

static void take_answer_and_ask(connection *c, long message, int64_t at) {
    take_answer(c, message, at);
    top_up(c);
}

static void ask_and_answer(long count) {
    quota += (count + connection_count - 1) / connection_count;
    progress = now();
    for (int i = 0; i < connection_count; i++) top_up(&connections[i]);
    while (deliveries < quota * connection_count) serve(1000, "answer");
}

static void prepare(void) {
    long all = warmup + messages;
    if (!strcmp(mode, "fanout")) {
        take = take_broadcast;
        order = zeroed(all, sizeof *order);
        arrivals = zeroed(all, sizeof *arrivals);
        placed = zeroed(all, sizeof *placed);
        sent_at = zeroed(all, sizeof *sent_at);
        contents = zeroed(all, sizeof *contents);
        for (long i = 0; i < all; i++) order[i] = -1;
    } else {
        take = take_answer_and_ask;
        for (int i = 0; i < connection_count; i++) connections[i].asked = zeroed(window, sizeof(int64_t));
    }
}

static void run(long count, double pace) {
    if (!count) return;
    if (take == take_broadcast) fan_out(count, pace);
    else ask_and_answer(count);
}

static void print_latencies(const char *name, const latencies *l) {
    fprintf(result, ", \"%s\": {\"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f}",
           name, milliseconds(l, 0.5), milliseconds(l, 0.99), l->most / 1e6);
}

static void measure_messages(void) {
    prepare();
    run(warmup, 0);
    memset(&each, 0, sizeof each);
    memset(&last, 0, sizeof last);
    long before = deliveries, bytes = bytes_came;
    int64_t start = now(), cpu = server_cpu(), own = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    run(messages, rate);
    double wall = now() - start;
    own = read_clock(CLOCK_PROCESS_CPUTIME_ID) - own;
    cpu = server_cpu() - cpu;
    long count = deliveries - before;
    bytes = bytes_came - bytes;
    serve_for(second / 10); /* what is doubled comes late */

    fprintf(result, ", \"messages\": %ld, \"window\": %ld, \"rate\": %g, \"deliveries\": %ld, "
           "\"wall_s\": %.6f, \"per_s\": %.0f, \"server_cpu_s\": %.6f, \"client_cpu_s\": %.6f, \"cpu_us\": %.4f, "
           "\"bytes\": %.1f",
           messages, window, rate, count, wall / second, count / wall * second,
           (double)cpu / second, (double)own / second, cpu / 1e3 / count, (double)bytes / count);
    print_latencies("latency_ms", &each);
    if (last.total) print_latencies("last_ms", &last);
}

static void measure_idleness(long rss_before) {
    int64_t cpu = server_cpu(), start = now();
    serve_for(hold * second);
    double held = now() - start;
    cpu = server_cpu() - cpu;
    long rss = server_rss() - rss_before; /* after the hold: what heartbeats allocate counts too */
    fprintf(result, ", \"hold_s\": %.3f, \"rss_kib\": %.3f, \"cpu_us_per_s\": %.3f",
           held / second, (double)rss / connection_count, cpu / 1e3 / (held / second) / connection_count);
}

static const struct option options[] = {
    {"port", 1, NULL, 'p'}, {"pid", 1, NULL, 'i'}, {"path", 1, NULL, 'a'}, {"connections", 1, NULL, 'c'},
    {"messages", 1, NULL, 'm'}, {"warmup", 1, NULL, 'u'}, {"window", 1, NULL, 'w'}, {"rate", 1, NULL, 'r'},
    {"text", 1, NULL, 't'}, {"greeting", 1, NULL, 'g'}, {"hold", 1, NULL, 'h'}, {"offer", 1, NULL, 'o'}, {0},
};

static void read_options(int argc, char **argv) {
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'i': pid = atoi(optarg); break;
        case 'a': path = optarg; break;
        case 'c': connection_count = atoi(optarg); break;
        case 'm': messages = atol(optarg); break;
        case 'u': warmup = atol(optarg); break;
        case 'w': window = atol(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 't': text = optarg; break;
        case 'g': greeting = optarg; break;
        case 'h': hold = atof(optarg); break;
        case 'o': offer = optarg; break;
        default: exit(2);
        }
    }
    mode = optind == argc - 1 ? argv[optind] : "";
    bool messaging = !strcmp(mode, "fanout") || !strcmp(mode, "echo");
    if (!messaging && strcmp(mode, "idle") && strcmp(mode, "connect"))
        give_up("the mode is fanout, echo, idle or connect");
    if (port <= 0 || pid <= 0) give_up("--port and --pid must be given");
    if (connection_count < 1 || messages < 1 || warmup < 0 || window < 1 || rate < 0 || hold < 0)
        give_up("a number is too small");
    if (offer && strcmp(mode, "fanout")) give_up("only fanout can do without reading what comes");
    if (messaging && !strstr(text, "%m")) give_up("without a %%m in the text its messages cannot be told apart");
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    char *line;
    size_t line_size;
    result = open_memstream(&line, &line_size);
    connections = zeroed(connection_count, sizeof *connections);
    epoll = epoll_create1(0);
    metronome = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(metronome, NULL);

    long rss = server_rss();
    int64_t start = now(), cpu = server_cpu();
    connect_all();
    double wall = now() - start;
    cpu = server_cpu() - cpu;
    fprintf(result, "{\"mode\": \"%s\", \"connections\": %d, \"connects_per_s\": %.0f, \"connect_cpu_us\": %.3f",
           mode, connection_count, connection_count / wall * second, cpu / 1e3 / connection_count);

    if (strcmp(mode, "connect")) {
        settle();
        if (!strcmp(mode, "idle")) measure_idleness(rss);
        else measure_messages();
    }

    long others = 0;
    for (int i = 0; i < connection_count; i++) others += connections[i].others;
    fprintf(result, ", \"others\": %ld}\n", others);
    fclose(result);
    fputs(line, stdout);
    return 0;
}
