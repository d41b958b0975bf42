/* Repeats one request over many connections and discards the responses.
 *
 * Usage: pull HOST PORT CONNECTIONS SECONDS TIMES STATUS LENGTH BODILESS <request
 * Each connection sends TIMES requests, or if TIMES is 0 as many as SECONDS allow and at least
 * one. Every response must have the STATUS and a body of LENGTH bytes; BODILESS is 1 if responses
 * have no body whatever Content-Length says.
 * Prints: responses, seconds, median and 99th percentile in ms, errors, and the first fault.
 *
 * Bodies of a known length are discarded in the kernel (MSG_TRUNC, see tcp(7)), because a copy
 * would take processor time from the server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum state { HEAD, BODY, CHUNKS };
enum line { SIZE, AFTER, TRAILER };

struct connection {
    int fd;
    int asked;
    enum state state;
    double since;
    char head[16384];
    size_t held;
    long left; /* of the body, or of a chunk */
    long body; /* bytes of it so far */
    enum line line;
    char text[64];
    size_t used;
};

static char request[65536], room[1 << 20];
static size_t request_size;
static double *times;
static size_t count, space;
static long errors;
static const char *fault = "";
static int status_wanted, bodiless, times_each, open_connections;
static long length_wanted;
static double end;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void wrong(const char *what) {
    static char text[200];
    errors++;
    if (!*fault) {
        snprintf(text, sizeof text, "%s", what);
        fault = text;
    }
}

static void quit(struct connection *c) {
    close(c->fd);
    open_connections--;
}

static void ask(struct connection *c) {
    c->state = HEAD;
    c->held = c->used = 0;
    c->left = c->body = 0;
    c->line = SIZE;
    c->asked++;
    c->since = now();
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) {
        wrong("the server does not take requests");
        quit(c);
    }
}

static void answered(struct connection *c) {
    double t = now();
    if (c->body != length_wanted) {
        wrong("a body of another length");
    } else {
        if (count == space) {
            space = space ? 2 * space : 65536;
            times = realloc(times, space * sizeof *times);
        }
        times[count++] = t - c->since;
    }
    if (times_each ? c->asked == times_each : t >= end)
        quit(c);
    else
        ask(c);
}

/* Consumes bytes of a body in chunks; returns 1 at its end. */
static int take_chunks(struct connection *c, const char *data, size_t size) {
    while (size) {
        if (c->left) {
            size_t part = (size_t)c->left < size ? (size_t)c->left : size;
            c->left -= part;
            c->body += part;
            data += part;
            size -= part;
            if (!c->left)
                c->line = AFTER;
            continue;
        }
        char byte = *data++;
        size--;
        if (byte != '\n') {
            if (byte != '\r' && c->used < sizeof c->text - 1)
                c->text[c->used++] = byte;
            continue;
        }
        c->text[c->used] = 0;
        if (c->line == TRAILER && !c->used)
            return 1;
        if (c->line == SIZE) {
            c->left = strtol(c->text, NULL, 16);
            if (!c->left)
                c->line = TRAILER;
        } else if (c->line == AFTER) {
            c->line = SIZE;
        }
        c->used = 0;
    }
    return 0;
}

static const char *field(const char *head, const char *name) {
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, size) && line[size] == ':')
            return line + size + 1 + strspn(line + size + 1, " ");
    }
    return NULL;
}

/* Parses a complete head; the `rest` bytes after it belong to the body. */
static void take_head(struct connection *c, size_t head, size_t rest) {
    const char *found;
    char text[80];
    c->head[head - 2] = 0; /* the empty line */
    int status = strncmp(c->head, "HTTP/1.1 ", 9) ? 0 : atoi(c->head + 9);
    if (status != status_wanted) {
        snprintf(text, sizeof text, "status %d instead of %d", status, status_wanted);
        wrong(text);
        quit(c);
    } else if (bodiless) {
        answered(c);
    } else if ((found = field(c->head, "Transfer-Encoding")) && !strncasecmp(found, "chunked", 7)) {
        c->state = CHUNKS;
        if (take_chunks(c, c->head + head, rest))
            answered(c);
    } else {
        found = field(c->head, "Content-Length");
        c->state = BODY;
        c->left = (found ? atol(found) : 0) - (long)rest;
        c->body = (long)rest;
        if (c->left <= 0)
            answered(c);
    }
}

static void readable(struct connection *c) {
    ssize_t got;
    if (c->state == HEAD)
        got = recv(c->fd, c->head + c->held, sizeof c->head - 1 - c->held, 0);
    else if (c->state == BODY)
        got = recv(c->fd, room, (size_t)c->left < sizeof room ? (size_t)c->left : sizeof room,
                   MSG_TRUNC);
    else
        got = recv(c->fd, room, sizeof room, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        wrong("the server closed a connection");
        quit(c);
    } else if (c->state == HEAD) {
        c->held += (size_t)got;
        char *found = memmem(c->head, c->held, "\r\n\r\n", 4);
        if (found) {
            size_t head = (size_t)(found - c->head) + 4;
            take_head(c, head, c->held - head);
        } else if (c->held == sizeof c->head - 1) {
            wrong("a head without an end");
            quit(c);
        }
    } else if (c->state == BODY) {
        c->left -= got;
        c->body += got;
        if (!c->left)
            answered(c);
    } else if (take_chunks(c, room, (size_t)got)) {
        answered(c);
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double part) {
    size_t place = (size_t)(part * count);
    return count ? 1000 * times[place < count ? place : count - 1] : 0;
}

int main(int argc, char **argv) {
    if (argc != 9)
        return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        return 2;
    int connections = atoi(argv[3]);
    times_each = atoi(argv[5]);
    status_wanted = atoi(argv[6]);
    length_wanted = atol(argv[7]);
    bodiless = atoi(argv[8]);
    request_size = fread(request, 1, sizeof request, stdin);

    struct connection *all = calloc(connections, sizeof *all);
    int polled = epoll_create1(0), one = 1;
    for (int i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
            perror("connect");
            return 1;
        }
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(polled, EPOLL_CTL_ADD, c->fd, &event);
    }
    open_connections = connections;
    double begin = now(), heard = begin;
    end = begin + atof(argv[4]);
    for (int i = 0; i < connections; i++)
        ask(&all[i]);
    /* Wait for one response at least: on a busy machine the first may take longer. */
    while (open_connections && (times_each || now() < end || !(count || errors))) {
        struct epoll_event events[64];
        int ready = epoll_wait(polled, events, 64, 100);
        if (ready > 0)
            heard = now();
        if (now() - heard > 60) {
            wrong("no answer for a minute");
            break;
        }
        for (int i = 0; i < ready; i++)
            readable(events[i].data.ptr);
    }
    double elapsed = now() - begin;
    qsort(times, count, sizeof *times, compare);
    printf("%zu %f %f %f %ld %s\n", count, elapsed, percentile(0.5), percentile(0.99), errors, fault);
    return 0;
}
