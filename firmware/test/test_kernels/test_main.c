/*
 * Kernels against plain loops written here, on this computer and on the emulated board: `pio test -e native -e emulator`.
 * Each case prints "PASS name" or "FAIL name: why"; "END" closes the run (test_custom_runner.py reads them).
 */
#include "port.h"
#include "requantize.h"
#include "tinyredux.h"

#define IN_H 5
#define IN_W 4
#define IN_C 5
#define OUT_C 3
#define MULTIPLIER 1518500250
#define SHIFT (-7)
#define ZERO_IN (-3)
#define ZERO_OUT 4

static int8_t input[IN_H * IN_W * IN_C];
static int8_t weights[OUT_C * 3 * 3 * IN_C];
static int32_t bias[IN_H * IN_W * IN_C];
static int32_t multipliers[IN_H * IN_W * IN_C], shifts[IN_H * IN_W * IN_C];
static int8_t output[IN_H * IN_W * IN_C], expected[IN_H * IN_W * IN_C];
static int16_t scratch[TR_CONV_SCRATCH_BYTES(3, 3, IN_C, 1, 0) / 2];
static uint32_t failures;

static void write_text(const char *text)
{
    for (; *text != '\0'; text++) {
        tr_port_write((uint8_t)*text);
    }
}

static void report(const char *name, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (output[i] != expected[i]) {
            failures++;
            write_text("FAIL ");
            write_text(name);
            write_text(": a byte differs from the plain loop's\n");
            return;
        }
    }
    write_text("PASS ");
    write_text(name);
    write_text("\n");
}

static void fill(void)
{
    uint32_t state = 1u;
    for (uint32_t i = 0; i < sizeof input + sizeof weights; i++) {
        state = state * 1664525u + 1013904223u;
        const int32_t value = (int32_t)(state >> 24) - 128;
        if (i < sizeof input) {
            input[i] = (int8_t)value;
        } else {
            weights[i - sizeof input] = (int8_t)tr_max(value, -127);
        }
    }
    for (int32_t i = 0; i < IN_H * IN_W * IN_C; i++) {
        bias[i] = 37 * i - 500;
        multipliers[i] = MULTIPLIER;
        shifts[i] = SHIFT - i % 2;
    }
}

static int32_t convolved(int32_t h, int32_t w, int32_t k)
{
    int32_t sum = bias[k];
    for (int32_t i = 0; i < 3 * 3 * IN_C; i++) {
        const int32_t row = h + i / (3 * IN_C) - 1;
        const int32_t column = w + i / IN_C % 3 - 1;
        if (row >= 0 && row < IN_H && column >= 0 && column < IN_W) {
            sum += (input[(row * IN_W + column) * IN_C + i % IN_C] - ZERO_IN) * weights[k * 3 * 3 * IN_C + i];
        }
    }
    return sum;
}

static void test_conv(void)
{
    const struct tr_conv conv = {.in_h = IN_H, .in_w = IN_W, .in_c = IN_C, .out_h = IN_H, .out_w = IN_W, .out_c = OUT_C,
                                 .kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1, .pad_top = 1, .pad_left = 1,
                                 .groups = 1, .input_zero_point = ZERO_IN, .output_zero_point = ZERO_OUT,
                                 .activation_min = -128, .activation_max = 127, .multiplier = multipliers, .shift = shifts};
    for (int32_t i = 0; i < IN_H * IN_W * OUT_C; i++) {
        const int32_t k = i % OUT_C;
        const int32_t sum = convolved(i / OUT_C / IN_W, i / OUT_C % IN_W, k);
        expected[i] = tr_requantize_s8(sum, multipliers[k], shifts[k], ZERO_OUT, -128, 127);
    }
    tr_conv_s8(output, input, weights, bias, &conv, scratch);
    report("conv", IN_H * IN_W * OUT_C);
}

static void test_dense(void)
{
    const struct tr_dense dense = {.in_n = 3 * 3 * IN_C, .out_n = OUT_C, .input_zero_point = ZERO_IN,
                                   .output_zero_point = ZERO_OUT, .activation_min = 0, .activation_max = 127,
                                   .multiplier = multipliers, .shift = shifts};
    for (int32_t k = 0; k < OUT_C; k++) {
        int32_t sum = bias[k];
        for (int32_t i = 0; i < 3 * 3 * IN_C; i++) {
            sum += (input[i] - ZERO_IN) * weights[k * 3 * 3 * IN_C + i];
        }
        expected[k] = tr_requantize_s8(sum, multipliers[k], shifts[k], ZERO_OUT, 0, 127);
    }
    tr_dense_s8(output, input, weights, bias, &dense, scratch);
    report("dense", OUT_C);
}

static void test_max_pool(void)
{
    const struct tr_pool pool = {.in_h = IN_H, .in_w = IN_W, .c = IN_C, .out_h = 2, .out_w = 2, .kernel_h = 2, .kernel_w = 2,
                                 .stride_h = 2, .stride_w = 2, .activation_min = -128, .activation_max = 127};
    for (int32_t i = 0; i < 2 * 2 * IN_C; i++) {
        const int8_t *corner = &input[(2 * (i / IN_C / 2) * IN_W + 2 * (i / IN_C % 2)) * IN_C + i % IN_C];
        const int32_t top = tr_max(corner[0], corner[IN_C]);
        const int32_t bottom = tr_max(corner[IN_W * IN_C], corner[(IN_W + 1) * IN_C]);
        expected[i] = (int8_t)tr_max(top, bottom);
    }
    tr_max_pool_s8(output, input, &pool);
    report("max_pool", 2 * 2 * IN_C);
}

int main(void)
{
    tr_port_init();
    fill();
    test_conv();
    test_dense();
    test_max_pool();
    write_text("END\n");
    tr_port_halt(failures == 0u ? 0 : 1);
}
