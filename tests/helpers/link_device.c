/* A board for test_link.py: port.h on standard input and output of a process, and a model of two operators whose output and whose
 * cycle counts follow from the input by simple rules, so that the test knows both. SIGHUP is the reset button. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "model.h"
#include "port.h"

int8_t tr_arena[TR_ARENA_BYTES + TR_SCRATCH_BYTES];
const char *const tr_op_names[TR_OP_COUNT] = {"first", "second"};
static uint32_t fake_cycles; /* what the counter shows inside the model; 0: real time */
static uint8_t waiting[256];
static size_t waiting_bytes;

int8_t *tr_input(void)
{
    return tr_arena;
}

const int8_t *tr_output(void)
{
    return tr_arena;
}

/* output[i] = input[i] ^ sum of the input; written over the input. Cycles: 1000 + sum and 500, across the counter's wrap. */
void tr_model_run(void)
{
    uint32_t sum = 0;
    const char *const slow = getenv("LINK_DEVICE_RUN_MS");
    if (slow != NULL) {
        poll(NULL, 0, atoi(slow));
    }
    for (uint32_t i = 0; i < TR_INPUT_BYTES; i++) {
        sum += (uint8_t)tr_arena[i];
    }
    fake_cycles = UINT32_MAX - 200u;
    tr_mark(0);
    for (uint32_t i = 0; i < TR_OUTPUT_BYTES; i++) {
        tr_arena[i] = (int8_t)((uint8_t)tr_arena[i] ^ (uint8_t)sum);
    }
    fake_cycles += 1000u + (uint8_t)sum;
    tr_mark(1);
    fake_cycles += 500u;
    tr_mark(2);
    fake_cycles = 0;
}

static void reset(int signal_number)
{
    signal(signal_number, SIG_IGN); /* which outlives exec: a second press during the start must not end the process */
    execl("/proc/self/exe", "device", (char *)NULL);
    _exit(1);
}

void tr_port_init(void)
{
    struct sigaction action = {.sa_handler = reset, .sa_flags = SA_NODEFER};
    sigaction(SIGHUP, &action, NULL);
    fcntl(0, F_SETFL, O_NONBLOCK);
}

uint32_t tr_port_clock_hz(void)
{
    return 1000000000u;
}

uint32_t tr_port_cycles(void)
{
    struct timespec now;
    if (fake_cycles != 0) {
        return fake_cycles;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

uint32_t tr_port_cycle_counter_ok(void)
{
    return 1;
}

uint32_t tr_stack_used_bytes(void)
{
    return 1234;
}

int32_t tr_port_read(void)
{
    uint8_t byte;
    const ssize_t n = read(0, &byte, 1);
    if (n == 1) {
        return byte;
    }
    if (n == 0 || errno != EAGAIN) {
        _exit(0); /* the cable is gone */
    }
    struct pollfd input = {.fd = 0, .events = POLLIN};
    poll(&input, 1, 1);
    return -1;
}

void tr_port_write(uint8_t byte)
{
    waiting[waiting_bytes++] = byte;
    if (byte == '\n' || waiting_bytes == sizeof waiting) {
        if (write(1, waiting, waiting_bytes) < 0) {
            _exit(0);
        }
        waiting_bytes = 0;
    }
}

_Noreturn void tr_port_halt(int32_t code)
{
    exit(code);
}
