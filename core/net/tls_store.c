/* What TLS needs once: a library context for each thread, and what was parsed, shared by all of them.
 *
 * Everything parsed is kept in one registry under the SHA-256 of the bytes it came from, for as long as somebody refers
 * to it. A reload builds the new generation before the old one goes, so whatever did not change is found there. A
 * generation that is loaded twice from the same files has the same objects; and so comparing two trusts is comparing
 * two pointers.
 *
 * Parsed objects belong to OpenSSL's default library context, since threads share them; handshakes run in the context
 * of the worker, which takes the keys over at first use. */
#include "base/clock.h"
#include "base/map.h"
#include "base/must.h"
#include "base/refs.h"
#include "net/tls_openssl.h"

#include <openssl/conf.h>
#include <openssl/ocsp.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

/* ---- library contexts */

/* Never freed: what was parsed with one may be closed in another thread after its own has ended. There is one for each
 * worker and helper, 310 KiB each; the list is what keeps leak checkers quiet. */
struct known_library {
    OSSL_LIB_CTX *library;
    struct known_library *next;
};

static struct known_library *known_libraries;
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct known_library *mine;

/* The system's openssl.cnf may demand FIPS; one that is missing or malformed leaves the defaults. */
static void load_settings(OSSL_LIB_CTX *library) {
    char *file = CONF_get1_default_config_file();
    if (file) OSSL_LIB_CTX_load_config(library, file);
    OPENSSL_free(file);
    ERR_clear_error();
}

static struct known_library *make_library(void) {
    struct known_library *made = must_calloc(1, sizeof *made);
    made->library = OSSL_LIB_CTX_new();
    must(made->library != NULL);
    load_settings(made->library);
    pthread_mutex_lock(&known_lock);
    made->next = known_libraries;
    known_libraries = made;
    pthread_mutex_unlock(&known_lock);
    return made;
}

OSSL_LIB_CTX *tls_library(void) {
    if (!mine) mine = make_library();
    return mine->library;
}

const char *tls_error(void) {
    unsigned long error = ERR_peek_last_error();
    ERR_clear_error();
    if (!error) return NULL;
    const char *reason =
        ERR_SYSTEM_ERROR(error) ? strerrordesc_np(ERR_GET_REASON(error)) : ERR_reason_error_string(error);
    return reason ? reason : "unknown error";
}

void *tls_explain(char *why, size_t size, const char *what) {
    const char *error = tls_error();
    snprintf(why, size, "%s%s%s%s", what, error ? " (" : "", error ? error : "", error ? ")" : "");
    return NULL;
}

/* ---- the registry */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map registry; /* digest -> struct tls_shared */

static struct slice digest_key(const unsigned char digest[TLS_DIGEST]) {
    return slice_make((const char *)digest, TLS_DIGEST);
}

void tls_digest(const struct slice *parts, size_t count, unsigned char to[TLS_DIGEST]) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    must(md && EVP_DigestInit_ex(md, EVP_sha256(), NULL));
    for (size_t i = 0; i < count; i++) {
        uint64_t length = parts[i].p ? parts[i].n : UINT64_MAX;
        EVP_DigestUpdate(md, &length, sizeof length);
        if (parts[i].p) EVP_DigestUpdate(md, parts[i].p, parts[i].n);
    }
    must(EVP_DigestFinal_ex(md, to, NULL));
    EVP_MD_CTX_free(md);
}

static struct tls_shared *find_locked(const struct tls_kind *kind, const unsigned char digest[TLS_DIGEST]) {
    struct tls_shared *s = map_get(&registry, digest_key(digest));
    if (!s) return NULL;
    must(s->kind == kind); /* what is digested begins with the kind's own word */
    refs_take(&s->refs);
    return s;
}

void *tls_shared_find(const struct tls_kind *kind, const unsigned char digest[TLS_DIGEST]) {
    pthread_mutex_lock(&lock);
    struct tls_shared *s = find_locked(kind, digest);
    pthread_mutex_unlock(&lock);
    return s;
}

void *tls_shared_add(struct tls_shared *s, const struct tls_kind *kind, const unsigned char digest[TLS_DIGEST]) {
    s->kind = kind;
    atomic_init(&s->refs, 1);
    memcpy(s->digest, digest, TLS_DIGEST);
    pthread_mutex_lock(&lock);
    struct tls_shared *former = find_locked(kind, digest);
    if (!former) map_set(&registry, digest_key(digest), s);
    pthread_mutex_unlock(&lock);
    if (!former) return s;
    kind->destroy(s);
    return former;
}

void tls_shared_unref(struct tls_shared *s) {
    if (!s || refs_give_early(&s->refs)) return;
    pthread_mutex_lock(&lock);
    bool last = refs_give(&s->refs);
    if (last) map_remove(&registry, digest_key(s->digest));
    if (last && s->kind->leave) s->kind->leave(s, NULL);
    if (registry.count == 0) map_fini(&registry);
    pthread_mutex_unlock(&lock);
    if (last) s->kind->destroy(s);
}

void tls_thread_fini(const struct loop *loop) {
    struct slice key;
    void *value;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; loop && map_next(&registry, &i, &key, &value);) {
        struct tls_shared *s = value;
        if (s->kind->leave) s->kind->leave(s, loop);
    }
    pthread_mutex_unlock(&lock);
    tls_tickets_leave();
    if (!mine) return;
    OPENSSL_thread_stop_ex(mine->library);
    mine = NULL;
}

/* ---- identities */

static BIO *open_pem(struct slice text) {
    BIO *bio = BIO_new_mem_buf(text.p, (int)text.n);
    must(bio != NULL);
    return bio;
}

/* Nobody is there to type a passphrase. */
static int refuse_passphrase(char *to, int size, int writing, void *with) { return -1; }

/* The end of the file is reported as a missing start line. */
static bool is_at_end(void) {
    bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (end) ERR_clear_error();
    return end;
}

static bool read_chain(struct tls_identity *id, struct slice pem) {
    BIO *bio = open_pem(pem);
    X509 *x;
    while ((x = PEM_read_bio_X509(bio, NULL, refuse_passphrase, NULL))) {
        if (!id->leaf) id->leaf = x;
        else must(sk_X509_push(id->chain, x) > 0);
    }
    BIO_free(bio);
    return is_at_end() && id->leaf;
}

static bool read_key(struct tls_identity *id, struct slice pem) {
    BIO *bio = open_pem(pem);
    id->key = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, NULL);
    BIO_free(bio);
    return id->key != NULL;
}

static void identity_destroy(struct tls_shared *s) {
    struct tls_identity *id = (struct tls_identity *)s;
    X509_free(id->leaf);
    sk_X509_pop_free(id->chain, X509_free);
    EVP_PKEY_free(id->key);
    OPENSSL_free(id->ocsp);
    arena_fini(&id->arena);
    free(id->names);
    free(id);
}

static const struct tls_kind identity_kind = { .destroy = identity_destroy };

static double unix_time(const ASN1_TIME *time) {
    struct tm tm;
    return time && ASN1_TIME_to_tm(time, &tm) ? (double)timegm(&tm) : 0;
}

/* Is this part of an answer about the certificate? It says until when it holds. */
static bool take_single(struct tls_identity *id, OCSP_SINGLERESP *single) {
    const OCSP_CERTID *about = OCSP_SINGLERESP_get0_id(single);
    ASN1_INTEGER *serial = NULL;
    ASN1_GENERALIZEDTIME *until = NULL;
    OCSP_id_get0_info(NULL, NULL, NULL, &serial, (OCSP_CERTID *)(uintptr_t)about);
    if (ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(id->leaf)) != 0) return false;
    OCSP_single_get0_status(single, NULL, NULL, NULL, &until);
    id->ocsp_until = unix_time(until);
    return true;
}

static const char *take_answer(struct tls_identity *id, OCSP_RESPONSE *answer) {
    bool good = answer && OCSP_response_status(answer) == OCSP_RESPONSE_STATUS_SUCCESSFUL;
    OCSP_BASICRESP *basic = good ? OCSP_response_get1_basic(answer) : NULL;
    bool about = false;
    if (!basic) return "ocsp: holds no good OCSP answer in DER";
    for (int i = 0; i < OCSP_resp_count(basic) && !about; i++) about = take_single(id, OCSP_resp_get0(basic, i));
    OCSP_BASICRESP_free(basic);
    return about ? NULL : "ocsp: it is not about the certificate";
}

/* NULL, or what is wrong with it. */
static const char *read_ocsp(struct tls_identity *id, struct slice der) {
    if (!der.p) return NULL;
    const unsigned char *p = (const unsigned char *)der.p;
    OCSP_RESPONSE *answer = d2i_OCSP_RESPONSE(NULL, &p, (long)der.n);
    const char *wrong = take_answer(id, answer);
    OCSP_RESPONSE_free(answer);
    if (wrong) return wrong;
    id->ocsp = OPENSSL_memdup(der.p, der.n);
    must(id->ocsp != NULL);
    id->ocsp_size = (long)der.n;
    return NULL;
}

/* Subject alternative names; the common name is no name any more (RFC 9525 2). */
static void read_names(struct tls_identity *id) {
    GENERAL_NAMES *names = X509_get_ext_d2i(id->leaf, NID_subject_alt_name, NULL, NULL);
    int count = names ? sk_GENERAL_NAME_num(names) : 0;
    id->names = must_calloc((unsigned long)count + 1, sizeof *id->names);
    for (int i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS) continue;
        const ASN1_STRING *text = name->d.dNSName;
        struct slice bytes = { (const char *)ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text) };
        id->names[id->name_count++] = arena_copy_lower(&id->arena, bytes);
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
}

static bool read_identity(struct tls_identity *id, struct slice cert, struct slice key, struct slice ocsp, char *why,
                          size_t size) {
    ERR_clear_error();
    if (!read_chain(id, cert)) return tls_explain(why, size, "cert: holds no certificate in PEM");
    if (!read_key(id, key))
        return tls_explain(why, size, "key: holds no key in PEM that can be read without a passphrase");
    if (!X509_check_private_key(id->leaf, id->key))
        return tls_explain(why, size, "key: it is not that of the certificate");
    const char *wrong = read_ocsp(id, ocsp);
    if (wrong) return tls_explain(why, size, wrong);
    read_names(id);
    id->expires = unix_time(X509_get0_notAfter(id->leaf));
    return true;
}

struct tls_identity *tls_identity_get(struct slice cert, struct slice key, struct slice ocsp, char *why, size_t size) {
    unsigned char digest[TLS_DIGEST];
    if (!key.p) key = cert;
    tls_digest((struct slice[]){ SLICE("identity"), cert, key, ocsp }, 4, digest);
    struct tls_identity *id = tls_shared_find(&identity_kind, digest);
    if (id) return id;
    id = must_calloc(1, sizeof *id);
    arena_init(&id->arena);
    id->chain = sk_X509_new_null();
    must(id->chain != NULL);
    if (read_identity(id, cert, key, ocsp, why, size)) return tls_shared_add(&id->shared, &identity_kind, digest);
    identity_destroy(&id->shared);
    return NULL;
}

/* ---- a certificate for development */

static void add_extension(X509 *x, int nid, const char *text) {
    X509V3_CTX c;
    X509V3_set_ctx(&c, x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &c, nid, text);
    must(e && X509_add_ext(x, e, -1));
    X509_EXTENSION_free(e);
}

static X509 *make_certificate(EVP_PKEY *key) {
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    unsigned char serial[16];
    random_bytes(serial, sizeof serial);
    serial[0] &= 0x7f;
    BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
    must(number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)));
    BN_free(number);
    X509_set_version(x, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_time_adj_ex(X509_getm_notAfter(x), 365, 0, NULL);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"Moongate development", -1, -1, 0);
    X509_set_issuer_name(x, name);
    X509_set_pubkey(x, key);
    add_extension(x, NID_basic_constraints, "critical,CA:false");
    add_extension(x, NID_subject_alt_name, "DNS:localhost,DNS:*.localhost,IP:127.0.0.1,IP:::1");
    must(X509_sign(x, key, EVP_sha256()) > 0);
    return x;
}

char *tls_make_internal(void) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    must(key != NULL);
    X509 *x = make_certificate(key);
    BIO *bio = BIO_new(BIO_s_mem());
    must(bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) && PEM_write_bio_X509(bio, x));
    char *p;
    long n = BIO_get_mem_data(bio, &p);
    char *text = must_strndup(p, (unsigned long)n);
    OPENSSL_cleanse(p, (size_t)n);
    BIO_free(bio);
    X509_free(x);
    EVP_PKEY_free(key);
    return text;
}

/* ---- roots */

static bool add_roots(X509_STORE *store, struct slice pem) {
    BIO *bio = open_pem(pem);
    unsigned count = 0;
    X509 *x;
    for (; (x = PEM_read_bio_X509_AUX(bio, NULL, refuse_passphrase, NULL)); count++) {
        must(X509_STORE_add_cert(store, x));
        X509_free(x);
    }
    BIO_free(bio);
    return is_at_end() && count > 0;
}

static struct {
    pthread_mutex_t lock;
    X509_STORE *store;
    unsigned char read[TLS_ROOTS_VERSION]; /* what the file was then */
} system_roots = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* One file of all roots is read once; a directory of hashed names would be looked into during handshakes. */
static const char *find_system_file(struct stat *st) {
    const char *files[] = { getenv("SSL_CERT_FILE"), X509_get_default_cert_file(), "/etc/ssl/certs/ca-certificates.crt",
                            "/etc/pki/tls/certs/ca-bundle.crt" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i] && stat(files[i], st) == 0) return files[i];
    return NULL;
}

void tls_system_roots_version(unsigned char to[TLS_ROOTS_VERSION]) {
    struct stat st = { 0 };
    find_system_file(&st);
    uint64_t version[] = { st.st_dev, st.st_ino, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec };
    memcpy(to, version, TLS_ROOTS_VERSION);
}

static X509_STORE *read_system_roots(void) {
    struct stat st;
    const char *file = find_system_file(&st);
    X509_STORE *store = X509_STORE_new();
    must(store != NULL);
    if (file ? X509_STORE_load_file(store, file) : X509_STORE_set_default_paths(store)) return store;
    X509_STORE_free(store);
    return NULL;
}

/* What was read stays if the new version cannot be. */
static void refresh_system_roots(void) {
    unsigned char version[TLS_ROOTS_VERSION];
    tls_system_roots_version(version);
    if (system_roots.store && memcmp(version, system_roots.read, TLS_ROOTS_VERSION) == 0) return;
    X509_STORE *store = read_system_roots();
    if (!store) return;
    X509_STORE_free(system_roots.store);
    system_roots.store = store;
    memcpy(system_roots.read, version, TLS_ROOTS_VERSION);
}

static X509_STORE *share_system_roots(char *why, size_t size) {
    pthread_mutex_lock(&system_roots.lock);
    refresh_system_roots();
    X509_STORE *store = system_roots.store;
    if (store) X509_STORE_up_ref(store);
    pthread_mutex_unlock(&system_roots.lock);
    return store ? store : tls_explain(why, size, "the system's roots cannot be read");
}

/* Whoever names a file means just these: an intermediate certificate, or a server's own, is root enough. */
X509_STORE *tls_roots(struct slice pem, char *why, size_t size) {
    ERR_clear_error();
    if (!pem.p) return share_system_roots(why, size);
    X509_STORE *store = X509_STORE_new();
    must(store != NULL);
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    if (add_roots(store, pem)) return store;
    X509_STORE_free(store);
    return tls_explain(why, size, "holds no certificates in PEM");
}
