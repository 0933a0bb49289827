#include "model.h"
#include "cell.h"

#define RECORDS 64
#define VALUES (TR_OUTPUT_BYTES / 4)

static int8_t input[TR_INPUT_BYTES] __attribute__((aligned(8)));
static uint8_t output[TR_OUTPUT_BYTES];
static struct {
    const char *name;
    int32_t count, first; /* count -1: one number */
} records[RECORDS];
static int32_t values[VALUES], record_count, value_count, left_out;
const void *const cell_input = input;
const char *const tr_op_names[TR_OP_COUNT] = {"cell"};

/* Notes what is printed, which costs few cycles; tr_output turns it into bytes when the cell is over. */
static int32_t *note(const char *name, int32_t count, int32_t numbers)
{
    if (record_count == RECORDS || numbers < 0 || value_count + numbers > VALUES) {
        left_out = 1;
        return NULL;
    }
    records[record_count].name = name;
    records[record_count].count = count;
    records[record_count++].first = value_count;
    value_count += numbers;
    return values + value_count - numbers;
}

void print_number(const char *name, int32_t value)
{
    int32_t *const to = note(name, -1, 1);
    if (to != NULL) {
        *to = value;
    }
}

void print_numbers(const char *name, const int32_t *from, int32_t count)
{
    int32_t *const to = note(name, count, count);
    for (int32_t i = 0; to != NULL && i < count; i++) {
        to[i] = from[i];
    }
}

void print_bytes(const char *name, const int8_t *from, int32_t count)
{
    int32_t *const to = note(name, count, count);
    for (int32_t i = 0; to != NULL && i < count; i++) {
        to[i] = from[i];
    }
}

static uint32_t put(uint32_t at, int32_t value)
{
    for (uint32_t i = 0; i < 4; i++) {
        output[at++] = (uint8_t)((uint32_t)value >> (8u * i));
    }
    return at;
}

/* The number of records, whether one was left out, then each: name, 0, count, numbers. */
const int8_t *tr_output(void)
{
    uint32_t at = 4;
    int32_t whole = 0;
    for (; whole < record_count; whole++) {
        const int32_t count = records[whole].count, numbers = count < 0 ? 1 : count;
        uint32_t length = 1;
        while (records[whole].name[length - 1] != 0) {
            length++;
        }
        if (at + length + 4u + 4u * (uint32_t)numbers > TR_OUTPUT_BYTES) {
            left_out = 1;
            break;
        }
        for (uint32_t i = 0; i < length; i++) {
            output[at++] = (uint8_t)records[whole].name[i];
        }
        at = put(at, count);
        for (int32_t i = 0; i < numbers; i++) {
            at = put(at, values[records[whole].first + i]);
        }
    }
    (void)put(0, whole | left_out << 16);
    while (at < TR_OUTPUT_BYTES) {
        output[at++] = 0;
    }
    return (const int8_t *)output;
}

int8_t *tr_input(void)
{
    return input;
}

void tr_model_run(void)
{
    record_count = value_count = left_out = 0;
    tr_mark(0);
    cell();
    tr_mark(1);
}
