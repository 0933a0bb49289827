/*
 * The part of a port that all Cortex-M boards share: cycle counter, semihosting exit; and of an STM32: pins, console.
 * Registers: Armv7-M and Armv8-M reference manuals (DWT, debug), ST reference manuals (GPIO, USART).
 */
#include "board.h"
#include "cortex_m.h"
#include "port.h"

#define BAUD 115200u
/* The divider of an LPUART counts 1/256 of a clock, that of the other USARTs whole ones. */
#define CONSOLE_IS_LPUART (TR_CONSOLE_BASE == 0x40008000u || TR_CONSOLE_BASE == 0x46002400u)

/* The two generations of USART differ in the order of their registers. */
#if TR_CONSOLE_VERSION == 1
#define USART_STATUS (TR_CONSOLE_BASE + 0x00u)
#define USART_RECEIVE (TR_CONSOLE_BASE + 0x04u)
#define USART_SEND (TR_CONSOLE_BASE + 0x04u)
#define USART_BRR (TR_CONSOLE_BASE + 0x08u)
#define USART_CR1 (TR_CONSOLE_BASE + 0x0Cu)
#define USART_ENABLE ((1u << 13) | (3u << 2)) /* UE, TE, RE */
#else
#define USART_STATUS (TR_CONSOLE_BASE + 0x1Cu)
#define USART_CLEAR (TR_CONSOLE_BASE + 0x20u)
#define USART_RECEIVE (TR_CONSOLE_BASE + 0x24u)
#define USART_SEND (TR_CONSOLE_BASE + 0x28u)
#define USART_BRR (TR_CONSOLE_BASE + 0x0Cu)
#define USART_CR1 (TR_CONSOLE_BASE + 0x00u)
#define USART_ENABLE ((1u << 0) | (3u << 2))
#endif
#define STATUS_OVERRUN (1u << 3)
#define STATUS_RECEIVED (1u << 5)
#define STATUS_SEND_EMPTY (1u << 7)

#define DEMCR 0xE000EDFCu
#define DEMCR_TRACE (1u << 24)
#define DWT_CTRL 0xE0001000u
#define DWT_CYCCNT 0xE0001004u
#define DWT_LOCK 0xE0001FB0u
#define DWT_NO_COUNTER (1u << 25)

#define SYS_EXIT 0x18u
#define SYS_EXIT_EXTENDED 0x20u
#define STOPPED_APPLICATION_EXIT 0x20026u

static uint32_t clock_hz;
static uint32_t counter_ok;
static volatile uint32_t halting;

uint32_t tr_wait(uintptr_t address, uint32_t mask, uint32_t value)
{
    for (uint32_t tries = 0; tries < TR_WAIT_TRIES; tries++) {
        if ((TR_REG(address) & mask) == value) {
            return 1u;
        }
    }
    return 0u;
}

void tr_set_bits(uintptr_t address, uint32_t mask, uint32_t value)
{
    TR_REG(address) = (TR_REG(address) & ~mask) | value;
    (void)TR_REG(address); /* read back: a clock that was just enabled needs two cycles before its peripheral answers */
}

#if TR_CONSOLE_VERSION != 0
static void set_pin(uint32_t pin)
{
    const uintptr_t gpio = tr_family_gpio(pin);
    const uint32_t number = (pin >> 4) & 15u;
    const uint32_t nibble = 4u * (number & 7u);
    tr_set_bits(gpio + (number < 8u ? 0x20u : 0x24u), 15u << nibble, (pin & 15u) << nibble); /* AFRL, AFRH */
    tr_set_bits(gpio + 0x0Cu, 3u << (2u * number), 1u << (2u * number));                     /* PUPDR: pull up */
    tr_set_bits(gpio + 0x00u, 3u << (2u * number), 2u << (2u * number));                     /* MODER: alternate */
}

static void start_console(uint32_t input_hz)
{
    set_pin(TR_CONSOLE_TX);
    set_pin(TR_CONSOLE_RX);
    const uint32_t scale = CONSOLE_IS_LPUART ? 256u : 1u;
    TR_REG(USART_CR1) = 0u;
    TR_REG(USART_BRR) = input_hz / BAUD * scale + (input_hz % BAUD * scale + BAUD / 2u) / BAUD;
    TR_REG(USART_CR1) = USART_ENABLE;
}

int32_t tr_port_read(void)
{
    const uint32_t status = TR_REG(USART_STATUS);
#ifdef USART_CLEAR
    if ((status & STATUS_OVERRUN) != 0u) {
        TR_REG(USART_CLEAR) = STATUS_OVERRUN; /* version 1 clears it by the read below */
    }
#endif
    return (status & (STATUS_RECEIVED | STATUS_OVERRUN)) != 0u ? (int32_t)(TR_REG(USART_RECEIVE) & 0xFFu) : -1;
}

void tr_port_write(uint8_t byte)
{
    (void)tr_wait(USART_STATUS, STATUS_SEND_EMPTY, STATUS_SEND_EMPTY);
    TR_REG(USART_SEND) = byte;
}
#else
#define start_console(input_hz) ((void)(input_hz)) /* the family's file has its own */
#endif

static void start_counter(void)
{
    tr_set_bits(DEMCR, 0u, DEMCR_TRACE);
    TR_REG(DWT_LOCK) = 0xC5ACCE55u; /* Cortex-M7 locks the unit; elsewhere the write is ignored */
    counter_ok = 0u;
    if ((TR_REG(DWT_CTRL) & DWT_NO_COUNTER) != 0u) {
        return;
    }
    TR_REG(DWT_CYCCNT) = 0u;
    tr_set_bits(DWT_CTRL, 0u, 1u);
    const uint32_t before = TR_REG(DWT_CYCCNT);
    __asm volatile("nop\n\tnop\n\tnop\n\tnop");
    counter_ok = TR_REG(DWT_CYCCNT) != before ? 1u : 0u;
}

void tr_port_init(void)
{
    clock_hz = tr_family_clock();
    start_console(tr_family_console(clock_hz));
    start_counter();
}

uint32_t tr_port_clock_hz(void)
{
    return clock_hz;
}

uint32_t tr_port_cycles(void)
{
    return counter_ok != 0u ? TR_REG(DWT_CYCCNT) : 0u;
}

uint32_t tr_port_cycle_counter_ok(void)
{
    return counter_ok;
}

/*
 * Without a debugger the breakpoint raises a fault, whose handler comes back here and finds `halting` set;
 * so a bare board ends in the loop, and no debug register (which emulators lack) is asked.
 */
_Noreturn void tr_port_halt(int32_t code)
{
    const struct {
        uint32_t reason;
        int32_t code;
    } extended = {STOPPED_APPLICATION_EXIT, code};
    if (halting == 0u) {
        halting = 1u;
        register uint32_t operation __asm("r0") = code == 0 ? SYS_EXIT : SYS_EXIT_EXTENDED;
        register uint32_t argument __asm("r1") = code == 0 ? STOPPED_APPLICATION_EXIT : (uint32_t)&extended;
        __asm volatile("bkpt 0xAB" : "+r"(operation) : "r"(argument) : "memory");
    }
    for (;;) {
    }
}
