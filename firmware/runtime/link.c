/* Lines, checksums and frames of the serial protocol (link.h), on the five functions of port.h. Knows nothing of the model. */
#include "link.h"

#include "port.h"

static const uint32_t crc_of_nibble[16] = {
    0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
    0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
};

uint32_t tr_crc32(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *const byte = bytes;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= byte[i];
        crc = (crc >> 4) ^ crc_of_nibble[crc & 15u];
        crc = (crc >> 4) ^ crc_of_nibble[crc & 15u];
    }
    return ~crc;
}

/* ---- sending ---- */

static void put(struct tr_link *link, char c)
{
    link->sent_crc = tr_crc32(link->sent_crc, &c, 1);
    tr_port_write((uint8_t)c);
}

void tr_link_text(struct tr_link *link, const char *text)
{
    while (*text != '\0') {
        put(link, *text++);
    }
}

void tr_link_number(struct tr_link *link, uint32_t value)
{
    char digits[10];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value != 0u);
    while (n > 0) {
        put(link, digits[--n]);
    }
}

void tr_link_crc(struct tr_link *link, uint32_t value)
{
    for (uint32_t i = 8; i-- > 0;) {
        put(link, "0123456789abcdef"[(value >> (4u * i)) & 15u]);
    }
}

void tr_link_begin(struct tr_link *link, const char *word)
{
    link->sent_crc = 0;
    if (link->tagged) {
        put(link, '#');
        tr_link_number(link, link->tag);
        put(link, ' ');
    }
    tr_link_text(link, word);
}

void tr_link_end(struct tr_link *link)
{
    const uint32_t crc = link->sent_crc;
    tr_port_write('*');
    tr_link_crc(link, crc);
    tr_port_write('\r');
    tr_port_write('\n');
    link->sent_lines++;
}

void tr_link_done(struct tr_link *link)
{
    if (link->tagged) {
        tr_link_begin(link, "done ");
        tr_link_number(link, link->sent_lines);
        tr_link_end(link);
    }
}

void tr_link_send(const void *bytes, size_t n)
{
    const uint8_t *const byte = bytes;
    for (size_t i = 0; i < n; i++) {
        tr_port_write(byte[i]);
    }
    tr_port_write('\r');
    tr_port_write('\n');
}

/* ---- taking a request apart ---- */

static const char *after_spaces(const char *text)
{
    while (*text == ' ') {
        text++;
    }
    return text;
}

bool tr_link_take_word(struct tr_link *link, const char *word)
{
    const char *text = after_spaces(link->rest);
    while (*word != '\0' && *text == *word) {
        text++;
        word++;
    }
    if (*word != '\0' || (*text != ' ' && *text != '\0')) {
        return false;
    }
    link->rest = text;
    return true;
}

bool tr_link_take_number(struct tr_link *link, uint32_t *value)
{
    const char *text = after_spaces(link->rest);
    uint64_t sum = 0;
    if (*text < '0' || *text > '9') {
        return false;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        sum = 10u * sum + (uint64_t)(*text - '0');
        if (sum > UINT32_MAX) {
            return false;
        }
    }
    if (*text != ' ' && *text != '\0') {
        return false;
    }
    *value = (uint32_t)sum;
    link->rest = text;
    return true;
}

/* Returns where the eight digits end, or NULL when they are not eight. */
static const char *read_crc(const char *text, uint32_t *value)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 8; i++, text++) {
        const char c = *text;
        const bool letter = c >= 'a' && c <= 'f';
        if (!letter && (c < '0' || c > '9')) {
            return NULL;
        }
        sum = 16u * sum + (uint32_t)(letter ? c - 'a' + 10 : c - '0');
    }
    *value = sum;
    return text;
}

bool tr_link_take_crc(struct tr_link *link, uint32_t *value)
{
    const char *const end = read_crc(after_spaces(link->rest), value);
    if (end == NULL || (*end != ' ' && *end != '\0')) {
        return false;
    }
    link->rest = end;
    return true;
}

bool tr_link_at_end(const struct tr_link *link)
{
    return *after_spaces(link->rest) == '\0';
}

/* ---- receiving ---- */

/* Reads characters up to the end of a line. Returns their number, or TR_LINE_BYTES when there were too many. */
static size_t read_line(char *line)
{
    size_t n = 0;
    for (;;) {
        const int32_t c = tr_port_read();
        if (c < 0) {
            continue;
        }
        if (c == '\n' || c == '\r') {
            break;
        }
        if ((c == '\b' || c == 127) && n < TR_LINE_BYTES) {
            n -= n > 0 ? 1u : 0u;
        } else if (n < TR_LINE_BYTES) {
            line[n] = (char)c;
            n++;
        }
    }
    if (n < TR_LINE_BYTES) {
        line[n] = '\0';
    }
    return n;
}

/* Cuts the CRC off the line. False when there is one and it is wrong; *has_crc says whether there was one. */
static bool check_crc(char *line, size_t n, bool *has_crc)
{
    uint32_t said = 0;
    size_t star = n;
    while (star > 0 && line[star - 1] != '*') {
        star--;
    }
    *has_crc = star > 0;
    if (star == 0) {
        return true;
    }
    const char *const end = read_crc(line + star, &said);
    line[star - 1] = '\0';
    return end == line + n && said == tr_crc32(0, line, star - 1);
}

bool tr_link_wait(struct tr_link *link)
{
    bool has_crc = false;
    link->tagged = false;
    link->sent_lines = 0;
    const size_t n = read_line(link->line);
    if (n == 0) {
        return false;
    }
    if (n == TR_LINE_BYTES) {
        tr_link_begin(link, "damaged line: too long");
        tr_link_end(link);
        return false;
    }
    bool good = check_crc(link->line, n, &has_crc);
    link->rest = link->line;
    if (good && link->line[0] == '#') {
        link->rest = link->line + 1;
        good = has_crc && tr_link_take_number(link, &link->tag);
        link->tagged = good;
    }
    if (!good) {
        tr_link_begin(link, "damaged line: its CRC is missing or wrong");
        tr_link_end(link);
    }
    return good;
}

/* Returns a byte, or -1 after a silence. The polls are counted as well, in case the cycle counter stands still. */
static int32_t read_byte(void)
{
    const uint32_t patience = tr_port_clock_hz() / 1000u * TR_FRAME_TIMEOUT_MS;
    const uint32_t start = tr_port_cycles();
    for (uint32_t polls = 0; polls < patience; polls++) {
        const int32_t c = tr_port_read();
        if (c >= 0 || tr_port_cycles() - start > patience) {
            return c;
        }
    }
    return -1;
}

bool tr_link_receive(struct tr_link *link, void *out, size_t n, uint32_t crc)
{
    uint8_t *const byte = out;
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t c = read_byte();
        if (c < 0) {
            tr_link_begin(link, "damaged frame: bytes received: ");
            tr_link_number(link, (uint32_t)i);
            tr_link_end(link);
            return false;
        }
        byte[i] = (uint8_t)c;
        found = tr_crc32(found, &byte[i], 1);
    }
    if (found != crc) {
        tr_link_begin(link, "damaged frame: CRC of the bytes received: ");
        tr_link_crc(link, found);
        tr_link_end(link);
        return false;
    }
    return true;
}
