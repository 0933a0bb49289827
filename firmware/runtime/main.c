/* The program on the board: answers requests on the serial line (link.h). `help` lists them.
 *
 * Timing: tr_model_run calls tr_mark before each operator and once at the end; a mark is the cycle counter, nothing else. All numbers
 * are sent after the run, so no byte goes over the line while the counter counts. The counter has 32 bits and wraps; differences are
 * right as long as one run takes less than 2^32 cycles (19.9 s at 216 MHz).
 */
#include <stdbool.h>

#include "board.h"
#include "link.h"
#include "model.h"
#include "port.h"

#define PROTOCOL_VERSION 1
#define MAX_REPEATS 32

static uint32_t marks[TR_OP_COUNT + 1];

void tr_mark(uint32_t index)
{
    marks[index] = tr_port_cycles();
}

static void field(struct tr_link *link, const char *name, uint32_t value)
{
    tr_link_text(link, name);
    tr_link_number(link, value);
}

static void say(struct tr_link *link, const char *line)
{
    tr_link_begin(link, line);
    tr_link_end(link);
}

static uint32_t run_cycles(void)
{
    return marks[TR_OP_COUNT] - marks[0];
}

/* One line about the run that has just ended. */
static void report_run(struct tr_link *link)
{
    tr_link_begin(link, "ran model=" TR_MODEL_HASH);
    field(link, " stack=", tr_stack_used_bytes());
    if (tr_port_cycle_counter_ok() != 0u) {
        field(link, " cycles=", run_cycles());
        for (uint32_t i = 0; i < TR_OP_COUNT; i++) {
            field(link, i == 0 ? " ops=" : ",", marks[i + 1] - marks[i]);
        }
    }
    tr_link_end(link);
}

static void help(struct tr_link *link)
{
    say(link, "help info            which model this board carries, and its sizes");
    say(link, "help measure N       run N times on a built-in pattern, with cycles per operator (N: 1 to 32)");
    say(link, "help run BYTES CRC   run on an input: the bytes follow when asked for; for programs");
#ifdef TR_STREAM_PUSHES
    say(link, "help push SEQ BYTES CRC  run on frame number SEQ of a stream, as run does; 0 begins a stream; for programs");
#endif
    say(link, "help halt            stop; only a reset starts the board again");
    say(link, "help what stands after the last star of a line is its CRC-32");
}

static void info(struct tr_link *link)
{
    tr_link_begin(link, "info");
    field(link, " version=", PROTOCOL_VERSION);
    tr_link_text(link, " model=" TR_MODEL_HASH " name=" TR_MODEL_NAME " board=" TR_BOARD_NAME);
    field(link, " clock=", tr_port_clock_hz());
    field(link, " counter=", tr_port_cycle_counter_ok() != 0u);
    field(link, " ops=", TR_OP_COUNT);
    field(link, " input=", TR_INPUT_BYTES);
    field(link, " output=", TR_OUTPUT_BYTES);
#ifdef TR_OUTPUTS
    for (uint32_t i = 0; i < TR_OUTPUTS; i++) {
        tr_link_text(link, i == 0 ? " outputs=" : ",");
        tr_link_text(link, tr_outputs[i].name);
        field(link, ":", tr_outputs[i].bytes);
    }
#endif
    field(link, " arena=", TR_ARENA_BYTES);
    field(link, " scratch=", TR_SCRATCH_BYTES);
    field(link, " stack=", tr_stack_used_bytes());
    tr_link_end(link);
}

#ifdef TR_OUTPUTS /* several outputs are one frame, one after the other; the table says where they lie */
static uint32_t output_crc(void)
{
    uint32_t crc = 0;
    for (uint32_t i = 0; i < TR_OUTPUTS; i++) {
        crc = tr_crc32(crc, tr_outputs[i].values, tr_outputs[i].bytes);
    }
    return crc;
}

static void send_output(void)
{
    for (uint32_t i = 0; i < TR_OUTPUTS; i++) {
        for (uint32_t k = 0; k < tr_outputs[i].bytes; k++) {
            tr_port_write((uint8_t)tr_outputs[i].values[k]);
        }
    }
    tr_link_send(NULL, 0);
}
#else
static inline uint32_t output_crc(void)
{
    return tr_crc32(0, tr_output(), TR_OUTPUT_BYTES);
}

static inline void send_output(void)
{
    tr_link_send(tr_output(), TR_OUTPUT_BYTES);
}
#endif

/* The end of `run` and of `push`: the report and the output. */
static void send_run(struct tr_link *link)
{
    report_run(link);
    tr_link_begin(link, "output ");
    tr_link_number(link, TR_OUTPUT_BYTES);
    tr_link_text(link, " ");
    tr_link_crc(link, output_crc());
    tr_link_end(link);
    send_output();
}

/* The arguments and the frame of `run` and of `push`. False where they are wrong, which has been answered. */
static bool take_input(struct tr_link *link)
{
    uint32_t bytes = 0;
    uint32_t crc = 0;
    if (!tr_link_take_number(link, &bytes) || !tr_link_take_crc(link, &crc) || !tr_link_at_end(link)) {
        say(link, "error run needs the number of input bytes and their CRC-32 in eight digits 0-9a-f");
        return false;
    }
    if (bytes != TR_INPUT_BYTES) {
        tr_link_begin(link, "error the input of this model has ");
        tr_link_number(link, TR_INPUT_BYTES);
        field(link, " bytes, not ", bytes);
        tr_link_end(link);
        return false;
    }
    tr_link_begin(link, "send ");
    tr_link_number(link, bytes);
    tr_link_end(link);
    return tr_link_receive(link, tr_input(), TR_INPUT_BYTES, crc);
}

/* run BYTES CRC: asks for the frame, runs the model on it, sends the report and the output. */
static void run(struct tr_link *link)
{
    if (take_input(link)) {
        tr_model_run();
        send_run(link);
    }
}

#ifdef TR_STREAM_PUSHES
/* push SEQ BYTES CRC: the same for frame number SEQ of a stream; number 0 begins a new one. A frame that is not the next one has
 * come twice, or others were lost: it is refused, and the stream stays as it was. A damaged frame may be sent again. */
static void push(struct tr_link *link)
{
    uint32_t sequence = 0;
    if (!tr_link_take_number(link, &sequence)) {
        say(link, "error push needs the number of the frame, then what run needs");
        return;
    }
    if (sequence == 0u) {
        tr_stream_restart();
    }
    if (sequence != tr_stream_next()) {
        tr_link_begin(link, "error frame ");
        tr_link_number(link, sequence);
        field(link, " came, the next one is ", tr_stream_next());
        tr_link_text(link, "; begin again at 0");
        tr_link_end(link);
        return;
    }
    if (take_input(link)) {
        const int32_t ready = tr_push(tr_input());
        tr_link_begin(link, "pushed ");
        tr_link_number(link, sequence);
        field(link, " ready=", (uint32_t)ready);
        tr_link_end(link);
        send_run(link);
    }
}
#endif

/* The input of `measure`: the same bytes each time. Written anew before each run, because a run may overwrite its input. */
static void fill_pattern(int8_t *input)
{
    uint32_t state = 1;
    for (uint32_t i = 0; i < TR_INPUT_BYTES; i++) {
        state = 1664525u * state + 1013904223u;
        input[i] = (int8_t)((int32_t)(state >> 24) - 128);
    }
}

static uint32_t run_pattern(void)
{
    fill_pattern(tr_input());
    tr_model_run();
    return output_crc();
}

/* Puts a new total in its place among n sorted ones. */
static void insert_sorted(uint32_t *sorted, uint32_t n, uint32_t total)
{
    for (; n > 0 && sorted[n - 1] > total; n--) {
        sorted[n] = sorted[n - 1];
    }
    sorted[n] = total;
}

/* measure N: one run to warm up, then N runs that must all give the same output. */
static void measure(struct tr_link *link)
{
    uint32_t repeats = 0;
    uint32_t sorted[MAX_REPEATS];
    if (!tr_link_take_number(link, &repeats) || !tr_link_at_end(link) || repeats < 1 || repeats > MAX_REPEATS) {
        say(link, "error measure needs a number of repeats from 1 to 32, as in: measure 5");
        return;
    }
    if (tr_port_cycle_counter_ok() == 0u) {
        say(link, "error there is no cycle counter here; run and info work");
        return;
    }
    for (uint32_t i = 0; i < TR_OP_COUNT; i++) {
        tr_link_begin(link, "op ");
        field(link, "", i);
        tr_link_text(link, " ");
        tr_link_text(link, tr_op_names[i]);
        tr_link_end(link);
    }
#ifdef TR_STREAM_PUSHES /* the same frame over and over: a window of it gives the same output in every push */
    for (uint32_t i = 1; i < TR_STREAM_PUSHES; i++) {
        (void)run_pattern();
    }
#endif
    const uint32_t crc = run_pattern();
    for (uint32_t i = 0; i < repeats; i++) {
        if (run_pattern() != crc) {
            say(link, "error two runs on the same input gave different outputs; do not trust this board or this build");
            return;
        }
        insert_sorted(sorted, i, run_cycles());
        report_run(link);
    }
    tr_link_begin(link, "measured");
    field(link, " repeats=", repeats);
    field(link, " min=", sorted[0]);
    field(link, " median=", sorted[(repeats - 1) / 2]);
    field(link, " max=", sorted[repeats - 1]);
    field(link, " stack=", tr_stack_used_bytes());
    tr_link_text(link, " output=");
    tr_link_crc(link, crc);
    tr_link_end(link);
}

static void serve(struct tr_link *link)
{
    if (tr_link_take_word(link, "run")) {
        run(link);
#ifdef TR_STREAM_PUSHES
    } else if (tr_link_take_word(link, "push")) {
        push(link);
#endif
    } else if (tr_link_take_word(link, "measure")) {
        measure(link);
    } else if (tr_link_take_word(link, "info") && tr_link_at_end(link)) {
        info(link);
    } else if (tr_link_take_word(link, "help")) {
        help(link);
    } else if (tr_link_take_word(link, "halt") && tr_link_at_end(link)) {
        say(link, "halted");
        tr_port_halt(0);
    } else {
        say(link, "error unknown request; type help");
    }
}

int main(void)
{
    struct tr_link link; /* set field by field: an initialiser would call memset */
    link.tagged = false;
    link.sent_lines = 0;
    tr_port_init();
    tr_link_send(NULL, 0); /* ends whatever half line the reset has cut off */
    say(&link, "tinyredux READY " TR_MODEL_HASH);
    for (;;) {
        if (tr_link_wait(&link)) {
            serve(&link);
            tr_link_done(&link);
        }
    }
}
