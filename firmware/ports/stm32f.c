/* Clock tree and addresses that STM32F4 and STM32F7 share (reference manuals RM0386, RM0090, RM0368, RM0390, RM0385). */
#include "board.h"
#include "cortex_m.h"
#include "stm32f.h"

#define RCC_CR 0x40023800u
#define RCC_PLLCFGR 0x40023804u
#define RCC_CFGR 0x40023808u
#define RCC_AHB1ENR 0x40023830u
#define RCC_APB1ENR 0x40023840u
#define RCC_APB2ENR 0x40023844u
#define PWR_CR 0x40007000u
#define PWR_CSR 0x40007004u
#define FLASH_ACR 0x40023C00u

#define HSI_HZ 16000000u
#define OVER_DRIVE_ABOVE_HZ 168000000u
#define VOLTAGE_SCALE (TR_CLOCK_HZ > 84000000u ? 3u : 2u) /* an STM32F401 has no scale 1 (RM0368, PWR_CR) */
#define PLL_DIVIDER (TR_CLOCK_HZ < 96000000u ? 4u : 2u)   /* the PLL runs at 192 MHz or more */
#define APB1_DIVIDER (TR_CLOCK_HZ > 100000000u ? 4u : 2u)
#define APB2_START 0x40010000u
#define USART1 0x40011000u
#define USART2 0x40004400u

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

/* Over-drive of the regulator; 0 when the hardware does not answer. */
static uint32_t over_drive(void)
{
    if (TR_CLOCK_HZ <= OVER_DRIVE_ABOVE_HZ) {
        return 1u;
    }
    tr_set_bits(PWR_CR, 0u, 1u << 16);
    if (tr_wait(PWR_CSR, 1u << 16, 1u << 16) == 0u) {
        return 0u;
    }
    tr_set_bits(PWR_CR, 0u, 1u << 17);
    return tr_wait(PWR_CSR, 1u << 17, 1u << 17);
}

uint32_t tr_family_clock(void)
{
    TR_REG(FLASH_ACR) = tr_family_caches() | TR_FLASH_WAIT_STATES;
    tr_set_bits(RCC_APB1ENR, 0u, 1u << 28); /* PWR */
    tr_set_bits(PWR_CR, 3u << 14, VOLTAGE_SCALE << 14);
    const uint32_t input_hz = start_oscillator();
    const uint32_t external = input_hz == TR_OSCILLATOR_HZ ? 1u : 0u;
    const uint32_t m = input_hz / 2000000u; /* 2 MHz into the PLL, two or four times the core clock out of it */
    const uint32_t n = PLL_DIVIDER / 2u * (TR_CLOCK_HZ / 1000000u);
    TR_REG(RCC_PLLCFGR) = m | (n << 6) | ((PLL_DIVIDER / 2u - 1u) << 16) | (external << 22) | (9u << 24) | (2u << 28);
    tr_set_bits(RCC_CR, 0u, 1u << 24);
    if (over_drive() == 0u || tr_wait(RCC_CR, 1u << 25, 1u << 25) == 0u) {
        return HSI_HZ;
    }
    tr_set_bits(RCC_CFGR, (7u << 10) | (7u << 13), (APB1_DIVIDER == 4u ? 5u : 4u) << 10 | 4u << 13); /* APB2: by two */
    tr_set_bits(RCC_CFGR, 3u, 2u);
    return tr_wait(RCC_CFGR, 3u << 2, 2u << 2) != 0u ? TR_CLOCK_HZ : HSI_HZ;
}

uint32_t tr_family_console(uint32_t core_hz)
{
    const uint32_t fast = core_hz == TR_CLOCK_HZ ? 1u : 0u; /* else the bus dividers were left at one */
    tr_set_bits(RCC_AHB1ENR, 0u, (1u << (TR_CONSOLE_TX >> 8)) | (1u << (TR_CONSOLE_RX >> 8)));
    if (TR_CONSOLE_BASE >= APB2_START) {
        tr_set_bits(RCC_APB2ENR, 0u, TR_CONSOLE_BASE == USART1 ? 1u << 4 : 1u << 5);
        return fast != 0u ? core_hz / 2u : core_hz;
    }
    tr_set_bits(RCC_APB1ENR, 0u, 1u << (17u + (((TR_CONSOLE_BASE - USART2) >> 10) & 7u))); /* USART2 to UART5 in order */
    return fast != 0u ? core_hz / APB1_DIVIDER : core_hz;
}

uintptr_t tr_family_gpio(uint32_t pin)
{
    return 0x40020000u + 0x400u * (pin >> 8);
}
