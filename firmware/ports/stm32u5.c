/* STM32U5 (reference manual RM0456): PLL1 from HSI16, voltage range 1 with booster, ICACHE on. */
#include "board.h"
#include "cortex_m.h"

#define RCC_CR 0x46020C00u
#define RCC_CFGR1 0x46020C1Cu
#define RCC_PLL1CFGR 0x46020C28u
#define RCC_PLL1DIVR 0x46020C34u
#define RCC_AHB2ENR1 0x46020C8Cu
#define RCC_AHB3ENR 0x46020C94u
#define RCC_APB1ENR1 0x46020C9Cu
#define RCC_APB2ENR 0x46020CA4u
#define RCC_APB3ENR 0x46020CA8u
#define PWR_VOSR 0x4602080Cu
#define PWR_SVMCR 0x46020810u
#define FLASH_ACR 0x40022000u
#define ICACHE_CR 0x40030400u
#define ICACHE_SR 0x40030404u

#define RESET_HZ 4000000u /* MSIS after reset */
#define LPUART1 0x46002400u
#define USART1 0x40013800u
#define USART2 0x40004400u
#define PORT_G 6u

/* Voltage range 1, and the booster that it needs above 55 MHz; 0 when the hardware does not answer. */
static uint32_t power_up(void)
{
    tr_set_bits(RCC_AHB3ENR, 0u, 1u << 2); /* PWR */
    tr_set_bits(PWR_VOSR, 3u << 16, 3u << 16);
    if (tr_wait(PWR_VOSR, 1u << 15, 1u << 15) == 0u) {
        return 0u;
    }
    tr_set_bits(RCC_CR, 0u, 1u << 8); /* HSI16 */
    if (tr_wait(RCC_CR, 1u << 10, 1u << 10) == 0u) {
        return 0u;
    }
    /* HSI16 / 4 = 4 MHz into the PLL, / 2 = 8 MHz into the booster, output R on. */
    TR_REG(RCC_PLL1CFGR) = 2u | (3u << 8) | (1u << 12) | (1u << 18);
    tr_set_bits(PWR_VOSR, 0u, 1u << 18);
    return tr_wait(PWR_VOSR, 1u << 14, 1u << 14);
}

uint32_t tr_family_clock(void)
{
    TR_REG(FLASH_ACR) = (1u << 8) | TR_FLASH_WAIT_STATES; /* prefetch */
    (void)tr_wait(ICACHE_SR, 1u, 0u);                     /* it invalidates itself after reset */
    tr_set_bits(ICACHE_CR, 0u, 1u);
    if (power_up() == 0u) {
        return RESET_HZ;
    }
    const uint32_t n = TR_CLOCK_HZ / 2000000u; /* twice the core clock out of the PLL, divided by two */
    TR_REG(RCC_PLL1DIVR) = (n - 1u) | (1u << 9) | (1u << 16) | (1u << 24);
    tr_set_bits(RCC_CR, 0u, 1u << 24);
    if (tr_wait(RCC_CR, 1u << 25, 1u << 25) == 0u) {
        return RESET_HZ;
    }
    tr_set_bits(RCC_CFGR1, 3u, 3u);
    return tr_wait(RCC_CFGR1, 3u << 2, 3u << 2) != 0u ? TR_CLOCK_HZ : RESET_HZ;
}

uint32_t tr_family_console(uint32_t core_hz)
{
    tr_set_bits(RCC_AHB2ENR1, 0u, (1u << (TR_CONSOLE_TX >> 8)) | (1u << (TR_CONSOLE_RX >> 8)));
    if ((TR_CONSOLE_TX >> 8) == PORT_G) {
        tr_set_bits(PWR_SVMCR, 0u, 1u << 29); /* PG2 to PG15 hang on VddIO2, which counts as absent until said */
    }
    if (TR_CONSOLE_BASE == LPUART1) {
        tr_set_bits(RCC_APB3ENR, 0u, 1u << 6);
    } else if (TR_CONSOLE_BASE == USART1) {
        tr_set_bits(RCC_APB2ENR, 0u, 1u << 14);
    } else {
        tr_set_bits(RCC_APB1ENR1, 0u, 1u << (17u + (((TR_CONSOLE_BASE - USART2) >> 10) & 7u))); /* USART2 to UART5 */
    }
    return core_hz;
}

uintptr_t tr_family_gpio(uint32_t pin)
{
    return 0x42020000u + 0x400u * (pin >> 8);
}
