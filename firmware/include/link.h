/* The serial protocol: text lines that a person can type and read, and binary frames for tensors.
 *
 * A line towards the device:      [#TAG ]WORD[ ARGUMENT]...[*CRC]\n      (\r also ends a line; a frame may follow only after \n)
 * A line from the device:         [#TAG ]WORD[ ...]*CRC\r\n
 * A frame, either way:            that many raw bytes; the line before it has said their number and their CRC
 *
 * CRC is CRC-32 (the one of Ethernet and zlib) as eight hexadecimal digits, over everything in the line before the star.
 * A program sends a tag (a decimal number) and then must send the CRC; the answer repeats the tag, so an answer that comes late is
 * never taken for another one, and ends with "done LINES", so a lost line is noticed. A person leaves tag and CRC out. Nobody waits without end inside an exchange: a frame whose bytes stop
 * coming is dropped after TR_FRAME_TIMEOUT_MS, and the device reads lines again.
 */
#ifndef TR_LINK_H
#define TR_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TR_LINE_BYTES 96 /* longest line towards the device, with the end */

#ifndef TR_FRAME_TIMEOUT_MS
#define TR_FRAME_TIMEOUT_MS 250 /* longest silence inside a frame */
#endif

struct tr_link {
    char line[TR_LINE_BYTES]; /* the request */
    const char *rest;         /* its words that nobody has taken yet */
    bool tagged;
    uint32_t tag;
    uint32_t sent_crc;   /* of the line being sent */
    uint32_t sent_lines; /* in the answer to this request */
};

/* Returns the CRC of n more bytes, given the CRC of those before them (0 at the start). */
uint32_t tr_crc32(uint32_t crc, const void *bytes, size_t n);

/* Ends the answer to a tagged request with "done LINES". */
void tr_link_done(struct tr_link *link);

/* Waits for a line. True: a request is there. False: the line was empty or damaged, and that has been answered. */
bool tr_link_wait(struct tr_link *link);

/* Take the next word of the request. False, and nothing taken, when it is not there or of another kind. */
bool tr_link_take_word(struct tr_link *link, const char *word);
bool tr_link_take_number(struct tr_link *link, uint32_t *value); /* decimal */
bool tr_link_take_crc(struct tr_link *link, uint32_t *value);    /* eight hexadecimal digits */
bool tr_link_at_end(const struct tr_link *link);

/* Send a line in pieces: begin, any number of pieces, end. */
void tr_link_begin(struct tr_link *link, const char *word);
void tr_link_text(struct tr_link *link, const char *text);
void tr_link_number(struct tr_link *link, uint32_t value);
void tr_link_crc(struct tr_link *link, uint32_t value);
void tr_link_end(struct tr_link *link);

/* Receives a frame of n bytes into out. False: bytes were missing or wrong; that has been answered, and out holds rubbish. */
bool tr_link_receive(struct tr_link *link, void *out, size_t n, uint32_t crc);

/* Sends a frame, and the end of a line after it. */
void tr_link_send(const void *bytes, size_t n);

#endif
