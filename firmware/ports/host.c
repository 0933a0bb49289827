/* The host as a port: the console is standard input and output, a nanosecond timer stands for the cycles. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "port.h"

void tr_port_init(void)
{
}

uint32_t tr_port_clock_hz(void)
{
    return 1000000000u;
}

uint32_t tr_port_cycles(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)now.tv_sec * 1000000000u + (uint32_t)now.tv_nsec;
}

uint32_t tr_port_cycle_counter_ok(void)
{
    return 0u;
}

int32_t tr_port_read(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    uint8_t byte;
    if (poll(&input, 1, 1) <= 0) { /* waits a millisecond, so that an idle program leaves the processor alone */
        return -1;
    }
    const ssize_t count = read(STDIN_FILENO, &byte, 1);
    if (count == 0) {
        tr_port_halt(0); /* the other side has closed the console */
    }
    return count == 1 ? (int32_t)byte : -1;
}

void tr_port_write(uint8_t byte)
{
    if (write(STDOUT_FILENO, &byte, 1) != 1) {
        tr_port_halt(1);
    }
}

_Noreturn void tr_port_halt(int32_t code)
{
    exit((int)code);
}

/* Replaced by the runtime's where there is one; a shared library of kernels and model has none. */
__attribute__((weak)) void tr_mark(uint32_t index)
{
    (void)index;
}

void tr_stack_paint(void)
{
}

uint32_t tr_stack_used_bytes(void)
{
    return 0u;
}
