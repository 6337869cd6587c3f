/* Early data comes once (RFC 8446 8). It is encrypted, but whoever recorded the first flight of a client can send it
 * again, and no handshake has yet shown that the client is there. What protects:
 *
 * - OpenSSL takes early data only from a ClientHello that says to be at most some ten seconds old, by the age of its
 *   ticket, which the binder vouches for.
 * - For longer than that, every ClientHello whose early data was taken is remembered here, by its random bytes, which
 *   the binder vouches for, too. One that comes again shakes hands as if it had sent none.
 * - Tickets are sealed with keys that one process made and shares with none. So nobody else takes what was meant for
 *   us, and what was meant for a process that is gone is good for nothing.
 *
 * OpenSSL's own protection, tickets that are used once, needs a cache of sessions in each worker: a client would be
 * known only to the one that it met before.
 *
 * Two halves take turns, each as long as a hello can be fresh, so what leaves with the older one is stale; by the wall
 * clock, as OpenSSL counts. If that is set back, `forgotten` holds the door shut until it is right again. A half that
 * is full refuses: a flood of early data costs a round trip, never the promise. */
#include "base/clock.h"
#include "base/map.h"
#include "net/tls_openssl.h"

#include <pthread.h>

#ifdef MOONGATE_HARD
enum { PLACES = 8 };
#else
enum { PLACES = 1 << 17 };
#endif
static const double FRESH_SECONDS = 15; /* OpenSSL's ten, its rounding, and some */

/* The hashes of what was seen, open addressing; 0: an empty place. Pages that nobody touched take no memory. */
static uint64_t places[2][PLACES];

struct half {
    uint64_t *places;
    unsigned count;
    double began, last; /* wall clock */
};

static struct {
    pthread_mutex_t lock;
    struct half new, old;
    double forgotten; /* when the last of what was forgotten was seen */
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER, .new.places = places[0], .old.places = places[1] };

static uint64_t *find_place(const struct half *h, uint64_t hash) {
    size_t i = hash % PLACES;
    while (h->places[i] && h->places[i] != hash) i = (i + 1) % PLACES;
    return &h->places[i];
}

static bool has(const struct half *h, uint64_t hash) { return h->count && *find_place(h, hash) == hash; }

static void turn_over(double now) {
    struct half leaves = seen.old;
    if (leaves.count) seen.forgotten = leaves.last;
    seen.old = seen.new;
    seen.new = (struct half){ .places = leaves.places, .began = now };
    if (leaves.count) memset(leaves.places, 0, sizeof places[0]);
}

/* The lock is held. */
static bool note(uint64_t hash, double now) {
    if (now >= seen.new.began + FRESH_SECONDS) turn_over(now);
    if (now < seen.forgotten + FRESH_SECONDS || now < seen.new.began) return false;
    if (has(&seen.new, hash) || has(&seen.old, hash) || seen.new.count >= PLACES / 2) return false;
    *find_place(&seen.new, hash) = hash;
    seen.new.count++;
    seen.new.last = now;
    return true;
}

bool tls_replay_note(struct slice hello, double now) {
    uint64_t hash = hash_bytes(hello);
    if (hash == 0) hash = 1;
    pthread_mutex_lock(&seen.lock);
    bool first = note(hash, now);
    pthread_mutex_unlock(&seen.lock);
    return first;
}

static int allow(SSL *ssl, void *with) {
    unsigned char bytes[SSL3_RANDOM_SIZE];
    (void)with;
    size_t n = SSL_get_client_random(ssl, bytes, sizeof bytes);
    return tls_replay_note(slice_make((const char *)bytes, n), clock_wall());
}

void tls_replay_use(SSL_CTX *c) {
    SSL_CTX_set_options(c, SSL_OP_NO_ANTI_REPLAY);
    SSL_CTX_set_allow_early_data_cb(c, allow, NULL);
}
