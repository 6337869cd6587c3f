/* Files of data. The first byte picks the format. What is read is found again: every entry that a walk shows, by its key,
 * also as the longest prefix of itself. */
#include "base/must.h"
#include "store/frozen_file.h"

static void check_map(const struct frozen *f) {
    struct slice key, value, found, prefix;
    size_t count = 0, steps;
    for (size_t at = 0; frozen_next(f, &at, &key, &value); count++) {
        must(key.n >= 1 && key.n <= FROZEN_KEY_MAX);
        must(frozen_get(f, key, &found) && found.p == value.p);
        must(frozen_prefix(f, key, &prefix, &found, &steps) && prefix.n == key.n);
    }
    must(count == frozen_count(f));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 8192) return 0;
    struct slice text = slice_make((const char *)data + 1, size - 1);
    struct frozen_maker *maker = frozen_begin();
    enum frozen_fault why;
    struct frozen_trouble trouble;
    uint32_t line;
    if (!frozen_read(maker, text, (enum frozen_format)(data[0] & 3), (data[0] & 4) != 0, &trouble)) {
        must(trouble.line >= 1 && trouble.line <= size + 1 && *trouble.what);
        frozen_abandon(maker);
        return 0;
    }
    struct digest source = frozen_digest(maker);
    struct frozen *f = frozen_end(maker, source, &why, &line);
    if (f) check_map(f);
    else must(why == FROZEN_CLASH);
    frozen_unref(f);
    return 0;
}
