/* PROXY headers: one feed and byte by byte give the same answer, take the same bytes and name the same client; what was
 * named comes back from our own writing, in both versions. */
#include "base/must.h"
#include "net/proxy_header.h"

struct outcome {
    enum proxy_header_result result;
    size_t taken;
    struct addr source;
};

static struct outcome read_in_steps(const uint8_t *data, size_t size, size_t step) {
    struct outcome o = { .result = PROXY_HEADER_MORE };
    struct buffer in = { 0 };
    size_t fed = 0;
    while (o.result == PROXY_HEADER_MORE && fed < size) {
        size_t n = size - fed < step ? size - fed : step;
        buffer_append(&in, data + fed, n);
        fed += n;
        o.result = proxy_header_read(&in, &o.source);
    }
    o.taken = fed - in.size;
    buffer_fini(&in);
    return o;
}

static void check_written(unsigned version, const struct addr *source) {
    struct buffer out = { 0 };
    struct addr again;
    proxy_header_write(&out, version, source, source);
    must(proxy_header_read(&out, &again) == PROXY_HEADER_DONE && out.size == 0);
    must(addr_port(&again) == addr_port(source));
    char one[ADDR_TEXT], two[ADDR_TEXT];
    must(slice_equal(addr_ip_text(source, one), addr_ip_text(&again, two))); /* a mapped one comes back as IPv4 */
    buffer_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct outcome whole = read_in_steps(data, size, size ? size : 1), bytes = read_in_steps(data, size, 1);
    must(whole.result == bytes.result);
    if (whole.result != PROXY_HEADER_DONE) return 0;
    must(whole.taken == bytes.taken && addr_equal(&whole.source, &bytes.source));
    if (!whole.source.size) return 0;
    check_written(1, &whole.source);
    check_written(2, &whole.source);
    return 0;
}
