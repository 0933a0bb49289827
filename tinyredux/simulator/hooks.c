/* Hooks that Unicorn calls inside the emulated program: one call per basic block, one per instruction.
 *
 * The block hook adds what pricing (timing.py) found out once about the block: instructions, core cycles, stack use, and
 * follows control flow: a block that does not start where the one before ended was reached by a taken branch. The instruction
 * hook looks at loads, for their addresses decide on chaining, alignment and the flash data cache, and at what may fault: accesses
 * that must be aligned, and floating-point instructions met while their unit was off. Nothing here calls
 * Unicorn except to stop it; registers are read straight from the emulator's register file, found by find_registers().
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stddef.h>
#ifdef __linux__
#include <sys/uio.h>
#include <unistd.h>
#endif

enum { STOP_NONE, STOP_EVENT, STOP_LIMIT, STOP_ADDRESS, STOP_LOOP, STOP_FLOAT, STOP_ALIGNMENT };
enum { ALIGNED = 1, FLOAT = 2, NO_LOAD = 4 };
enum { END_NONE, END_DIRECT, END_CALL, END_INDIRECT, END_RETURN, END_CONDITIONAL };
enum { FLASH_KIND = 1, STACK_KIND = 2, MOST_SELF_LOOPS = 200 };
#define ANY_STACK 0xFFFFFFFFu
#define SELECTED_CYCLES 64u /* how long a serial flash stays selected after a read. Source: RP2350 datasheet, QMI, COOLDOWN */
enum { NO_REGISTER = 16, PROGRAM_COUNTER = 15, STACK_POINTER = 13 };

struct block { /* what one basic block costs, and how often it ran */
    uint32_t address, end, instructions, cycles, stack_bytes, function, first_line, lines;
    uint32_t taken_cycles, target_cycles; /* when left by a branch; when entered by a branch */
    /* The first block that ends at the same branch holds, for an M7, its two-bit counter and, of an indirect one, the last target. */
    uint32_t branch, predictor, last_target;
    uint8_t end_kind, is_entry, loops_to_itself, changes_masks, waits, spare[3];
    uint32_t wait_cycles; /* of fetching it from RAM */
    uint64_t runs, calls, extra_core, extra_memory;
};

struct load { /* address = base + (index << shift) + offset; base 15 means offset is the whole address */
    uint8_t base, index, shift, bytes, chained, after_stack, conditional_cycles, unaligned_cycles;
    int32_t offset;
    uint16_t total_bytes;
    uint8_t checks, spare;
};

struct region { /* memory that code runs from or data lies in; block and load hold 1 + table index per half-word */
    uint32_t base, size, kind;
    uint32_t *block, *load;
};

struct cache { /* least recently used lines; used[slot] is the time of the last use */
    uint32_t line_shift, miss_cycles, prefetch, last, sets, ways, enabled, next_cycles;
    uint64_t last_time, time, fetched, open_until; /* the line fetched last; until when a serial flash goes on from there */
    uint32_t *where; /* of each line of flash: 1 + the slot that holds it, or 0 */
    uint32_t *held;  /* of each slot: the line in it */
    uint64_t *used;
};

struct state {
    uint64_t instructions, core, memory, data_memory; /* totals so far; data_memory: of memory, what loads waited for */
    uint64_t limit_instructions, next_event, now; /* now: core + memory */
    uint32_t stop, lowest_sp, stack_floor, stop_address, stop_sp, current, last_region, mispredict_cycles;
    uint32_t regions, float_on, self_loops, pending, bad_address, bad_place, previous, spare;
    struct region *region;
    struct block *block;
    struct load *load;
    struct cache *code, *data;
    volatile uint32_t *registers;
    int (*stop_emulator)(void *uc);
    void (*price)(uint32_t address, uint32_t size);
    int (*read_register)(void *uc, int id, void *value);
};

static struct region *region_of(struct state *s, uint32_t address)
{
    for (uint32_t i = 0; i < s->regions; i++)
        if (address - s->region[i].base < s->region[i].size)
            return &s->region[i];
    return NULL;
}

static uint32_t reg(struct state *s, void *uc, unsigned number)
{
    static const int ids[16] = {66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 12, 10, 11};
    uint32_t value = 0;
    if (s->registers)
        return s->registers[number];
    s->read_register(uc, ids[number], &value);
    return value;
}

/* Returns the cycles lost fetching one line through a set-associative cache with least-recently-used replacement; through the
 * line read last, when the cache is off. Prefetch has read on since the line before was asked for. */
static uint32_t fetch(struct cache *c, uint32_t line, uint64_t now)
{
    uint32_t same = line == c->last, lost = c->miss_cycles;
    uint64_t since = now - c->last_time;
    if (c->prefetch && line == c->last + 1)
        lost = since < lost ? lost - (uint32_t)since : 0;
    c->last = line;
    c->last_time = now;
    if (!c->enabled)
        return same ? 0 : lost;
    if (c->where[line]) {
        c->used[c->where[line] - 1] = ++c->time;
        return 0;
    }
    if (c->next_cycles && line == c->fetched + 1 && now <= c->open_until)
        lost = c->next_cycles;
    c->fetched = line;
    c->open_until = now + lost + SELECTED_CYCLES;
    uint32_t first = (line % c->sets) * c->ways, victim = first;
    for (uint32_t slot = first + 1; slot < first + c->ways; slot++)
        if (c->used[slot] < c->used[victim])
            victim = slot;
    if (c->used[victim])
        c->where[c->held[victim]] = 0;
    c->held[victim] = line;
    c->used[victim] = ++c->time;
    c->where[line] = victim + 1;
    return lost;
}

static uint32_t branch_cycles(struct state *s, struct block *from, struct block *to)
{
    uint32_t taken = from->end != to->address;
    if (from->end_kind == END_NONE)
        return 0;
    if (!s->mispredict_cycles)
        return taken ? from->taken_cycles + to->target_cycles : 0;
    struct block *seen = &s->block[from->branch]; /* the core remembers branches, wherever a block that ends there begins */
    if (from->end_kind == END_CONDITIONAL) {
        uint32_t wrong = (seen->predictor >> 1) != taken;
        if (taken && seen->predictor < 3)
            seen->predictor++;
        if (!taken && seen->predictor > 0)
            seen->predictor--;
        return wrong ? s->mispredict_cycles : taken ? from->taken_cycles : 0;
    }
    if (from->end_kind == END_INDIRECT && seen->last_target != to->address) {
        seen->last_target = to->address;
        return s->mispredict_cycles;
    }
    return taken ? from->taken_cycles : 0;
}

static void follow(struct state *s, struct block *from, struct block *to)
{
    if (to->is_entry && (from->function != to->function || from->end_kind == END_CALL))
        to->calls++;
    uint32_t cycles = branch_cycles(s, from, to);
    s->core += cycles;
    from->extra_core += cycles;
}

static int must_stop(struct state *s, void *uc, struct block *b)
{
    const struct block *before = &s->block[s->current];
    if (s->stop >= STOP_FLOAT)
        ; /* a fault within an IT block, where the emulator does not stop */
    else if (s->now >= s->next_event || (s->pending && before->changes_masks) || before->waits)
        s->stop = STOP_EVENT;
    else if (s->instructions >= s->limit_instructions)
        s->stop = STOP_LIMIT;
    else if (b->address == s->stop_address && (s->stop_sp == ANY_STACK || reg(s, uc, STACK_POINTER) == s->stop_sp))
        s->stop = STOP_ADDRESS;
    else if (b->loops_to_itself && ++s->self_loops > MOST_SELF_LOOPS)
        s->stop = STOP_LOOP;
    else
        return 0;
    s->stop_emulator(uc);
    return 1;
}

void on_block(void *uc, uint64_t address64, uint32_t size, void *user)
{
    struct state *s = user;
    uint32_t address = (uint32_t)address64;
    struct region *r = region_of(s, address);
    uint32_t *slot = r ? &r->block[(address - r->base) >> 1] : NULL;
    if (!slot)
        return;
    if (!*slot || s->block[*slot].end - address != size)
        s->price(address, size);
    struct block *b = &s->block[*slot];
    if (must_stop(s, uc, b))
        return;
    follow(s, &s->block[s->current], b);
    s->previous = s->current;
    s->current = *slot;
    b->runs++;
    s->instructions += b->instructions;
    uint32_t low = reg(s, uc, STACK_POINTER) - b->stack_bytes;
    if (low < s->lowest_sp && low >= s->stack_floor)
        s->lowest_sp = low;
    uint64_t lost = b->wait_cycles;
    for (uint32_t i = 0; i < b->lines; i++)
        lost += fetch(s->code, b->first_line + i, s->core + s->memory + lost + (uint64_t)b->cycles * i / b->lines);
    s->core += b->cycles;
    s->memory += lost;
    b->extra_memory += lost;
    s->now = s->core + s->memory;
}

static uint32_t data_cycles(struct state *s, uint32_t offset, uint32_t bytes)
{
    uint32_t lost = 0, last = (offset + bytes - 1) >> s->data->line_shift;
    for (uint32_t line = offset >> s->data->line_shift; line <= last; line++)
        lost += fetch(s->data, line, s->now);
    return lost;
}

/* Returns whether the instruction is done with: it faults, or is no load. The first fault stays: within an IT block the emulator
 * goes on to the end of the basic block. */
static int checked(struct state *s, void *uc, const struct load *l, uint32_t place, uint32_t address)
{
    uint32_t stop = STOP_NONE;
    if (l->checks & FLOAT && !s->float_on)
        stop = STOP_FLOAT;
    else if (l->checks & ALIGNED && address & 3)
        stop = STOP_ALIGNMENT;
    else
        return l->checks & NO_LOAD;
    if (s->stop < STOP_FLOAT) {
        s->stop = stop;
        s->bad_place = place;
        s->bad_address = address;
    }
    s->stop_emulator(uc);
    return 1;
}

void on_instruction(void *uc, uint64_t address64, uint32_t size, void *user)
{
    struct state *s = user;
    struct region *r = region_of(s, (uint32_t)address64);
    (void)size;
    if (!r)
        return;
    uint32_t index = r->load[((uint32_t)address64 - r->base) >> 1];
    if (!index)
        return;
    const struct load *l = &s->load[index];
    uint32_t address = (uint32_t)l->offset, cycles = l->conditional_cycles, lost = 0;
    if (l->base != PROGRAM_COUNTER)
        address += reg(s, uc, l->base);
    if (l->index != NO_REGISTER)
        address += reg(s, uc, l->index) << l->shift;
    if (l->checks && checked(s, uc, l, (uint32_t)address64, address))
        return;
    struct region *target = region_of(s, address);
    uint32_t kind = target ? target->kind : 0;
    if (l->chained && kind != (l->after_stack ? (uint32_t)STACK_KIND : s->last_region))
        cycles++;
    if (address & (l->bytes - 1u))
        cycles += l->unaligned_cycles;
    s->last_region = kind;
    if (kind == FLASH_KIND)
        lost = data_cycles(s, address - target->base, l->total_bytes);
    s->core += cycles;
    s->memory += lost;
    s->data_memory += lost;
    s->now += cycles + lost;
    s->block[s->current].extra_core += cycles;
    s->block[s->current].extra_memory += lost;
}

#ifdef __linux__
static int copy_memory(uintptr_t from, void *to, size_t bytes)
{
    struct iovec local = {to, bytes}, remote = {(void *)from, bytes};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}
#endif

/* Returns the emulator's register file: the place, at most two pointers away from `uc`, where the 13 values written to r0..r12
 * (first, first + step, ...) lie side by side; NULL when there is none. Memory is read through the kernel, so a wrong pointer
 * is an error code and not a crash. */
volatile uint32_t *find_registers(void *uc, uint32_t first, uint32_t step)
{
#ifdef __linux__
    static uintptr_t pointers[512];
    static uint32_t words[16384];
    if (!copy_memory((uintptr_t)uc, pointers, sizeof pointers))
        return NULL;
    for (size_t i = 0; i < 512; i++) {
        size_t bytes = sizeof words;
        if (pointers[i] < 65536 || pointers[i] & 7)
            continue;
        while (bytes >= 4096 && !copy_memory(pointers[i], words, bytes))
            bytes /= 2;
        for (size_t k = 0; bytes >= 4096 && k + 13 < bytes / 4; k++) {
            uint32_t match = 0;
            while (match < 13 && words[k + match] == first + match * step)
                match++;
            if (match == 13)
                return (volatile uint32_t *)(pointers[i] + 4 * k);
        }
    }
#endif
    (void)uc, (void)first, (void)step;
    return NULL;
}
