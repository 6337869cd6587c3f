/* gate.uuid(): RFC 9562, version 4 (random) and 7 (ordered by time).
 *
 * Of version 7, the 12 bits behind the milliseconds are the fraction of the millisecond, so that ids of one thread
 * ascend (6.2, method 3); when the clock stands still or goes back, the last one is counted on. Ids of two workers
 * made within 250 ns may be out of order. */
#include "lua/bind.h"

#include "base/clock.h"

enum { UUID_BYTES = 16, UUID_TEXT = 36 };

static void write_uuid(char to[UUID_TEXT], const uint8_t bytes[UUID_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < UUID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *to++ = '-';
        *to++ = digits[bytes[i] >> 4];
        *to++ = digits[bytes[i] & 15];
    }
}

/* Units of 1/4096 ms, each given once per thread. */
static uint64_t next_stamp(void) {
    static _Thread_local uint64_t last;
    uint64_t now = (uint64_t)(clock_wall() * 1000 * 4096);
    last = now > last ? now : last + 1;
    return last;
}

static void put_stamp(uint8_t bytes[UUID_BYTES], uint64_t stamp) {
    for (int i = 0; i < 6; i++) bytes[i] = (uint8_t)(stamp >> (12 + 8 * (5 - i)));
    bytes[6] = (uint8_t)(stamp >> 8 & 0x0f);
    bytes[7] = (uint8_t)stamp;
}

static int gate_uuid(lua_State *L) {
    lua_Integer version = luaL_optinteger(L, 1, 4);
    if (version != 4 && version != 7) return luaL_argerror(L, 1, "version 4 or 7 expected");
    uint8_t bytes[UUID_BYTES];
    char text[UUID_TEXT];
    random_secret(bytes, sizeof bytes);
    if (version == 7) put_stamp(bytes, next_stamp());
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | version << 4);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    write_uuid(text, bytes);
    lua_pushlstring(L, text, sizeof text);
    return 1;
}

void bind_uuid_open(lua_State *L) {
    lua_pushcfunction(L, gate_uuid);
    lua_setfield(L, -2, "uuid");
}
