/* DNS answers. The first byte picks the kind that is read; the rest is the message. What is read lies in the records'
 * own memory, and is no more than they may hold. */
#include "base/must.h"
#include "net/dns_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 4096) return 0;
    enum record_kind kind = RECORD_SRV + data[0] % (RECORD_KINDS - RECORD_SRV);
    struct records *records = dns_answer_read(data + 1, size - 1, kind);
    if (!records) return 0;
    must(records->count <= RECORDS_MOST);
    size_t sum = 0;
    for (unsigned i = 0; i < records->count; i++) {
        for (size_t n = 0; n < records->list[i].text.n; n++) sum += (unsigned char)records->list[i].text.p[n];
        if (kind == RECORD_SRV && i) must(records->list[i - 1].priority <= records->list[i].priority);
    }
    must(sum < SIZE_MAX);
    records_unref(records_ref(records));
    records_unref(records);
    return 0;
}
