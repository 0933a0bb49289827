/* keep.c: moves the rows of a map that later runs read again to its start, by words where both places are aligned. The places may
 * overlap: every value is read before anything is written on it, because all addresses rise. Scratch: none. */
#include <stdbool.h>

#include "tinyredux.h"

typedef uint32_t __attribute__((may_alias)) word;

void tr_keep_s8(int8_t *out, const int8_t *in, const struct tr_keep *p)
{
    int32_t n = p->n;
    const bool aligned = (((uintptr_t)out | (uintptr_t)in) & 3u) == 0u;
    for (; aligned && n >= 16; n -= 16, in += 16, out += 16) {
        const word *const from = (const word *)(const void *)in;
        word *const to = (word *)(void *)out;
        const uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
    for (; n > 0; n--) {
        *out++ = *in++;
    }
}
