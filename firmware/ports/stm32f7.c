/* STM32F7: level-1 instruction and data cache of the Cortex-M7, and the ART accelerator on the ITCM bus. */
#include "cortex_m.h"
#include "stm32f.h"

#define SCB_CCR 0xE000ED14u
#define SCB_CCSIDR 0xE000ED80u
#define SCB_CSSELR 0xE000ED84u
#define SCB_ICIALLU 0xE000EF50u
#define SCB_DCISW 0xE000EF60u
#define CCR_DATA_CACHE (1u << 16)
#define CCR_INSTRUCTION_CACHE (1u << 17)

static void barrier(void)
{
    __asm volatile("dsb\n\tisb" ::: "memory");
}

/* Both caches hold nonsense after power-on: invalidate first (Armv7-M Architecture Reference Manual, B2.2). */
uint32_t tr_family_caches(void)
{
    if ((TR_REG(SCB_CCR) & CCR_DATA_CACHE) == 0u) {
        TR_REG(SCB_ICIALLU) = 0u;
        TR_REG(SCB_CSSELR) = 0u;
        barrier();
        const uint32_t size = TR_REG(SCB_CCSIDR);
        const uint32_t last_set = (size >> 13) & 0x7FFFu;
        for (uint32_t set = 0; set <= last_set; set++) {
            for (uint32_t way = 0; way < 4u; way++) {
                TR_REG(SCB_DCISW) = (way << 30) | (set << 5); /* four ways, lines of 32 bytes */
            }
        }
        barrier();
        tr_set_bits(SCB_CCR, 0u, CCR_DATA_CACHE | CCR_INSTRUCTION_CACHE);
        barrier();
    }
    return (1u << 8) | (1u << 9); /* prefetch, ART accelerator */
}
