/*
 * nRF52840 (product specification: CLOCK, NVMC, GPIO, UART, debug): 64 MHz, the crystal for the baud rate, instruction cache on.
 * The console is UART0, the one without DMA.
 */
#include "board.h"
#include "cortex_m.h"
#include "port.h"

#define CLOCK_HFCLKSTART 0x40000000u
#define CLOCK_HFCLKSTARTED 0x40000100u
#define APPROTECT_DISABLE 0x40000558u
#define NVMC_ICACHECNF 0x4001E540u
#define UART_STARTRX (TR_CONSOLE_BASE + 0x000u)
#define UART_STARTTX (TR_CONSOLE_BASE + 0x008u)
#define UART_RXDRDY (TR_CONSOLE_BASE + 0x108u)
#define UART_TXDRDY (TR_CONSOLE_BASE + 0x11Cu)
#define UART_ENABLE (TR_CONSOLE_BASE + 0x500u)
#define UART_PSELTXD (TR_CONSOLE_BASE + 0x50Cu)
#define UART_PSELRXD (TR_CONSOLE_BASE + 0x514u)
#define UART_RXD (TR_CONSOLE_BASE + 0x518u)
#define UART_TXD (TR_CONSOLE_BASE + 0x51Cu)
#define UART_BAUDRATE (TR_CONSOLE_BASE + 0x524u)
#define UART_CONFIG (TR_CONSOLE_BASE + 0x56Cu)
#define BAUD_115200 0x01D7E000u

/* Registers of the port that holds a pin: 32 times the port, plus the pin. */
#define GPIO(pin) (0x50000000u + 0x300u * ((pin) >> 5))
#define GPIO_OUTSET(pin) (GPIO(pin) + 0x508u)
#define GPIO_CONFIG(pin) (GPIO(pin) + 0x700u + 4u * ((pin) & 31u))
#define OUTPUT 3u        /* and its input off */
#define INPUT_PULL_UP 12u

#if TR_CLOCK_HZ != 64000000u
#error "an nRF52840 runs at 64 MHz and at nothing else; set clock_hz to 64000000"
#endif

uint32_t tr_family_clock(void)
{
    __asm volatile("cpsid i" ::: "memory"); /* a bootloader may have left interrupts on, for which startup.c has no vectors */
    TR_REG(APPROTECT_DISABLE) = 0x5Au;      /* lets the debug probe in again, on chips that close the door at reset */
    TR_REG(NVMC_ICACHECNF) = 1u;
    TR_REG(CLOCK_HFCLKSTARTED) = 0u;
    TR_REG(CLOCK_HFCLKSTART) = 1u;
    (void)tr_wait(CLOCK_HFCLKSTARTED, 1u, 1u); /* without the crystal it is 64 MHz all the same, less exactly */
    return TR_CLOCK_HZ;
}

uint32_t tr_family_console(uint32_t core_hz)
{
    TR_REG(GPIO_OUTSET(TR_CONSOLE_TX)) = 1u << (TR_CONSOLE_TX & 31u); /* the line is high while nothing is sent */
    TR_REG(GPIO_CONFIG(TR_CONSOLE_TX)) = OUTPUT;
    TR_REG(GPIO_CONFIG(TR_CONSOLE_RX)) = INPUT_PULL_UP;
    TR_REG(UART_ENABLE) = 0u;
    TR_REG(UART_PSELTXD) = TR_CONSOLE_TX;
    TR_REG(UART_PSELRXD) = TR_CONSOLE_RX;
    TR_REG(UART_BAUDRATE) = BAUD_115200;
    TR_REG(UART_CONFIG) = 0u; /* no parity, no flow control */
    TR_REG(UART_ENABLE) = 4u;
    TR_REG(UART_RXDRDY) = 0u;
    TR_REG(UART_STARTRX) = 1u;
    TR_REG(UART_STARTTX) = 1u;
    return core_hz;
}

int32_t tr_port_read(void)
{
    if (TR_REG(UART_RXDRDY) == 0u) {
        return -1;
    }
    TR_REG(UART_RXDRDY) = 0u; /* before the byte is taken: the next one, which may be there already, says so again */
    return (int32_t)(TR_REG(UART_RXD) & 0xFFu);
}

void tr_port_write(uint8_t byte)
{
    TR_REG(UART_TXDRDY) = 0u;
    TR_REG(UART_TXD) = byte;
    (void)tr_wait(UART_TXDRDY, 1u, 1u);
}
