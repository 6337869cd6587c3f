/* Targets, URLs, authorities, queries, cookies. A normal path stays normal, never leaves the root, and is no longer
 * than what came. The first byte picks the method; a line break separates the target from the Host. */
#include "base/must.h"
#include "http/uri.h"

static void check_path(struct arena *arena, struct slice path) {
    struct slice once = path_normalise(arena, path);
    if (!once.p) return;
    must(once.n <= path.n && once.p[0] == '/');
    must(slice_equal(once, path_normalise(arena, once)));
    struct slice rest = slice_skip(once, 1);
    while (rest.p) {
        struct slice segment = slice_cut(&rest, '/');
        must(!slice_equal(segment, SLICE(".")) && !slice_equal(segment, SLICE("..")));
    }
}

static void check_target(struct arena *arena, enum method method, struct slice raw, struct slice host, bool raw_path) {
    struct target target, again;
    if (target_parse(&target, arena, method, raw, host, SLICE("http"), raw_path)) return;
    struct slice written = target_write(arena, &target), authority = authority_write(arena, &target);
    must(written.n > 0);
    must(!target.host.n || authority_valid(authority));
    target_url(arena, &target);
    if (raw_path || target.absolute) return;
    must(target_parse(&again, arena, method, written, host, SLICE("http"), false) == FAIL_NONE);
    must(slice_equal(again.path, target.path) && slice_equal(target_write(arena, &again), written));
}

static void check_pairs(struct arena *arena, struct slice text) {
    struct slice rest = text, name, value;
    size_t seen = 0;
    while (query_next(&rest, &name, &value)) {
        seen += name.n + value.n + 1;
        percent_decode(arena, name, true);
        must(slice_equal(percent_decode(arena, percent_encode(arena, name, NULL), false), name));
    }
    must(seen <= text.n + 1);
    rest = text;
    while (cookie_next(&rest, &name, &value)) must(name.n > 0 && value.p);
    rest = text;
    while (header_list_next(&rest, &value)) must(value.n > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct target url;
    if (size < 1 || size > 4096) return 0;
    struct slice host = slice_make((const char *)data + 1, size - 1), raw = slice_cut(&host, '\n');
    enum method method = (enum method)((data[0] & 15) % (METHOD_PATCH + 1));
    arena_init(&arena);
    check_path(&arena, raw);
    check_target(&arena, method, raw, host, (data[0] & 16) != 0);
    check_pairs(&arena, raw);
    if (url_parse(&arena, raw, &url)) must(url.host.n > 0 && url.path.n > 0);
    arena_fini(&arena);
    return 0;
}
