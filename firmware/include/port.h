/* What the runtime asks of a chip: one small set of functions, written once per family in ports/. */
#ifndef TR_PORT_H
#define TR_PORT_H

#include <stdint.h>

/* Clock to full speed, flash wait states, caches, console at 115200 baud 8N1, cycle counter. Call it first. */
void tr_port_init(void);

/* The frequency in Hz that the core runs at now: the board's, or the internal oscillator's where set-up failed. */
uint32_t tr_port_clock_hz(void);

/* CPU cycles since some moment, modulo 2^32. Where tr_port_cycle_counter_ok() is 0: zero for ever, or the host's timer. */
uint32_t tr_port_cycles(void);

/* 1 when a counter of CPU cycles exists and was seen to move, else 0. */
uint32_t tr_port_cycle_counter_ok(void);

/* The next byte of the console (0 to 255), or -1 when none is waiting. Never blocks. */
int32_t tr_port_read(void);

/* Sends one byte; waits (bounded) until the console takes it. */
void tr_port_write(uint8_t byte);

/* Ends the program: semihosting exit with `code` under a debugger or simulator, an endless loop on a bare board. */
_Noreturn void tr_port_halt(int32_t code);

/* Called by the generated model before operator `index`, and once with the number of operators at the end. */
void tr_mark(uint32_t index);

/* Stack use (startup.c): paint the free SRAM below the stack pointer; then bytes from the top to the deepest mark. */
void tr_stack_paint(void);
uint32_t tr_stack_used_bytes(void);

#endif
