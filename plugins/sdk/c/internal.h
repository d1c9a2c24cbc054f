/* What the files of the SDK share. Not for authors. */
#ifndef TOWPATH_INTERNAL_H
#define TOWPATH_INTERNAL_H

#include <stdarg.h>

#include "towpath.h"

enum {
    TOWPATH_HEAD_BYTES = 16,
    TOWPATH_ENTRY_BYTES = 96,
    /* Where the slots of an entry stand. */
    TOWPATH_AT_KEY = 40,
    TOWPATH_AT_BEFORE = 48,
    TOWPATH_AT_AFTER = 56,
    TOWPATH_AT_SOURCE = 64,
    TOWPATH_AT_HEADERS = 72,
    TOWPATH_AT_POSITION = 80,
    TOWPATH_AT_TOPIC = 88,
};

/* The letters `TPB1`. */
#define TOWPATH_MAGIC 0x31425054u
#define TOWPATH_NOT_THERE 0xFFFFFFFFu
#define TOWPATH_END_MASK 0x3FFFFFFFu
#define TOWPATH_STATE_SHIFT 30

static inline uint32_t towpath_u32_at(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t towpath_u64_at(const uint8_t *at) {
    return (uint64_t)towpath_u32_at(at) | (uint64_t)towpath_u32_at(at + 4) << 32;
}

static inline void towpath_u32_to(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

static inline void towpath_u64_to(uint8_t *at, uint64_t value) {
    towpath_u32_to(at, (uint32_t)value);
    towpath_u32_to(at + 4, (uint32_t)(value >> 32));
}

/* A schema that has a number. */
struct towpath_known {
    uint32_t number;
    towpath_schema schema;
};

struct towpath_batch {
    const uint8_t *at;
    /* Where the entries begin: everything before them, but for the head, is the arena. */
    size_t base;
    size_t count;
};

typedef struct towpath_rejected {
    uint32_t index;
    towpath_details why;
} towpath_rejected;

struct towpath_output {
    const towpath_batch *batch;
    /* What goes on. */
    uint8_t *entries;
    size_t count, entries_room;
    /* What was written, counted from the end of the incoming arena; what was finished ends at `sealed`. */
    uint8_t *parts;
    size_t length, sealed, parts_room;
    towpath_rejected *rejected;
    size_t rejected_count, rejected_room;
    /* The index of the first record that can still go on. */
    size_t next;
    /* Which rewrite may write. */
    uint32_t serial;
    bool changed;
};

typedef struct towpath_found {
    const char *path;
    towpath_details why;
} towpath_found;

struct towpath_problems {
    towpath_found *at;
    size_t count, room;
};

/* Reads a buffer of the host; tells what is wrong with it, or NULL. */
const char *towpath_batch_read(towpath_batch *batch, const uint8_t *at, size_t length);

/* What goes on for a batch; one at a time. What an earlier one held is used again. */
towpath_output *towpath_output_begin(const towpath_batch *batch);

/* The buffer that goes on, of `length`. It takes over the buffer that came in, which is of `malloc`, as is the answer. */
uint8_t *towpath_output_finish(towpath_output *out, uint8_t *incoming, size_t *length);

void towpath_output_forget(void);

/* A schema that has a number; NULL where nobody knows it. */
const towpath_known *towpath_known_of(uint32_t number);
/* What the values of a field are, when they are there. */
towpath_kind towpath_field_kind(const towpath_field *field);
/* A field's state (0 there, 1 null, 2 absent) and its bytes as they stand; `index` must be one of the row. */
uint32_t towpath_row_raw(towpath_row row, size_t index, towpath_bytes *bytes);

/* Forgets what `towpath_alloc` gave since the last call. */
void towpath_arena_reset(void);
/* Keeps it as long as the instance. */
void towpath_arena_keep(void);
/* Memory that grows: room for `count` elements of `size`. */
void *towpath_grown(void *at, size_t *room, size_t count, size_t size);

char *towpath_vformat(const char *format, va_list arguments);

/* Forgets the instance: everything that was kept, and what it knows. For tests. */
void towpath_forget(void);

/* What the host gives; what it says of a schema lasts as long as the instance. */
bool towpath_host_schema(uint32_t number, towpath_schema *schema);
bool towpath_host_define(const towpath_schema *schema, uint32_t *number);
/* May mend the message. */
void towpath_host_log(towpath_level level, char *message);
TOWPATH_NORETURN void towpath_host_stop(void);

#endif
