/* check.h: the bounds that comments state, checked where TR_ASSERTS is defined: in tests and under sanitizers on a host. On boards a
 * TR_ASSERT is nothing. */
#ifndef TR_CHECK_H
#define TR_CHECK_H

#if defined(TR_ASSERTS)
#include <assert.h>
#define TR_ASSERT(condition) assert(condition)
#else
#define TR_ASSERT(condition) ((void)0)
#endif

#endif
