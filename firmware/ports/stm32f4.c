/* STM32F4: the ART accelerator is the only cache, and it sits in the flash interface. */
#include "stm32f.h"

uint32_t tr_family_caches(void)
{
    return (1u << 8) | (1u << 9) | (1u << 10); /* prefetch, instruction cache, data cache */
}
