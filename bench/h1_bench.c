/* How long HTTP/1 heads take, without a network: nanoseconds for the scan alone, for a whole read (scan, copy,
 * http-parser, framing, target), and for the way of a small response through buffers. Best of several rounds, since
 * whatever else the machine does can only add.
 *
 *     cc -O2 -D_GNU_SOURCE -DMOONGATE_SOURCEDIR='"."' -DMOONGATE_DATADIR='"."' -Icore \
 *        bench/h1_bench.c core/base/[a-z]*.c core/http/[a-z]*.c \
 *        -lhttp_parser -lxxhash -o h1_bench */
#include "base/clock.h"
#include "base/must.h"
#include "http/framing.h"
#include "http/h1_scan.h"
#include "http/uri.h"

#include <stdio.h>

enum { ROUNDS = 15, TURNS = 100000 };

static const struct h1_limits limits = { .head = 65536, .target = 8192, .fields = 100 };

static const char small_head[] = "GET /plain HTTP/1.1\r\n"
                                 "Host: 127.0.0.1:8080\r\n"
                                 "\r\n";

static const char browser_head[] =
    "GET /articles/2026/11/a-walk-round-the-garden?page=2 HTTP/1.1\r\n"
    "Host: www.example.com\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Connection: keep-alive\r\n"
    "Cookie: lang=en; seen=1732359600\r\n"
    "Priority: u=0, i\r\n"
    "\r\n";

static const char response_head[] = "HTTP/1.1 200 OK\r\n"
                                    "Server: nginx\r\n"
                                    "Date: Mon, 23 Nov 2026 10:11:12 GMT\r\n"
                                    "Content-Type: text/plain\r\n"
                                    "Content-Length: 1024\r\n"
                                    "Connection: keep-alive\r\n"
                                    "ETag: \"65f1-400\"\r\n"
                                    "\r\n";

static void scan_once(struct slice head) {
    struct h1_scan scan = { 0 };
    enum failure why;
    must(h1_scan_request(&scan, head.p, (uint32_t)head.n, &limits, &why) == H1_DONE);
}

/* What a client's request costs until it can be routed. */
static void read_once(struct slice head) {
    static struct buffer in;
    struct arena arena;
    struct request request;
    struct h1_scan scan = { 0 };
    enum failure why;
    memcpy(buffer_room(&in, 16000), head.p, head.n);
    buffer_commit(&in, head.n);
    arena_init(&arena);
    must(h1_read_request(&scan, &in, &limits, &arena, &request, &why) == H1_DONE);
    must(framing_of_request(&request) == FAIL_NONE);
    struct slice host = headers_get_id(&request.headers, HEADER_HOST);
    must(!target_parse(&request.target, &arena, request.method, request.target.raw, host, SLICE("http"), false));
    arena_fini(&arena);
}

/* A response with a body of 1 KiB: read, framed, its head written afresh, its body moved, all of it dropped. */
static void relay_once(struct slice head) {
    static struct buffer in, out;
    static const char content[1024];
    struct arena arena;
    struct response response;
    struct h1_scan scan = { 0 };
    enum failure why;
    char *room = buffer_room(&in, 16000);
    memcpy(room, head.p, head.n);
    memcpy(room + head.n, content, sizeof content);
    buffer_commit(&in, head.n + sizeof content);
    arena_init(&arena);
    must(h1_read_response(&scan, &in, &limits, &arena, &response, &why) == H1_DONE);
    must(framing_of_response(&response, METHOD_GET) == FAIL_NONE);
    h1_write_response(&out, &response, SLICE("Content-Length: 1024\r\n"));
    struct h1_body body;
    h1_body_start(&body, &response.framing, NULL);
    must(h1_body_read(&body, &in, &out, 65536) == H1_DONE);
    struct iovec vectors[8];
    must(buffer_vectors(&out, vectors, 8) == 1);
    buffer_drop(&out, out.size);
    arena_fini(&arena);
}

static void measure(const char *name, void (*work)(struct slice), struct slice head) {
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = clock_monotonic();
        for (int i = 0; i < TURNS; i++) work(head);
        double took = (clock_monotonic() - start) / TURNS;
        if (took < best) best = took;
    }
    printf("%-34s %4zu bytes %8.1f ns\n", name, head.n, best * 1e9);
}

int main(void) {
    measure("scan a small head", scan_once, slice_of(small_head));
    measure("scan a browser's head", scan_once, slice_of(browser_head));
    measure("read, frame, parse a small head", read_once, slice_of(small_head));
    measure("read, frame, parse a browser's", read_once, slice_of(browser_head));
    measure("relay a response of 1 KiB", relay_once, slice_of(response_head));
    return 0;
}
