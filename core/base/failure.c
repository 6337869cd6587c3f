/* The failure table's rows, made from the one list in the header. */
#include "base/failure.h"

const struct failure_row failure_table[FAILURE_COUNT] = {
#define FAILURE_ROW(name, status, class, word, sentence) [FAIL_##name] = { status, class, word, sentence },
    FAILURES(FAILURE_ROW)
#undef FAILURE_ROW
};
