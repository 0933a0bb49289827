/* extend.c: a map amid constant places, such as class tokens; all have one quantisation, so values are copied. Scratch: none. */
#include "tinyredux.h"

void tr_extend_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict values, const struct tr_extend *restrict p)
{
    tr_keep_s8(out, values, &(const struct tr_keep){p->before});
    tr_keep_s8(out + p->before, in, &(const struct tr_keep){p->n});
    tr_keep_s8(out + p->before + p->n, values + p->before, &(const struct tr_keep){p->behind});
}
