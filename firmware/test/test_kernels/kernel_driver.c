/* kernel_driver.c: one kernel call described by numbers, for test_main.c and for tests/kernels/test_kernels.py.
 *
 * As a host program (TR_DRIVER_MAIN) it reads cases from standard input and writes outputs to standard output. A case is int32 words: number
 * of fields, the fields, the byte size of each of the seven arrays output, input, second (weights, or the second addend),
 * bias, multiplier, shift, vectors; then the bytes of all but the output. Every array has its own malloc, so that AddressSanitizer
 * sees a step outside. On a board's core (no stdio) the simulator calls run_case itself. */
#include "tinyredux.h"

#define ARRAYS 7
#define FIELDS 32

enum operator { CONV, DEPTHWISE, DENSE, MAX_POOL, AVERAGE_POOL, ADD, CONCAT, RELU, SOFTMAX, TREC, DIRECT, ADD_S32, ADD_S16, LOOKUP, SUB, MUL, REARRANGE, SOFTMAX_ONCE, MEAN, KEEP, BILINEAR, LAYER_NORM, ATTENTION, MATMUL, EXTEND };

int32_t scratch_bytes(const int32_t *fields);
void run_case(const int32_t *fields, void *const *arrays, int16_t *scratch);

int32_t scratch_bytes(const int32_t *fields)
{
    const int32_t *f = fields + 1;
    if (fields[0] == TREC) {
        return TR_TREC_SCRATCH_BYTES(f[3] * f[4], f[12], f[13], f[14], f[2], f[15], f[17], f[20], f[21]);
    }
    if (fields[0] == ATTENTION) {
        return TR_ATTENTION_SCRATCH_BYTES(f[2]);
    }
    if (fields[0] == MATMUL) {
        return TR_MATMUL_SCRATCH_BYTES(f[2]);
    }
    if (fields[0] >= DIRECT && fields[0] <= ADD_S16) {
        return 4 * f[3] * f[4] * f[5];
    }
    const int32_t pointwise = f[6] == 1 && f[7] == 1 && f[8] == 1 && f[9] == 1 && f[14] == 1 && f[0] == f[3] && f[1] == f[4];
    return fields[0] == CONV ? TR_CONV_SCRATCH_BYTES(f[6], f[7], f[2], f[14], pointwise) : 0;
}

/* Four numbers that structs hold in 16 bits: strides, and holes between the places that a window sees. */
#define STEPS(f) (uint16_t)(f)[0], (uint16_t)(f)[1], (uint16_t)(f)[2], (uint16_t)(f)[3]

static struct tr_conv conv_of(const int32_t *f, void *const *arrays)
{
    return (struct tr_conv){f[0],  f[1],  f[2],  f[3],  f[4],  f[5],  f[6],      f[7],      STEPS(f + 8), f[12], f[13],
                            f[14], f[15], f[16], f[17], f[18], arrays[4], arrays[5], 0, 0, 0, 0};
}

static void run_conv(const int32_t *f, void *const *arrays, int16_t *scratch)
{
    const struct tr_conv p = conv_of(f, arrays);
    tr_conv_s8(arrays[0], arrays[1], arrays[2], arrays[3], &p, scratch);
}

/* Without scratch, or as sums to which the only slice is added; 16-bit sums are not shifted, so weights must be small. */
static void run_partial(enum operator operator, const int32_t *f, void *const *arrays, int16_t *scratch)
{
    static const int32_t right[64];
    const struct tr_conv p = conv_of(f, arrays);
    if (operator == DIRECT) {
        tr_conv_direct_s8(arrays[0], arrays[1], arrays[2], arrays[3], &p);
    } else if (operator == ADD_S32) {
        int32_t *const sums = (int32_t *)(void *)scratch;
        tr_sums_start_s32(sums, arrays[3], &p);
        tr_conv_add_s32(sums, arrays[1], arrays[2], &p);
        tr_sums_finish_s32(arrays[0], sums, &p);
    } else {
        tr_sums_start_s16(scratch, arrays[3], right, &p);
        tr_conv_add_s16(scratch, arrays[1], arrays[2], right, &p);
        tr_sums_finish_s16(arrays[0], scratch, right, &p);
    }
}

static void run_trec(const int32_t *f, void *const *arrays, int16_t *scratch)
{
    const struct tr_trec p = {f[0],  f[1],  f[2],  f[3],  f[4],  f[5],  f[6],  f[7],  f[8],  f[9],  f[10], f[11],     f[12],    f[13],
                              f[14], f[15], f[16], f[17], f[18], f[19], f[20], f[21], f[22], f[23], f[24], f[25], arrays[4], arrays[5], 0, 0};
    tr_trec_conv_s8(arrays[0], arrays[1], arrays[2], f[17] > 0 ? arrays[2] : arrays[6], arrays[3], &p, scratch);
}

static void run_depthwise(const int32_t *f, void *const *arrays, int16_t *scratch)
{
    const struct tr_depthwise p = {f[0],  f[1],  f[2],  f[3],  f[4],  f[5],      f[6],      f[7], STEPS(f + 8), f[12], f[13],
                                   f[14], f[15], f[16], f[17], arrays[4], arrays[5], 0,    0,            0,     0};
    tr_depthwise_conv_s8(arrays[0], arrays[1], arrays[2], arrays[3], &p, scratch);
}

static void run_dense(const int32_t *f, void *const *arrays, int16_t *scratch)
{
    const struct tr_dense p = {f[0], f[1], f[2], f[3], f[4], f[5], arrays[4], arrays[5]};
    tr_dense_s8(arrays[0], arrays[1], arrays[2], arrays[3], &p, scratch);
}

static void run_pool(const int32_t *f, void *const *arrays, int32_t maximum)
{
    const struct tr_pool p = {f[0],  f[1],  f[2],  f[3], f[4], f[5], f[6], STEPS(f + 7), f[11], f[12], f[13], f[14], 0, 0, 0, 0};
    (maximum ? tr_max_pool_s8 : tr_average_pool_s8)(arrays[0], arrays[1], &p);
}

static void run_mean(const int32_t *f, void *const *arrays)
{
    const struct tr_pool window = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], STEPS(f + 7), f[11], f[12], 0, 0, 0, 0, 0, 0};
    const struct tr_mean p = {window, f[13], f[14], f[15], f[16]};
    tr_mean_pool_s8(arrays[0], arrays[1], &p);
}

static void run_mul(const int32_t *f, void *const *arrays)
{
    const struct tr_mul p = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], f[13], f[14], f[15], f[16]};
    tr_mul_s8(arrays[0], arrays[1], arrays[2], &p);
}

static void run_add(const int32_t *f, void *const *arrays, int32_t subtract)
{
    const struct tr_add p = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], 0, 0, 0, 0};
    (subtract ? tr_sub_s8 : tr_add_s8)(arrays[0], arrays[1], arrays[2], &p);
}

static void run_layer_norm(const int32_t *f, void *const *arrays)
{
    const int64_t epsilon = (int64_t)((uint64_t)(uint32_t)f[3] << 32 | (uint32_t)f[2]);
    tr_layer_norm_s8(arrays[0], arrays[1], &(const struct tr_layer_norm){f[0], f[1], epsilon, f[4], f[5], f[6]});
}

static void run_attention(const int32_t *f, void *const *arrays, int16_t *scratch)
{
    const struct tr_attention p = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], f[13], f[14], f[15]};
    tr_attention_s8(arrays[0], arrays[1], arrays[2], arrays[3], f[16] ? arrays[4] : 0, &p, scratch);
}

static void run_matmul(const int32_t *f, void *const *arrays, int16_t *scratch)
{
    const struct tr_matmul p = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], f[13], f[14], f[15], f[16], f[17], f[18]};
    tr_matmul_s8(arrays[0], arrays[1], arrays[2], &p, scratch);
}

void run_case(const int32_t *fields, void *const *arrays, int16_t *scratch)
{
    const int32_t *f = fields + 1;
    switch ((enum operator)fields[0]) {
    case CONV:
        run_conv(f, arrays, scratch);
        return;
    case DIRECT:
    case ADD_S32:
    case ADD_S16:
        run_partial((enum operator)fields[0], f, arrays, scratch);
        return;
    case TREC:
        run_trec(f, arrays, scratch);
        return;
    case DEPTHWISE:
        run_depthwise(f, arrays, scratch);
        return;
    case DENSE:
        run_dense(f, arrays, scratch);
        return;
    case MAX_POOL:
    case AVERAGE_POOL:
        run_pool(f, arrays, fields[0] == MAX_POOL);
        return;
    case ADD:
    case SUB:
        run_add(f, arrays, fields[0] == SUB);
        return;
    case MEAN:
        run_mean(f, arrays);
        return;
    case MUL:
        run_mul(f, arrays);
        return;
    case CONCAT:
        tr_concat_s8(arrays[0], arrays[1], &(const struct tr_concat){f[0], f[1], f[2], f[3], 0});
        return;
    case KEEP: /* the fields of a rearrange that moves nothing */
        tr_keep_s8(arrays[0], arrays[1], &(const struct tr_keep){f[3] * f[4] * f[5]});
        return;
    case RELU:
        tr_relu_s8(arrays[0], arrays[1], &(const struct tr_relu){f[0], f[1], f[2], 0, 0, 0});
        return;
    case REARRANGE:
        tr_rearrange_s8(arrays[0], arrays[1],
                        &(const struct tr_rearrange){f[0],  f[1],  f[2],  f[3],  f[4],  f[5],  f[6],  f[7],
                                                     f[8],  f[9],  f[10], f[11], f[12], f[13], f[14], f[15],
                                                     f[16], f[17], f[18], f[19], f[20], f[21], f[22], f[23]});
        return;
    case BILINEAR:
        tr_bilinear_s8(arrays[0], arrays[1], arrays[2], arrays[3],
                       &(const struct tr_bilinear){f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], f[13]});
        return;
    case LOOKUP:
        tr_lookup_s8(arrays[0], arrays[1], arrays[2], &(const struct tr_lookup){f[0], 0, 0, 0});
        return;
    case LAYER_NORM:
        run_layer_norm(f, arrays);
        return;
    case ATTENTION:
        run_attention(f, arrays, scratch);
        return;
    case EXTEND:
        tr_extend_s8(arrays[0], arrays[1], arrays[2], &(const struct tr_extend){f[0], f[1], f[2]});
        return;
    case MATMUL:
        run_matmul(f, arrays, scratch);
        return;
    case SOFTMAX:
        tr_softmax_s8(arrays[0], arrays[1], &(const struct tr_softmax){f[0], f[1], f[2], f[3], f[4]});
        return;
    case SOFTMAX_ONCE:
        tr_softmax_once_s8(arrays[0], arrays[1], arrays[2], &(const struct tr_softmax){f[0], f[1], 0, 0, 0});
        return;
    }
}

#if defined(TR_DRIVER_MAIN)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_exactly(void *to, size_t bytes)
{
    if (fread(to, 1, bytes, stdin) != bytes) {
        exit(2);
    }
}

int main(void)
{
    int32_t count, fields[FIELDS], sizes[ARRAYS];
    while (fread(&count, sizeof count, 1, stdin) == 1) {
        void *arrays[ARRAYS];
        if (count < 1 || count > FIELDS) {
            return 3;
        }
        read_exactly(fields, (size_t)count * sizeof fields[0]);
        read_exactly(sizes, sizeof sizes);
        for (int32_t i = 0; i < ARRAYS; i++) {
            arrays[i] = malloc((size_t)sizes[i]);
            if (i > 0) {
                read_exactly(arrays[i], (size_t)sizes[i]);
            }
        }
        memset(arrays[0], 0x55, (size_t)sizes[0]);
        const size_t scratch_size = (size_t)scratch_bytes(fields);
        int16_t *const scratch = malloc(scratch_size);
        memset(scratch, 0x55, scratch_size);
        run_case(fields, arrays, scratch);
        fwrite(arrays[0], 1, (size_t)sizes[0], stdout);
        fflush(stdout);
        free(scratch);
        for (int32_t i = 0; i < ARRAYS; i++) {
            free(arrays[i]);
        }
    }
    return 0;
}
#endif
