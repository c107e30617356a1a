/* The least that a server can do for `legato bench`: what the kernel charges, and next to nothing above it.
 *
 * One thread, epoll, one `send` for each delivery. It accepts, answers each upgrade with 101 and a greeting,
 * each subscription with one frame, each POST with 200, and sends the body of a POST to all who have
 * subscribed to its channel. It checks nothing: no signature, no header, no JSON. It is a measure for servers
 * that do, and no server.
 *
 * Usage: server PORT (0: any free one). Listens on 127.0.0.1 and writes the port to standard output.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 512
#define INPUT 262144 /* of all connections in turn; what is not whole is kept */
#define BUCKETS 65536

struct channel {
    struct channel *next;
    struct connection **subscribers;
    size_t count, room;
    size_t length;
    char name[];
};

struct connection {
    struct channel *channel;
    char *in, *out; /* what has come and is not whole; what the socket does not take */
    size_t in_length, out_length;
    size_t place; /* among the subscribers of the channel */
    int socket;
    int upgraded;
};

static struct channel *channels[BUCKETS];
static int poller;
static char input[INPUT], output[INPUT];

static const char GREETING[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" /* of the key that the generator sends */
    "\x81\x74{\"event\":\"pusher:connection_established\",\"data\":\"{\\\"socket_id\\\":\\\"1234567890."
    "1234567890\\\",\\\"activity_timeout\\\":30}\"}";
static const char OK[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *sure(void *memory) {
    if (!memory) die("memory");
    return memory;
}

static void watch(struct connection *one, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = one};
    if (epoll_ctl(poller, operation, one->socket, &event)) die("epoll_ctl");
}

/* One system call, unless the socket is full: then the rest waits until it is not. */
static void deliver(struct connection *one, const char *data, size_t length) {
    ssize_t sent = 0;
    if (!one->out_length) {
        sent = send(one->socket, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)length) return;
        if (sent < 0) sent = 0; /* gone, or full: reading or writing will tell which */
        watch(one, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    one->out = sure(realloc(one->out, one->out_length + length - sent));
    memcpy(one->out + one->out_length, data + sent, length - sent);
    one->out_length += length - sent;
}

static void drain(struct connection *one) {
    ssize_t sent = send(one->socket, one->out, one->out_length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return;
    one->out_length -= sent;
    memmove(one->out, one->out + sent, one->out_length);
    if (!one->out_length) watch(one, EPOLL_CTL_MOD, EPOLLIN);
}

static struct channel *channel(const char *name, size_t length) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    struct channel **place = &channels[hash % BUCKETS];
    for (; *place; place = &(*place)->next)
        if ((*place)->length == length && !memcmp((*place)->name, name, length)) return *place;
    *place = sure(calloc(1, sizeof **place + length));
    (*place)->length = length;
    memcpy((*place)->name, name, length);
    return *place;
}

/* The channel that a message names, by its first "channel":"…". */
static struct channel *named(const char *text, size_t length) {
    static const char KEY[] = "\"channel\":\"";
    const char *name = memmem(text, length, KEY, sizeof KEY - 1);
    if (!name) return NULL;
    name += sizeof KEY - 1;
    const char *end = memchr(name, '"', text + length - name);
    return end ? channel(name, end - name) : NULL;
}

static size_t frame(char *out, const char *text, size_t length) {
    size_t head = length < 126 ? 2 : length < 65536 ? 4 : 10;
    out[0] = (char)0x81;
    out[1] = (char)(length < 126 ? length : length < 65536 ? 126 : 127);
    for (size_t i = 2; i < head; i++) out[i] = (char)(length >> 8 * (head - 1 - i));
    memcpy(out + head, text, length);
    return head + length;
}

static void leave(struct connection *one) {
    struct channel *from = one->channel;
    if (!from) return;
    from->subscribers[one->place] = from->subscribers[--from->count];
    from->subscribers[one->place]->place = one->place;
    one->channel = NULL;
}

static void join(struct connection *one, struct channel *to) {
    char text[512];
    if (!to || one->channel) return;
    if (to->count == to->room) {
        to->room = to->room ? 2 * to->room : 4;
        to->subscribers = sure(realloc(to->subscribers, to->room * sizeof *to->subscribers));
    }
    one->channel = to;
    one->place = to->count;
    to->subscribers[to->count++] = one;
    int length = snprintf(text, sizeof text,
                          "{\"event\":\"pusher_internal:subscription_succeeded\",\"channel\":\"%.*s\",\"data\":\"{}\"}",
                          (int)to->length, to->name);
    deliver(one, output, frame(output, text, length < (int)sizeof text ? length : 0));
}

/* Whole frames of a client, masked, below 64 KiB. How much of the input they take. */
static ssize_t frames(struct connection *one, char *data, size_t length) {
    size_t at = 0;
    while (length - at >= 6) {
        unsigned char *head = (unsigned char *)data + at;
        size_t size = head[1] & 127, begin = 6;
        if (size == 127) return -1;
        if (size == 126) size = head[2] << 8 | head[3], begin = 8;
        if (length - at < begin + size) break;
        if ((head[0] & 15) == 8) return -1;
        char *text = data + at + begin;
        for (size_t i = 0; i < size; i++) text[i] ^= head[begin - 4 + (i & 3)];
        join(one, named(text, size));
        at += begin + size;
    }
    return at;
}

static ssize_t request(struct connection *one, char *data, size_t length) {
    char *body = memmem(data, length, "\r\n\r\n", 4);
    if (!body) return 0;
    body += 4;
    if (!strncmp(data, "GET ", 4)) {
        one->upgraded = 1;
        deliver(one, GREETING, sizeof GREETING - 1);
        return body - data;
    }
    static const char LENGTH[] = "\r\nContent-Length: ";
    char *given = memmem(data, body - data, LENGTH, sizeof LENGTH - 1);
    size_t size = given ? strtoul(given + sizeof LENGTH - 1, NULL, 10) : 0;
    if ((size_t)(data + length - body) < size) return 0;
    struct channel *to = named(body, size);
    size_t whole = frame(output, body, size);
    for (size_t i = 0; to && i < to->count; i++) deliver(to->subscribers[i], output, whole);
    deliver(one, OK, sizeof OK - 1);
    return body + size - data;
}

static void end(struct connection *one) {
    leave(one);
    close(one->socket);
    free(one->in);
    free(one->out);
    free(one);
}

static void receive(struct connection *one) {
    size_t length = one->in_length;
    memcpy(input, one->in ? one->in : "", length);
    ssize_t got = recv(one->socket, input + length, INPUT / 2 - length, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) end(one);
        return;
    }
    length += got;
    size_t at = 0;
    while (at < length) {
        ssize_t used = (one->upgraded ? frames : request)(one, input + at, length - at);
        if (used < 0) {
            end(one);
            return;
        }
        if (!used) break;
        at += used;
    }
    one->in_length = length - at;
    if (one->in_length >= INPUT / 2) {
        end(one);
        return;
    }
    if (one->in_length) {
        one->in = sure(realloc(one->in, one->in_length));
        memcpy(one->in, input + at, one->in_length);
    }
}

static void come(int listener) {
    int one = 1, socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) return;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *connection = sure(calloc(1, sizeof *connection));
    connection->socket = socket;
    watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static int listening(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **arguments) {
    struct rlimit files;
    struct epoll_event events[EVENTS];
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listening(count > 1 ? atoi(arguments[1]) : 0);
    struct epoll_event of_listener = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &of_listener);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *one = events[i].data.ptr;
            if (!one) {
                come(listener);
                continue;
            }
            if (events[i].events & EPOLLOUT) drain(one);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(one);
        }
    }
}
