/*
 * RP2350, its Arm cores (datasheet: clocks, resets, GPIO, UART, bootrom): crystal, PLL, at most 150 MHz. Code and weights are read
 * through the cache of the flash, in the mode and with the divider by which the boot ROM found the program.
 */
#include "board.h"
#include "cortex_m.h"
#include "port.h"

#define CLOCKS_REF_CTRL 0x40010030u
#define CLOCKS_REF_SELECTED 0x40010038u
#define CLOCKS_SYS_CTRL 0x4001003Cu
#define CLOCKS_SYS_SELECTED 0x40010044u
#define CLOCKS_PERI_CTRL 0x40010048u
#define RESETS_RESET 0x40020000u
#define RESETS_DONE 0x40020008u
#define GPIO_CTRL(pin) (0x40028004u + 8u * (pin))
#define PAD(pin) (0x40038004u + 4u * (pin))
#define XOSC_CTRL 0x40048000u
#define XOSC_STATUS 0x40048004u
#define XOSC_STARTUP 0x4004800Cu
#define PLL_CS 0x40050000u
#define PLL_PWR 0x40050004u
#define PLL_FBDIV 0x40050008u
#define PLL_PRIM 0x4005000Cu
#define UART_DATA (TR_CONSOLE_BASE + 0x00u)
#define UART_FLAGS (TR_CONSOLE_BASE + 0x18u)
#define UART_DIVIDER (TR_CONSOLE_BASE + 0x24u)
#define UART_FRACTION (TR_CONSOLE_BASE + 0x28u)
#define UART_LINE (TR_CONSOLE_BASE + 0x2Cu)
#define UART_CONTROL (TR_CONSOLE_BASE + 0x30u)

#define RING_HZ 11000000u /* about what the ring oscillator has after reset */
#define BAUD 115200u
#define UART1 0x40078000u
#define RESET_IO_BANK0 (1u << 6)
#define RESET_PADS_BANK0 (1u << 9)
#define RESET_PLL_SYS (1u << 14)
#define RESET_UART (TR_CONSOLE_BASE == UART1 ? 1u << 27 : 1u << 26)
#define PAD_INPUT ((1u << 6) | (1u << 1)) /* input and Schmitt trigger on; the pad's isolation off */
#define PAD_PULL_UP (1u << 3)
#define FUNCTION_UART 2u
#define FIFO_EMPTY (1u << 4)
#define FIFO_FULL (1u << 5)

#if TR_CLOCK_HZ > 150000000u || TR_CLOCK_HZ < 75000000u
#error "this port clocks an RP2350 with 75 to 150 MHz; set clock_hz to that"
#endif

/* What makes the boot ROM run the program: an image for the Arm cores, beside the vector table (datasheet, minimum viable image). */
__attribute__((section(".isr_vector"), used)) static const uint32_t image_definition[] = {
    0xFFFFDED3u, 0x10210142u, 0x000001FFu, 0u, 0xAB123579u,
};

static uint32_t start(uint32_t blocks)
{
    tr_set_bits(RESETS_RESET, blocks, 0u);
    return tr_wait(RESETS_DONE, blocks, blocks);
}

/* The PLL at ten times the core's clock, divided by five and by two; 0 when it does not lock. */
static uint32_t start_pll(void)
{
    tr_set_bits(RESETS_RESET, 0u, RESET_PLL_SYS);
    if (start(RESET_PLL_SYS) == 0u) {
        return 0u;
    }
    TR_REG(PLL_CS) = 1u;
    TR_REG(PLL_FBDIV) = TR_CLOCK_HZ / (TR_OSCILLATOR_HZ / 10u);
    tr_set_bits(PLL_PWR, (1u << 0) | (1u << 5), 0u);
    if (tr_wait(PLL_CS, 1u << 31, 1u << 31) == 0u) {
        return 0u;
    }
    TR_REG(PLL_PRIM) = (5u << 16) | (2u << 12);
    tr_set_bits(PLL_PWR, 1u << 3, 0u);
    return 1u;
}

uint32_t tr_family_clock(void)
{
    __asm volatile("cpsid i" ::: "memory"); /* startup.c has no vectors for interrupts */
    TR_REG(XOSC_STARTUP) = (TR_OSCILLATOR_HZ / 1000u + 128u) / 256u; /* a millisecond */
    TR_REG(XOSC_CTRL) = 0xAA0u | (0xFABu << 12);                     /* 1 to 15 MHz, on */
    if (tr_wait(XOSC_STATUS, 1u << 31, 1u << 31) == 0u) {
        return RING_HZ;
    }
    tr_set_bits(CLOCKS_SYS_CTRL, 1u, 0u); /* the core on the reference clock, and that on the crystal, while the PLL starts */
    (void)tr_wait(CLOCKS_SYS_SELECTED, 1u, 1u);
    tr_set_bits(CLOCKS_REF_CTRL, 3u, 2u);
    if (tr_wait(CLOCKS_REF_SELECTED, 4u, 4u) == 0u) {
        return RING_HZ;
    }
    if (start_pll() == 0u) {
        return TR_OSCILLATOR_HZ;
    }
    tr_set_bits(CLOCKS_SYS_CTRL, 7u << 5, 0u);
    tr_set_bits(CLOCKS_SYS_CTRL, 0u, 1u);
    return tr_wait(CLOCKS_SYS_SELECTED, 2u, 2u) != 0u ? TR_CLOCK_HZ : TR_OSCILLATOR_HZ;
}

uint32_t tr_family_console(uint32_t core_hz)
{
    TR_REG(CLOCKS_PERI_CTRL) = 1u << 11; /* on, from the core's clock */
    (void)start(RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART);
    const uint32_t divider = (4u * core_hz + BAUD / 2u) / BAUD; /* in 64ths of 16 clocks */
    TR_REG(UART_DIVIDER) = divider >> 6;
    TR_REG(UART_FRACTION) = divider & 63u;
    TR_REG(UART_LINE) = (3u << 5) | (1u << 4); /* eight bits, FIFOs on */
    TR_REG(UART_CONTROL) = (1u << 9) | (1u << 8) | 1u;
    TR_REG(GPIO_CTRL(TR_CONSOLE_TX)) = FUNCTION_UART;
    TR_REG(GPIO_CTRL(TR_CONSOLE_RX)) = FUNCTION_UART;
    TR_REG(PAD(TR_CONSOLE_TX)) = PAD_INPUT | (1u << 4); /* 4 mA */
    TR_REG(PAD(TR_CONSOLE_RX)) = PAD_INPUT | PAD_PULL_UP;
    return core_hz;
}

int32_t tr_port_read(void)
{
    return (TR_REG(UART_FLAGS) & FIFO_EMPTY) == 0u ? (int32_t)(TR_REG(UART_DATA) & 0xFFu) : -1;
}

void tr_port_write(uint8_t byte)
{
    (void)tr_wait(UART_FLAGS, FIFO_FULL, 0u);
    TR_REG(UART_DATA) = byte;
}
