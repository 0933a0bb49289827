/* STM32L4 and L4+ (reference manuals RM0351, RM0432): PLL from HSI16, boost above 80 MHz, ART accelerator. */
#include "board.h"
#include "cortex_m.h"

#define RCC_CR 0x40021000u
#define RCC_CFGR 0x40021008u
#define RCC_PLLCFGR 0x4002100Cu
#define RCC_AHB2ENR 0x4002104Cu
#define RCC_APB1ENR1 0x40021058u
#define RCC_APB1ENR2 0x4002105Cu
#define RCC_APB2ENR 0x40021060u
#define PWR_CR2 0x40007004u
#define PWR_CR5 0x40007080u
#define FLASH_ACR 0x40022000u

#define RESET_HZ 4000000u /* MSI after reset */
#define BOOST_ABOVE_HZ 80000000u
#define LPUART1 0x40008000u
#define USART1 0x40013800u
#define USART2 0x40004400u
#define PORT_G 6u

uint32_t tr_family_clock(void)
{
    TR_REG(FLASH_ACR) = (1u << 8) | (1u << 9) | (1u << 10) | TR_FLASH_WAIT_STATES; /* prefetch, both caches */
    tr_set_bits(RCC_APB1ENR1, 0u, 1u << 28);                                       /* PWR */
    tr_set_bits(RCC_CR, 0u, 1u << 8);                                              /* HSI16 */
    if (tr_wait(RCC_CR, 1u << 10, 1u << 10) == 0u) {
        return RESET_HZ;
    }
    if (TR_CLOCK_HZ > BOOST_ABOVE_HZ) {
        tr_set_bits(PWR_CR5, 1u << 8, 0u); /* range 1 boost, active when the bit is clear */
    }
    /* 16 MHz / 4 = 4 MHz into the PLL, twice the core clock out of it, divided by two. */
    TR_REG(RCC_PLLCFGR) = 2u | (3u << 4) | ((TR_CLOCK_HZ / 2000000u) << 8) | (1u << 24);
    tr_set_bits(RCC_CR, 0u, 1u << 24);
    if (tr_wait(RCC_CR, 1u << 25, 1u << 25) == 0u) {
        return RESET_HZ;
    }
    tr_set_bits(RCC_CFGR, 15u << 4, 8u << 4); /* half speed for the step up, at least 1 us (RM0432, 5.1.8) */
    tr_set_bits(RCC_CFGR, 3u, 3u);
    const uint32_t switched = tr_wait(RCC_CFGR, 3u << 2, 3u << 2);
    for (volatile uint32_t pause = 0; pause < 100u; pause++) {
    }
    tr_set_bits(RCC_CFGR, 15u << 4, 0u);
    return switched != 0u ? TR_CLOCK_HZ : RESET_HZ;
}

uint32_t tr_family_console(uint32_t core_hz)
{
    tr_set_bits(RCC_AHB2ENR, 0u, (1u << (TR_CONSOLE_TX >> 8)) | (1u << (TR_CONSOLE_RX >> 8)));
    if ((TR_CONSOLE_TX >> 8) == PORT_G) {
        tr_set_bits(PWR_CR2, 0u, 1u << 9); /* PG2 to PG15 hang on VddIO2, which counts as absent until said */
    }
    if (TR_CONSOLE_BASE == LPUART1) {
        tr_set_bits(RCC_APB1ENR2, 0u, 1u << 0);
    } else if (TR_CONSOLE_BASE == USART1) {
        tr_set_bits(RCC_APB2ENR, 0u, 1u << 14);
    } else {
        tr_set_bits(RCC_APB1ENR1, 0u, 1u << (17u + (((TR_CONSOLE_BASE - USART2) >> 10) & 7u))); /* USART2 to UART5 */
    }
    return core_hz;
}

uintptr_t tr_family_gpio(uint32_t pin)
{
    return 0x48000000u + 0x400u * (pin >> 8);
}
