/*
 * From reset to main(), for every Cortex-M board: vector table, .data, .bss, FPU, stack paint.
 * The linker script (boards/) gives the symbols below. Nothing here uses an interrupt, so the
 * table ends after the sixteen entries of the core; an exception reports itself and halts.
 */
#include "board.h"
#include "port.h"

extern uint32_t tr_data_load[], tr_data_start[], tr_data_end[]; /* .data: where it is stored, where it lives */
extern uint32_t tr_bss_start[], tr_bss_end[];
extern uint32_t tr_code_load[], tr_code_start[], tr_code_end[];          /* hot kernels and weights that the compiler */
extern uint32_t tr_weights_load[], tr_weights_start[], tr_weights_end[]; /* has put into idle RAM: as .data */
extern uint32_t tr_stack_limit[], _estack[]; /* free SRAM: from the end of .bss to the top of the stack */

int main(void);
_Noreturn void Reset_Handler(void);
_Noreturn void tr_exception(void);

#define STACK_PAINT 0xA5A5A5A5u
#define SCB_VTOR (*(volatile uint32_t *)0xE000ED08u)
#define SCB_CPACR (*(volatile uint32_t *)0xE000ED88u)

typedef void (*vector)(void);

__attribute__((section(".isr_vector"), used)) static const struct {
    uint32_t *stack_top;
    vector handlers[15];
} vectors = {
    _estack,
    {Reset_Handler, tr_exception, tr_exception, tr_exception, tr_exception, tr_exception, tr_exception, tr_exception,
     tr_exception, tr_exception, tr_exception, tr_exception, tr_exception, tr_exception, tr_exception},
};

static uint32_t *stack_pointer(void)
{
    uint32_t *pointer;
    __asm volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

void tr_stack_paint(void)
{
    /* volatile: the compiler must not turn the loop into a call of memset, whose frame would be painted over. */
    uint32_t *const end = stack_pointer();
    for (volatile uint32_t *word = tr_stack_limit; word < end; word++) {
        *word = STACK_PAINT;
    }
}

uint32_t tr_stack_used_bytes(void)
{
    const volatile uint32_t *word = tr_stack_limit;
    while (word < _estack && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)_estack - (uintptr_t)word);
}

static void write_text(const char *text)
{
    for (; *text != '\0'; text++) {
        tr_port_write((uint8_t)*text);
    }
}

static void write_hex(uint32_t value)
{
    for (int32_t shift = 28; shift >= 0; shift -= 4) {
        tr_port_write((uint8_t)"0123456789abcdef"[(value >> shift) & 15u]);
    }
}

__attribute__((used)) _Noreturn static void report_exception(const uint32_t *frame)
{
    uint32_t number;
    __asm volatile("mrs %0, ipsr" : "=r"(number));
    write_text("\ntinyredux FAULT exception=");
    write_hex(number);
    write_text(" pc=");
    write_hex(frame[6]);
    write_text(" lr=");
    write_hex(frame[5]);
    write_text("\n");
    tr_port_halt((int32_t)(128u + number));
}

/* Hands the frame that the core stacked to report_exception; naked, so that sp is still its address. */
__attribute__((naked)) _Noreturn void tr_exception(void)
{
    __asm volatile("mov r0, sp\n\tb report_exception");
}

static void copy(uint32_t *to, const uint32_t *end, const uint32_t *from)
{
    while (to < end) {
        *to++ = *from++;
    }
}

_Noreturn void Reset_Handler(void)
{
    SCB_VTOR = (uint32_t)&vectors;
    SCB_CPACR |= 0xFu << 20; /* FPU on: code compiled for it may use it from here */
    __asm volatile("dsb\n\tisb" ::: "memory");
    copy(tr_data_start, tr_data_end, tr_data_load);
    for (uint32_t *to = tr_bss_start; to < tr_bss_end; to++) {
        *to = 0u;
    }
#ifdef TR_COPIES_CODE
    copy(tr_code_start, tr_code_end, tr_code_load);
    __asm volatile("dsb\n\tisb" ::: "memory"); /* before it runs */
#endif
#ifdef TR_COPIES_WEIGHTS
    copy(tr_weights_start, tr_weights_end, tr_weights_load);
#endif
    tr_stack_paint();
    tr_port_halt(main());
}
