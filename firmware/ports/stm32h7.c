/*
 * STM32H742, H743, H750, H753 (reference manual RM0433): LDO, voltage scale 1, PLL1, at most 400 MHz, buses at half the core's clock.
 * The caches of the core are those of stm32f7.c.
 */
#include "board.h"
#include "cortex_m.h"
#include "stm32f.h"

#define RCC_CR 0x58024400u
#define RCC_CFGR 0x58024410u
#define RCC_D1CFGR 0x58024418u
#define RCC_D2CFGR 0x5802441Cu
#define RCC_D3CFGR 0x58024420u
#define RCC_PLLCKSELR 0x58024428u
#define RCC_PLLCFGR 0x5802442Cu
#define RCC_PLL1DIVR 0x58024430u
#define RCC_AHB4ENR 0x580244E0u
#define RCC_APB1LENR 0x580244E8u
#define RCC_APB2ENR 0x580244F0u
#define PWR_CSR1 0x58024804u
#define PWR_CR3 0x5802480Cu
#define PWR_D3CR 0x58024818u
#define FLASH_ACR 0x52002000u

#define HSI_HZ 64000000u
#define APB2_START 0x40010000u
#define USART1 0x40011000u
#define USART2 0x40004400u

#if TR_CLOCK_HZ > 400000000u
#error "an STM32H7 above 400 MHz needs voltage scale 0, which this port does not set; set clock_hz to 400000000 or less"
#endif

/* Supply by the LDO, voltage scale 1; 0 when the hardware does not answer. (RM0433, PWR_CR3 and PWR_D3CR) */
static uint32_t power_up(void)
{
    tr_set_bits(PWR_CR3, 7u, 2u); /* once after power-on; later writes change nothing */
    if (tr_wait(PWR_CSR1, 1u << 13, 1u << 13) == 0u) {
        return 0u;
    }
    tr_set_bits(PWR_D3CR, 3u << 14, 3u << 14);
    return tr_wait(PWR_D3CR, 1u << 13, 1u << 13);
}

/* Starts the oscillator that feeds the PLL; returns its frequency. */
static uint32_t start_oscillator(void)
{
    if (TR_OSCILLATOR_HZ != 0u) {
        tr_set_bits(RCC_CR, 1u << 18, TR_OSCILLATOR_BYPASS << 18);
        tr_set_bits(RCC_CR, 0u, 1u << 16);
        if (tr_wait(RCC_CR, 1u << 17, 1u << 17) != 0u) {
            return TR_OSCILLATOR_HZ;
        }
    }
    return HSI_HZ;
}

uint32_t tr_family_clock(void)
{
    (void)tr_family_caches(); /* of the core; its bits are for another flash interface */
    if (power_up() == 0u) {
        return HSI_HZ;
    }
    TR_REG(FLASH_ACR) = (2u << 4) | TR_FLASH_WAIT_STATES; /* programming delay for an AXI clock up to 210 MHz (RM0433, flash) */
    const uint32_t input_hz = start_oscillator();
    const uint32_t into_hz = input_hz % 4000000u == 0u ? 4000000u : 5000000u; /* 4 to 8 MHz into the PLL, and its wide range */
    const uint32_t n = 2u * (TR_CLOCK_HZ / into_hz);
    TR_REG(RCC_PLLCKSELR) = (input_hz / into_hz << 4) | (input_hz == HSI_HZ ? 0u : 2u);
    TR_REG(RCC_PLLCFGR) = (2u << 2) | (1u << 16);             /* input range, output P on */
    TR_REG(RCC_PLL1DIVR) = (n - 1u) | (1u << 9) | (1u << 16) | (1u << 24); /* twice the core clock, divided by two */
    tr_set_bits(RCC_CR, 0u, 1u << 24);
    if (tr_wait(RCC_CR, 1u << 25, 1u << 25) == 0u) {
        return HSI_HZ;
    }
    TR_REG(RCC_D1CFGR) = 8u | (4u << 4);        /* AXI and AHB at half, APB3 at a quarter of the core's clock */
    TR_REG(RCC_D2CFGR) = (4u << 4) | (4u << 8); /* APB1, APB2 */
    TR_REG(RCC_D3CFGR) = 4u << 4;               /* APB4 */
    tr_set_bits(RCC_CFGR, 7u, 3u);
    return tr_wait(RCC_CFGR, 7u << 3, 3u << 3) != 0u ? TR_CLOCK_HZ : HSI_HZ;
}

uint32_t tr_family_console(uint32_t core_hz)
{
    const uint32_t fast = core_hz == TR_CLOCK_HZ ? 1u : 0u; /* else the bus dividers were left at one */
    tr_set_bits(RCC_AHB4ENR, 0u, (1u << (TR_CONSOLE_TX >> 8)) | (1u << (TR_CONSOLE_RX >> 8)));
    if (TR_CONSOLE_BASE >= APB2_START) {
        tr_set_bits(RCC_APB2ENR, 0u, TR_CONSOLE_BASE == USART1 ? 1u << 4 : 1u << 5);
    } else {
        tr_set_bits(RCC_APB1LENR, 0u, 1u << (17u + (((TR_CONSOLE_BASE - USART2) >> 10) & 7u))); /* USART2 to UART5 in order */
    }
    return fast != 0u ? core_hz / 4u : core_hz;
}

uintptr_t tr_family_gpio(uint32_t pin)
{
    return 0x58020000u + 0x400u * (pin >> 8);
}
