/*
 * Kernels against vectors that the interpreter wrote (tests/helpers/kernel_vectors.py), on this computer and on the emulated board:
 * `pio test -e native -e emulator`. Each vector prints "PASS name" or "FAIL name: why"; "END" closes the run
 * (test_custom_runner.py reads them).
 */
#include "port.h"
#include "vectors.h"

#define UNTOUCHED 0x55
#define BEHIND 16 /* bytes behind the output and behind the scratch that nobody may write */

static int8_t output[VECTORS_MOST_OUTPUT + BEHIND];
static int32_t scratch[(VECTORS_MOST_SCRATCH + 3) / 4 + BEHIND / 4];

static void write_text(const char *text)
{
    for (; *text != '\0'; text++) {
        tr_port_write((uint8_t)*text);
    }
}

static int32_t untouched(const int8_t *from)
{
    int32_t count = 0;
    while (count < BEHIND && from[count] == UNTOUCHED) {
        count++;
    }
    return count == BEHIND;
}

/* Returns what is wrong with a vector's kernel, 0 if nothing. */
static const char *fault(const struct vector *vector)
{
    for (uint32_t i = 0; i < sizeof output; i++) {
        output[i] = UNTOUCHED;
    }
    for (uint32_t i = 0; i < sizeof scratch; i++) {
        ((int8_t *)scratch)[i] = UNTOUCHED;
    }
    vector->run(output, scratch);
    for (int32_t i = 0; i < vector->bytes; i++) {
        if (output[i] != vector->expected[i]) {
            return "a byte differs from the interpreter's";
        }
    }
    if (!untouched(output + vector->bytes)) {
        return "it wrote behind its output";
    }
    return untouched((const int8_t *)scratch + (vector->scratch_bytes + 3) / 4 * 4) ? 0 : "it wrote behind its scratch";
}

int main(void)
{
    int32_t failures = 0;
    tr_port_init();
    for (int32_t i = 0; i < VECTORS; i++) {
        const char *why = fault(&vectors[i]);
        failures += why != 0;
        write_text(why ? "FAIL " : "PASS ");
        write_text(vectors[i].name);
        write_text(why ? ": " : "");
        write_text(why ? why : "");
        write_text("\n");
    }
    write_text("END\n");
    tr_port_halt(failures == 0 ? 0 : 1);
}
