/* The program on the board for MLPerf Tiny: answers the benchmark's own runner in the place of runtime/main.c.
 *
 * A command ends with '%', words are one blank apart, answers are lines that begin with m- (or e- for an error), the last one
 * m-ready: name, timestamp, profile, help, db load N, db HEX, infer N [WARMUPS], results. Which test the model is follows from its
 * name, the stem of the benchmark's file. Pixels come as 0 to 255, speech as int8, the autoencoder's features as float32, whose
 * mean squared error is its result. Other models take and give their int8 as it is.
 * Source: github.com/mlcommons/tiny, benchmark/api and benchmark/runner.
 *
 * Microseconds are counted in 64 bits from the cycle counter, which is looked at once in every inference and in every wait: one
 * inference may take 2^32 cycles (35 s at 120 MHz). The input is written before each inference, for a run may overwrite it.
 */
#include <string.h>

#include "board.h"
#include "link.h"
#include "model.h"
#include "port.h"

#define VALUE_BYTES (TR_INPUT_BYTES == TR_OUTPUT_BYTES ? sizeof(float) : 1u) /* of the autoencoder's input, of others' */
#define DEFAULT_WARMUPS 10u

enum kind { PIXELS, SPEECH, ERROR, OTHER };

static const struct test {
    const char *file; /* without .tflite */
    const char *name;
    enum kind kind;
} tests[] = {
    {"pretrainedResnet_quant", "ic01", PIXELS}, {"pretrainedResnet_large_int8", "ic02", PIXELS},
    {"vww_96_int8", "vww01", PIXELS},           {"kws_ref_model", "kws01", SPEECH},
    {"ad01_int8", "ad01", ERROR},               {TR_MODEL_NAME, TR_MODEL_NAME, OTHER},
};

/* Of ad01_int8.tflite; the other tests end in a softmax, whose output is (q + 128) / 256 by the format's rule. */
static const float input_scale = 0.391015232f, output_scale = 0.364498466f;
static const int32_t input_zero_point = 89, output_zero_point = 96;

static uint8_t sent[TR_INPUT_BYTES * VALUE_BYTES]; /* by the runner */
static int8_t input[TR_INPUT_BYTES];
static uint32_t expected, received;
static uint64_t cycles;
static uint32_t counted;

void tr_mark(uint32_t index)
{
    (void)index;
}

static const struct test *this_test(void)
{
    const struct test *test = tests;
    while (strcmp(test->file, TR_MODEL_NAME) != 0) {
        test++;
    }
    return test;
}

static void tick(void)
{
    const uint32_t now = tr_port_cycles();
    cycles += now - counted;
    counted = now;
}

/* ---- answers ---- */

static void say(struct tr_link *link, const char *line)
{
    tr_link_text(link, line);
    tr_link_text(link, "\r\n");
}

/* One line: words, a number, words. */
static void say_number(struct tr_link *link, const char *before, uint32_t value, const char *after)
{
    tr_link_text(link, before);
    tr_link_number(link, value);
    say(link, after);
}

static void say_name(struct tr_link *link, const char *what, const char *name)
{
    tr_link_text(link, what);
    tr_link_text(link, name);
    say(link, "]");
}

static void timestamp(struct tr_link *link)
{
    tick();
    say_number(link, "m-lap-us-", (uint32_t)(cycles * 1000000u / tr_port_clock_hz()), "");
}

/* A number of thousandths with its three digits behind the point. */
static void decimal(struct tr_link *link, uint32_t thousandths)
{
    tr_link_number(link, thousandths / 1000u);
    tr_link_text(link, ".");
    for (uint32_t place = 100; place > 0; place /= 10u) {
        tr_link_number(link, thousandths / place % 10u);
    }
}

/* The mean squared difference of what came as float32 and what the model gives, in thousandths. */
static uint32_t error_of_output(void)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < TR_OUTPUT_BYTES; i++) {
        float value = 0.0f;
        memcpy(&value, sent + i * VALUE_BYTES, VALUE_BYTES);
        const float off = output_scale * (float)(tr_output()[i] - output_zero_point) - value;
        sum += off * off;
    }
    const float found = sum / (float)TR_OUTPUT_BYTES * 1000.0f + 0.5f;
    return found < 4294967040.0f ? (uint32_t)found : UINT32_MAX;
}

static void results(struct tr_link *link, enum kind kind)
{
    tr_link_text(link, "m-results-[");
    if (kind == ERROR) {
        decimal(link, error_of_output());
    }
    for (uint32_t i = 0; kind != ERROR && i < TR_OUTPUT_BYTES; i++) {
        const int32_t value = tr_output()[i];
        tr_link_text(link, i > 0 ? "," : "");
        if (kind == OTHER) {
            tr_link_text(link, value < 0 ? "-" : "");
            tr_link_number(link, (uint32_t)(value < 0 ? -value : value));
        } else {
            decimal(link, (uint32_t)((value + 128) * 1000 + 128) / 256u);
        }
    }
    say(link, "]");
}

/* ---- the input ---- */

static int8_t quantised(float value)
{
    const float steps = value / input_scale;
    const float near = steps > 255.0f ? 255.0f : steps > -255.0f ? steps : -255.0f; /* NaN too: the least */
    const int32_t rounded = (int32_t)(near < 0.0f ? near - 0.5f : near + 0.5f) + input_zero_point;
    return (int8_t)(rounded < -128 ? -128 : rounded > 127 ? 127 : rounded);
}

static void prepare(enum kind kind)
{
    for (uint32_t i = 0; i < TR_INPUT_BYTES; i++) {
        if (kind == ERROR) {
            float value = 0.0f;
            memcpy(&value, sent + i * VALUE_BYTES, VALUE_BYTES);
            input[i] = quantised(value);
        } else {
            input[i] = (int8_t)(kind == PIXELS ? sent[i] ^ 0x80u : sent[i]);
        }
    }
}

static int32_t digit(char c)
{
    const char lower = (char)(c | 0x20);
    return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* db HEX: bytes of the input, until all are there. */
static void take_bytes(struct tr_link *link)
{
    const char *text = link->rest + strspn(link->rest, " ");
    if (*text == '\0' || strlen(text) % 2u != 0u || strspn(text, "0123456789abcdefABCDEF") != strlen(text)) {
        say(link, "e-[db takes load N, or bytes as pairs of hexadecimal digits]");
        return;
    }
    if (received == expected) {
        say(link, "e-[no bytes are expected: db load first]");
    }
    for (; *text != '\0' && received < expected; text += 2) {
        sent[received++] = (uint8_t)(digit(text[0]) * 16 + digit(text[1]));
        if (received == expected) {
            say(link, "m-load-done");
        }
    }
}

static void db(struct tr_link *link)
{
    uint32_t bytes = 0;
    if (!tr_link_take_word(link, "load")) {
        take_bytes(link);
    } else if (!tr_link_take_number(link, &bytes) || bytes != sizeof sent) {
        say_number(link, "e-[the input of this model has ", sizeof sent, " bytes: db load that many]");
    } else {
        expected = bytes;
        received = 0;
        say_number(link, "m-[Expecting ", bytes, " bytes]");
    }
}

/* ---- inference ---- */

static void run(uint32_t times)
{
    for (; times > 0; times--) {
        memcpy(tr_input(), input, TR_INPUT_BYTES);
        tr_model_run();
        tick();
    }
}

static void infer(struct tr_link *link, enum kind kind)
{
    uint32_t times = 1;
    uint32_t warmups = DEFAULT_WARMUPS;
    const bool given = tr_link_at_end(link) || tr_link_take_number(link, &times);
    if (!given || times == 0u || !(tr_link_at_end(link) || tr_link_take_number(link, &warmups)) || !tr_link_at_end(link)) {
        say(link, "e-[infer takes the number of inferences, from 1, and that of warm-ups]");
        return;
    }
    if (received < sizeof sent) {
        say_number(link, "e-[the input is not complete: ", received, " bytes are there; db load first]");
        return;
    }
    prepare(kind);
    say_number(link, "m-warmup-start-", warmups, "");
    run(warmups);
    say(link, "m-warmup-done");
    say_number(link, "m-infer-start-", times, "");
    timestamp(link);
    run(times);
    timestamp(link);
    say(link, "m-infer-done");
    results(link, kind);
}

static void help(struct tr_link *link)
{
    say(link, "tinyredux for MLPerf Tiny; a command ends with a per cent sign");
    say(link, "name, profile   what this is, and which test");
    say(link, "timestamp       microseconds since the start");
    say(link, "db load N       begin an input of N bytes");
    say(link, "db HEX          bytes of it");
    say(link, "infer N W       N inferences after W warm-ups (default: 1 after 10)");
    say(link, "results         what the last one gave");
}

static void serve(struct tr_link *link, const struct test *test)
{
    if (tr_link_take_word(link, "name")) {
        say_name(link, "m-name-dut-[", "tinyredux on " TR_BOARD_NAME);
    } else if (tr_link_take_word(link, "timestamp")) {
        timestamp(link);
    } else if (tr_link_take_word(link, "profile")) {
        say(link, "m-profile-[ULPMark for tinyML Firmware V0.0.1]"); /* the runner knows the protocol by it */
        say_name(link, "m-model-[", test->name);
    } else if (tr_link_take_word(link, "help")) {
        help(link);
    } else if (tr_link_take_word(link, "db")) {
        db(link);
    } else if (tr_link_take_word(link, "infer")) {
        infer(link, test->kind);
    } else if (tr_link_take_word(link, "results")) {
        results(link, test->kind);
    } else {
        say_name(link, "e-[Unknown command: ", link->line);
    }
    say(link, "m-ready");
}

/* Reads a command; what does not fit is cut off, and then no command. Ends of lines between commands are left out. */
static void read_command(struct tr_link *link)
{
    for (size_t n = 0;;) {
        const int32_t c = tr_port_read();
        tick();
        if (c == '%') {
            link->line[n] = '\0';
            link->rest = link->line;
            return;
        }
        if (c >= ' ' && n < TR_LINE_BYTES - 1u) {
            link->line[n++] = (char)c;
        }
    }
}

int main(void)
{
    struct tr_link link;
    const struct test *const test = this_test();
    tr_port_init();
    counted = tr_port_cycles();
    say(&link, "m-timestamp-mode-performance");
    timestamp(&link);
    if (tr_port_cycle_counter_ok() == 0u) {
        say(&link, "e-[there is no cycle counter here: do not believe a time]");
    }
    say(&link, "m-init-done");
    say(&link, "m-ready");
    for (;;) {
        read_command(&link);
        serve(&link, test);
    }
}
