/* Between cortex_m.c (what all families share) and the family's file (clock tree and addresses). */
#ifndef TR_CORTEX_M_H
#define TR_CORTEX_M_H

#include <stdint.h>

/* The 32-bit register at an address. */
#define TR_REG(address) (*(volatile uint32_t *)(address))

/* A pin in its alternate function, in one number: port letter, pin, function. */
#define TR_PIN(port, pin, function) (((uint32_t)((port) - 'A') << 8) | ((uint32_t)(pin) << 4) | (uint32_t)(function))

/* Tries before a wait for hardware is given up: about 20 ms at 16 MHz, five times what a crystal needs. */
#define TR_WAIT_TRIES 50000u

/* Waits until (register & mask) == value; 1 when it came true, 0 after TR_WAIT_TRIES. */
uint32_t tr_wait(uintptr_t address, uint32_t mask, uint32_t value);

/* Replaces the bits of `mask` in a register. */
void tr_set_bits(uintptr_t address, uint32_t mask, uint32_t value);

/* Each family: clock tree to full speed with wait states and caches. Returns the core frequency reached, in Hz. */
uint32_t tr_family_clock(void);

/* Each family: clocks of the console and of its pins on. Returns the console's clock, in Hz. Without an STM32's USART: the console, too. */
uint32_t tr_family_console(uint32_t core_hz);

/* Each family of STM32: address of the GPIO port that holds TR_PIN number `pin`. */
uintptr_t tr_family_gpio(uint32_t pin);

#endif
