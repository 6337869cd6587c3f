/* Databases of what is known about addresses, read by libmaxminddb, which opens a file by its name only. We have a
 * descriptor (perhaps from the supervisor) and want bytes that nobody changes: so the file is copied into a memfd,
 * which is sealed, and opened through /proc/self/fd. Mapping the file itself would share the page cache with other
 * processes, but a database that is copied over in place would end the proxy with SIGBUS. */
#include "store/mmdb.h"

#include "base/must.h"

#include <maxminddb.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static const off_t FILE_MOST = 1 << 30;

struct identity {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed, modified;
};

struct mmdb {
    MMDB_s file;
    struct identity identity;
    size_t refs;
    struct mmdb *next;
};

static struct {
    pthread_mutex_t lock;
    struct mmdb *first;
} databases = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- opening */

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static bool same_file(const struct identity *a, const struct identity *b) {
    return a->device == b->device && a->inode == b->inode && a->size == b->size && same_time(a->changed, b->changed) &&
           same_time(a->modified, b->modified);
}

static bool identify(int fd, struct identity *identity, const char **why) {
    struct stat about;
    *why = "not a regular file";
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return false;
    *why = "larger than 1 GiB";
    *identity = (struct identity){ about.st_dev, about.st_ino, about.st_size, about.st_ctim, about.st_mtim };
    return about.st_size <= FILE_MOST;
}

static bool copy_file(int from, int to, off_t size) {
    for (off_t at = 0; at < size;) {
        ssize_t n = sendfile(to, from, &at, (size_t)(size - at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
    }
    return fcntl(to, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0;
}

static bool open_copy(MMDB_s *file, int copy, const char **why) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", copy);
    int error = MMDB_open(path, MMDB_MODE_MMAP, file);
    if (error != MMDB_SUCCESS) *why = MMDB_strerror(error);
    return error == MMDB_SUCCESS;
}

static struct mmdb *load(int fd, const struct identity *identity, const char **why) {
    struct mmdb *db = must_calloc(1, sizeof *db);
    db->identity = *identity;
    db->refs = 1;
    *why = "it could not be copied";
    int copy = memfd_create("mmdb", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool ok = copy >= 0 && copy_file(fd, copy, identity->size) && open_copy(&db->file, copy, why);
    if (copy >= 0) close(copy);
    if (ok) return db;
    free(db);
    return NULL;
}

static struct mmdb *find_loaded(const struct identity *identity) {
    struct mmdb *db = databases.first;
    while (db && !same_file(&db->identity, identity)) db = db->next;
    if (db) db->refs++;
    return db;
}

/* Loads take place on one thread, so nobody waits for the lock that is held while a file is copied. */
struct mmdb *mmdb_open(int fd, const char **why) {
    struct identity identity;
    if (!identify(fd, &identity, why)) return NULL;
    pthread_mutex_lock(&databases.lock);
    struct mmdb *db = find_loaded(&identity);
    if (!db && (db = load(fd, &identity, why))) {
        db->next = databases.first;
        databases.first = db;
    }
    pthread_mutex_unlock(&databases.lock);
    return db;
}

struct mmdb *mmdb_ref(struct mmdb *db) {
    pthread_mutex_lock(&databases.lock);
    db->refs++;
    pthread_mutex_unlock(&databases.lock);
    return db;
}

void mmdb_unref(struct mmdb *db) {
    if (!db) return;
    pthread_mutex_lock(&databases.lock);
    bool last = --db->refs == 0;
    struct mmdb **at = &databases.first;
    while (last && *at != db) at = &(*at)->next;
    if (last) *at = db->next;
    pthread_mutex_unlock(&databases.lock);
    if (!last) return;
    MMDB_close(&db->file);
    free(db);
}

size_t mmdbs(void) {
    size_t n = 0;
    pthread_mutex_lock(&databases.lock);
    for (const struct mmdb *db = databases.first; db; db = db->next) n++;
    pthread_mutex_unlock(&databases.lock);
    return n;
}

/* ---- looking up */

static MMDB_lookup_result_s look_up(const MMDB_s *file, const uint8_t address[16], int *error) {
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    struct sockaddr_in6 ipv6 = { .sin6_family = AF_INET6 };
    struct sockaddr_in ipv4 = { .sin_family = AF_INET };
    if (memcmp(address, mapped, sizeof mapped) == 0) {
        memcpy(&ipv4.sin_addr, address + 12, 4);
        return MMDB_lookup_sockaddr(file, (const struct sockaddr *)&ipv4, error);
    }
    memcpy(&ipv6.sin6_addr, address, 16);
    return MMDB_lookup_sockaddr(file, (const struct sockaddr *)&ipv6, error);
}

static bool read_value(const MMDB_entry_data_s *data, struct mmdb_value *v) {
    switch (data->type) {
    case MMDB_DATA_TYPE_MAP: *v = (struct mmdb_value){ MMDB_MAP, .count = data->data_size }; return true;
    case MMDB_DATA_TYPE_ARRAY: *v = (struct mmdb_value){ MMDB_LIST, .count = data->data_size }; return true;
    case MMDB_DATA_TYPE_UTF8_STRING:
        *v = (struct mmdb_value){ MMDB_TEXT, .bytes = { data->utf8_string, data->data_size } };
        return true;
    case MMDB_DATA_TYPE_BYTES:
        *v = (struct mmdb_value){ MMDB_BYTES, .bytes = { (const char *)data->bytes, data->data_size } };
        return true;
    case MMDB_DATA_TYPE_UINT16: *v = (struct mmdb_value){ MMDB_INTEGER, .integer = data->uint16 }; return true;
    case MMDB_DATA_TYPE_UINT32: *v = (struct mmdb_value){ MMDB_INTEGER, .integer = data->uint32 }; return true;
    case MMDB_DATA_TYPE_INT32: *v = (struct mmdb_value){ MMDB_INTEGER, .integer = data->int32 }; return true;
    case MMDB_DATA_TYPE_UINT64:
        *v = data->uint64 <= INT64_MAX ? (struct mmdb_value){ MMDB_INTEGER, .integer = (int64_t)data->uint64 }
                                       : (struct mmdb_value){ MMDB_NUMBER, .number = (double)data->uint64 };
        return true;
    /* Nothing that is known uses more than 64 of its bits. */
    case MMDB_DATA_TYPE_UINT128: *v = (struct mmdb_value){ MMDB_NUMBER, .number = (double)data->uint128 }; return true;
    case MMDB_DATA_TYPE_DOUBLE: *v = (struct mmdb_value){ MMDB_NUMBER, .number = data->double_value }; return true;
    case MMDB_DATA_TYPE_FLOAT:
        *v = (struct mmdb_value){ MMDB_NUMBER, .number = (double)data->float_value };
        return true;
    case MMDB_DATA_TYPE_BOOLEAN: *v = (struct mmdb_value){ MMDB_BOOLEAN, .boolean = data->boolean }; return true;
    default: return false;
    }
}

static bool is_absence(int error) {
    return error == MMDB_LOOKUP_PATH_DOES_NOT_MATCH_DATA_ERROR || error == MMDB_INVALID_LOOKUP_PATH_ERROR;
}

/* What is no container needs no list: that is most of what is asked for. */
static enum mmdb_result begin_reading(const MMDB_s *file, const MMDB_entry_data_s *data, struct mmdb_cursor *c) {
    if (!read_value(data, &c->value)) return MMDB_CORRUPT;
    if (c->value.kind != MMDB_MAP && c->value.kind != MMDB_LIST) return MMDB_FOUND;
    MMDB_entry_s within = { .mmdb = file, .offset = data->offset };
    MMDB_entry_data_list_s *list = NULL;
    int error = MMDB_get_entry_data_list(&within, &list);
    c->list = c->at = list;
    return error == MMDB_SUCCESS && list ? MMDB_FOUND : MMDB_CORRUPT;
}

enum mmdb_result mmdb_find(const struct mmdb *db, const uint8_t address[16], const char *const *path,
                           struct mmdb_cursor *c) {
    MMDB_entry_data_s data;
    int error = MMDB_SUCCESS;
    memset(c, 0, sizeof *c);
    MMDB_lookup_result_s found = look_up(&db->file, address, &error);
    if (error == MMDB_IPV6_LOOKUP_IN_IPV4_DATABASE_ERROR) return MMDB_ABSENT;
    if (error != MMDB_SUCCESS) return MMDB_CORRUPT;
    if (!found.found_entry) return MMDB_ABSENT;
    error = MMDB_aget_value(&found.entry, &data, path);
    if (is_absence(error) || (error == MMDB_SUCCESS && !data.has_data)) return MMDB_ABSENT;
    return error == MMDB_SUCCESS ? begin_reading(&db->file, &data, c) : MMDB_CORRUPT;
}

bool mmdb_next(struct mmdb_cursor *c, struct mmdb_value *v) {
    if (!c->list) {
        *v = c->value;
        bool first = !c->given;
        c->given = true;
        return first;
    }
    MMDB_entry_data_list_s *at = c->at;
    if (!at) return false;
    c->at = at->next;
    return read_value(&at->entry_data, v);
}

void mmdb_cursor_fini(struct mmdb_cursor *c) {
    MMDB_free_entry_data_list(c->list);
    c->list = c->at = NULL;
}
