/* Session tickets (RFC 5077, RFC 8446 4.6.1): sealed with keys that all workers share, so that a client is known again
 * by whichever accepts it. A key seals for an hour and opens for three more, then it is gone: what was recorded can be
 * decrypted with stolen memory for four hours at most. A restart forgets all of them. */
#include "base/clock.h"
#include "base/must.h"
#include "net/tls_openssl.h"

#include <openssl/core_names.h>
#include <pthread.h>

enum { KEYS = 4, KEY_SECONDS = 3600, NAME_SIZE = 16, SECRET_SIZE = 32 };

struct ticket_key {
    unsigned char name[NAME_SIZE], cipher[SECRET_SIZE], mac[SECRET_SIZE];
    double made; /* monotonic seconds */
};

static struct {
    pthread_mutex_t lock;
    struct ticket_key list[KEYS]; /* the one that seals first */
    unsigned count;
} keys = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Of this thread's library context: fetching them costs more than using them. */
static _Thread_local EVP_CIPHER *cipher;

/* The lock is held. */
static void rotate_keys(void) {
    double now = clock_monotonic();
    while (keys.count && now - keys.list[keys.count - 1].made >= KEYS * KEY_SECONDS)
        OPENSSL_cleanse(&keys.list[--keys.count], sizeof *keys.list);
    if (keys.count && now - keys.list[0].made < KEY_SECONDS) return;
    memmove(keys.list + 1, keys.list, (KEYS - 1) * sizeof *keys.list);
    random_bytes(&keys.list[0], sizeof *keys.list);
    keys.list[0].made = now;
    if (keys.count < KEYS) keys.count++;
}

static struct ticket_key sealing_key(void) {
    pthread_mutex_lock(&keys.lock);
    rotate_keys();
    struct ticket_key key = keys.list[0];
    pthread_mutex_unlock(&keys.lock);
    return key;
}

/* The age of the key of that name in hours, -1: there is none (any more). */
static int opening_key(const unsigned char name[NAME_SIZE], struct ticket_key *key) {
    int found = -1;
    pthread_mutex_lock(&keys.lock);
    rotate_keys();
    for (unsigned i = 0; i < keys.count && found < 0; i++)
        if (memcmp(keys.list[i].name, name, NAME_SIZE) == 0) found = (int)i;
    if (found >= 0) *key = keys.list[found];
    pthread_mutex_unlock(&keys.lock);
    return found;
}

static bool use_mac(EVP_MAC_CTX *mac, struct ticket_key *key) {
    OSSL_PARAM parameters[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "SHA256" }, 0),
                                OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, SECRET_SIZE),
                                OSSL_PARAM_construct_end() };
    return EVP_MAC_CTX_set_params(mac, parameters);
}

/* OpenSSL's callback: -1: it failed; 0: no such key; 1: done; 2: done, and give a new ticket. */
static int use_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *c, EVP_MAC_CTX *mac, int seal) {
    struct ticket_key key;
    int age = 0;
    (void)ssl;
    if (!cipher) cipher = EVP_CIPHER_fetch(tls_library(), "AES-256-CBC", NULL);
    if (seal) {
        key = sealing_key();
        memcpy(name, key.name, NAME_SIZE);
        random_bytes(iv, (size_t)EVP_CIPHER_get_iv_length(cipher));
    } else if ((age = opening_key(name, &key)) < 0) return 0;
    bool ok = use_mac(mac, &key) && EVP_CipherInit_ex2(c, cipher, key.cipher, iv, seal, NULL);
    OPENSSL_cleanse(&key, sizeof key);
    if (!ok) return -1;
    return age > 0 ? 2 : 1;
}

void tls_tickets_use(SSL_CTX *c) { SSL_CTX_set_tlsext_ticket_key_evp_cb(c, use_key); }

void tls_tickets_leave(void) {
    EVP_CIPHER_free(cipher);
    cipher = NULL;
}
