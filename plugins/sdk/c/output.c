/* Writing the batch that goes on. What is kept stays where it stands in the incoming buffer: what is written is counted
 * from the end of it, and both are put together at the end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/* Above this, memory is not held for the next batch. */
enum { HELD_BYTES_MAX = 8 << 20 };

static const size_t SLOTS[] = {TOWPATH_AT_KEY,     TOWPATH_AT_BEFORE,  TOWPATH_AT_AFTER,
                               TOWPATH_AT_SOURCE,  TOWPATH_AT_HEADERS, TOWPATH_AT_TOPIC};

static towpath_output output;

towpath_output *towpath_output_begin(const towpath_batch *batch) {
    output.batch = batch;
    output.count = output.length = output.sealed = output.rejected_count = output.next = 0;
    output.changed = false;
    return &output;
}

/* ---- Records ---- */

/* Copies a record's entry to where the next one goes. */
static void copy_entry(towpath_output *out, towpath_record record) {
    if (record.batch != out->batch) {
        towpath_panic("a record of another batch");
    }
    if (out->count == out->entries_room) {
        out->entries = towpath_grown(out->entries, &out->entries_room, out->count + 1, TOWPATH_ENTRY_BYTES);
    }
    memcpy(out->entries + out->count * TOWPATH_ENTRY_BYTES, record.entry, TOWPATH_ENTRY_BYTES);
    /* What was written of one that was not finished is forgotten. */
    out->length = out->sealed;
    out->serial++;
}

/* The entry that was copied goes on. */
static void push(towpath_output *out, towpath_record record) {
    if (record.index < out->next) {
        towpath_panic("a record goes on once, and in the order in which it came");
    }
    out->next = (size_t)record.index + 1;
    out->count++;
}

void towpath_keep(towpath_output *out, towpath_record record) {
    copy_entry(out, record);
    push(out, record);
}

towpath_details *towpath_reject(towpath_output *out, towpath_record record, const char *code, const char *format, ...) {
    if (record.batch != out->batch) {
        towpath_panic("a record of another batch");
    }
    if (out->rejected_count == 0 || out->rejected_count == out->rejected_room) {
        size_t room = out->rejected_count == 0 ? 16 : out->rejected_room * 2;
        towpath_rejected *grown = towpath_alloc(room * sizeof *grown);
        if (out->rejected_count > 0) {
            memcpy(grown, out->rejected, out->rejected_count * sizeof *grown);
        }
        out->rejected = grown;
        out->rejected_room = room;
    }
    towpath_rejected *rejected = &out->rejected[out->rejected_count++];
    va_list arguments;
    va_start(arguments, format);
    rejected->index = record.index;
    rejected->why.code = code;
    rejected->why.message = towpath_vformat(format, arguments);
    va_end(arguments);
    return &rejected->why;
}

/* ---- A record on its way out ---- */

static void no_slot(uint8_t *at) {
    towpath_u32_to(at, TOWPATH_NOT_THERE);
    towpath_u32_to(at + 4, 0);
}

/* The entry that is being written. */
static uint8_t *entry_of(const towpath_rewrite *it) {
    if (it->serial != it->out->serial) {
        towpath_panic("one record is written at a time");
    }
    return it->out->entries + it->out->count * TOWPATH_ENTRY_BYTES;
}

static towpath_rewrite begun(towpath_output *out, towpath_record record, const towpath_known *known, bool images) {
    copy_entry(out, record);
    towpath_rewrite it = {out, record, known, NULL, 0, 0, 0, out->serial, images, false};
    /* Positions are the host's business. */
    no_slot(entry_of(&it) + TOWPATH_AT_POSITION);
    return it;
}

towpath_rewrite towpath_rewrite_record(towpath_output *out, towpath_record record) {
    return begun(out, record, record.known, true);
}

towpath_rewrite towpath_rewrite_as(towpath_output *out, towpath_record record, uint32_t schema) {
    const towpath_known *known = towpath_known_of(schema);
    if (known == NULL) {
        towpath_panic("nobody knows the schema %u", (unsigned)schema);
    }
    towpath_rewrite it = begun(out, record, known, false);
    uint8_t *entry = entry_of(&it);
    towpath_u32_to(entry, schema);
    no_slot(entry + TOWPATH_AT_BEFORE);
    no_slot(entry + TOWPATH_AT_AFTER);
    return it;
}

/* Room for `length` bytes more; where they go. */
static uint8_t *room(towpath_rewrite *it, size_t length) {
    towpath_output *out = it->out;
    if (it->serial != out->serial) {
        towpath_panic("one record is written at a time");
    }
    /* Places are of 32 bits, and the entries follow. */
    if (length > TOWPATH_END_MASK || out->batch->base + out->length + length > TOWPATH_NOT_THERE / 2) {
        towpath_panic("a batch is larger than a batch may be");
    }
    if (out->parts == NULL || out->length + length > out->parts_room) {
        out->parts = towpath_grown(out->parts, &out->parts_room, out->length + length + 1, 1);
    }
    uint8_t *at = out->parts + out->length;
    out->length += length;
    return at;
}

static void append(towpath_rewrite *it, const void *at, size_t length) {
    uint8_t *to = room(it, length);
    if (length > 0) {
        memcpy(to, at, length);
    }
}

static void slot_to(towpath_rewrite *it, size_t at, size_t start) {
    uint8_t *slot = entry_of(it) + at;
    towpath_u32_to(slot, (uint32_t)(it->out->batch->base + start));
    towpath_u32_to(slot + 4, (uint32_t)(it->out->length - start));
}

static const towpath_field *next_field(const towpath_rewrite *it) {
    entry_of(it);
    if (it->fields == NULL) {
        towpath_panic("no row was begun");
    }
    if (it->field >= it->fields->length) {
        towpath_panic("the row has %zu fields and no more", it->fields->length);
    }
    return &it->fields->at[it->field];
}

static void seal(towpath_rewrite *it, uint32_t state) {
    const size_t end = it->out->length - it->start - it->fields->length * 4;
    if (end > TOWPATH_END_MASK) {
        towpath_panic("a row is larger than a row may be");
    }
    uint8_t *table = it->out->parts + it->start;
    towpath_u32_to(table + it->field * 4, state << TOWPATH_STATE_SHIFT | (uint32_t)end);
    it->field++;
}

static void end_row(towpath_rewrite *it) {
    if (it->fields == NULL) {
        return;
    }
    entry_of(it);
    if (it->in_parts) {
        towpath_panic("a text was not ended");
    }
    while (it->field < it->fields->length) {
        seal(it, 2);
    }
    slot_to(it, it->slot, it->start);
    it->fields = NULL;
}

static void begin_row(towpath_rewrite *it, size_t slot, const towpath_fields *fields) {
    end_row(it);
    it->slot = slot;
    it->field = 0;
    it->start = it->out->length;
    memset(room(it, fields->length * 4), 0, fields->length * 4);
    it->fields = fields;
}

void towpath_begin_key(towpath_rewrite *it) {
    if (!it->known->schema.has_key) {
        towpath_panic("the schema has no key");
    }
    begin_row(it, TOWPATH_AT_KEY, &it->known->schema.key);
}

void towpath_begin_before(towpath_rewrite *it) { begin_row(it, TOWPATH_AT_BEFORE, &it->known->schema.value); }

void towpath_begin_after(towpath_rewrite *it) { begin_row(it, TOWPATH_AT_AFTER, &it->known->schema.value); }

/* ---- Values ---- */

static void fits(towpath_rewrite *it, towpath_kind kind) {
    static const char *const NAMES[] = {"absent", "null", "bool", "int", "float32", "float64", "bytes", "text"};
    const towpath_field *field = next_field(it);
    if (it->in_parts) {
        towpath_panic("a text was not ended");
    }
    if (towpath_field_kind(field) != kind) {
        towpath_panic("`%.*s` takes no %s, but %s", TOWPATH_SHOW(field->name), NAMES[kind],
                      NAMES[towpath_field_kind(field)]);
    }
}

void towpath_put_absent(towpath_rewrite *it) {
    next_field(it);
    seal(it, 2);
}

void towpath_put_null(towpath_rewrite *it) {
    next_field(it);
    seal(it, 1);
}

void towpath_put_bool(towpath_rewrite *it, bool value) {
    fits(it, TOWPATH_IS_BOOL);
    *room(it, 1) = value ? 1 : 0;
    seal(it, 0);
}

void towpath_put_int(towpath_rewrite *it, int64_t value) {
    fits(it, TOWPATH_IS_INT);
    const towpath_scalar scalar = it->fields->at[it->field].scalar;
    if ((scalar == TOWPATH_INT16 && (value < INT16_MIN || value > INT16_MAX)) ||
        (scalar == TOWPATH_INT32 && (value < INT32_MIN || value > INT32_MAX))) {
        towpath_panic("%" PRId64 " does not fit `%.*s`", value, TOWPATH_SHOW(it->fields->at[it->field].name));
    }
    towpath_u64_to(room(it, 8), (uint64_t)value);
    seal(it, 0);
}

void towpath_put_float32(towpath_rewrite *it, float value) {
    fits(it, TOWPATH_IS_FLOAT32);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    towpath_u32_to(room(it, 4), bits);
    seal(it, 0);
}

void towpath_put_float64(towpath_rewrite *it, double value) {
    fits(it, TOWPATH_IS_FLOAT64);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    towpath_u64_to(room(it, 8), bits);
    seal(it, 0);
}

void towpath_put_bytes(towpath_rewrite *it, const void *at, size_t length) {
    fits(it, TOWPATH_IS_BYTES);
    append(it, at, length);
    seal(it, 0);
}

void towpath_put_text(towpath_rewrite *it, towpath_text value) {
    fits(it, TOWPATH_IS_TEXT);
    append(it, value.at, value.length);
    seal(it, 0);
}

void towpath_put_format(towpath_rewrite *it, const char *format, ...) {
    fits(it, TOWPATH_IS_TEXT);
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0) {
        towpath_panic("`%s` cannot be formatted", format);
    }
    /* The zero at the end is written, and not counted. */
    char *to = (char *)room(it, (size_t)length + 1);
    vsnprintf(to, (size_t)length + 1, format, arguments);
    va_end(arguments);
    it->out->length--;
    seal(it, 0);
}

void towpath_put_part(towpath_rewrite *it, towpath_text part) {
    if (!it->in_parts) {
        fits(it, TOWPATH_IS_TEXT);
        it->in_parts = true;
    }
    append(it, part.at, part.length);
}

void towpath_put_parts_end(towpath_rewrite *it) {
    if (!it->in_parts) {
        fits(it, TOWPATH_IS_TEXT);
    }
    it->in_parts = false;
    seal(it, 0);
}

void towpath_put(towpath_rewrite *it, towpath_value value) {
    switch (value.kind) {
    case TOWPATH_IS_ABSENT:
        towpath_put_absent(it);
        return;
    case TOWPATH_IS_NULL:
        towpath_put_null(it);
        return;
    case TOWPATH_IS_BOOL:
        towpath_put_bool(it, value.as.flag);
        return;
    case TOWPATH_IS_INT:
        towpath_put_int(it, value.as.integer);
        return;
    case TOWPATH_IS_FLOAT32:
        towpath_put_float32(it, value.as.float32);
        return;
    case TOWPATH_IS_FLOAT64:
        towpath_put_float64(it, value.as.float64);
        return;
    case TOWPATH_IS_BYTES:
        towpath_put_bytes(it, value.as.bytes.at, value.as.bytes.length);
        return;
    case TOWPATH_IS_TEXT:
        towpath_put_text(it, value.as.text);
        return;
    }
    towpath_panic("there is no value of kind %d", (int)value.kind);
}

void towpath_put_copy(towpath_rewrite *it, towpath_row row, size_t index) {
    if (row.fields == NULL || index >= row.fields->length) {
        towpath_put_absent(it);
        return;
    }
    towpath_bytes bytes;
    const uint32_t state = towpath_row_raw(row, index, &bytes);
    if (state == 0) {
        fits(it, towpath_field_kind(&row.fields->at[index]));
        append(it, bytes.at, bytes.length);
    } else {
        next_field(it);
    }
    seal(it, state);
}

void towpath_change_after(towpath_rewrite *it, const towpath_change *changes, size_t count) {
    const towpath_row row = towpath_record_after(it->record);
    if (!it->images || row.fields == NULL) {
        towpath_panic("the record has no row to change");
    }
    for (size_t at = 0; at < count; at++) {
        if (changes[at].index >= row.fields->length) {
            towpath_panic("the record has no field %zu", changes[at].index);
        }
    }
    towpath_begin_after(it);
    for (size_t index = 0; index < row.fields->length; index++) {
        size_t at = 0;
        while (at < count && changes[at].index != index) {
            at++;
        }
        if (at < count) {
            towpath_put(it, changes[at].value);
        } else {
            towpath_put_copy(it, row, index);
        }
    }
}

/* ---- What else a record has ---- */

void towpath_set_op(towpath_rewrite *it, towpath_op op) { entry_of(it)[8] = (uint8_t)op; }

void towpath_set_flat(towpath_rewrite *it, bool flat) { entry_of(it)[9] = flat ? 1 : 0; }

void towpath_set_timestamp_ms(towpath_rewrite *it, int64_t timestamp_ms) {
    towpath_u64_to(entry_of(it) + 16, (uint64_t)timestamp_ms);
}

void towpath_set_partition(towpath_rewrite *it, int32_t partition) {
    towpath_u32_to(entry_of(it) + 4, (uint32_t)partition);
}

void towpath_set_topic(towpath_rewrite *it, towpath_text topic) {
    end_row(it);
    const size_t start = it->out->length;
    append(it, topic.at, topic.length);
    slot_to(it, TOWPATH_AT_TOPIC, start);
}

void towpath_set_headers(towpath_rewrite *it, const towpath_header *headers, size_t count) {
    end_row(it);
    const size_t start = it->out->length;
    for (size_t at = 0; at < count; at++) {
        const towpath_header *header = &headers[at];
        towpath_u32_to(room(it, 4), (uint32_t)header->name.length);
        append(it, header->name.at, header->name.length);
        const bool null = header->value.at == NULL;
        towpath_u32_to(room(it, 4), null ? TOWPATH_NOT_THERE : (uint32_t)header->value.length);
        append(it, header->value.at, null ? 0 : header->value.length);
    }
    slot_to(it, TOWPATH_AT_HEADERS, start);
}

void towpath_finish(towpath_rewrite *it) {
    entry_of(it);
    end_row(it);
    push(it->out, it->record);
    it->out->sealed = it->out->length;
    it->out->changed = true;
    /* Nothing more can be written of it. */
    it->out->serial++;
}

/* ---- The buffer ---- */

static uint8_t *head(uint8_t *buffer, const towpath_output *out, size_t base) {
    towpath_u32_to(buffer, TOWPATH_MAGIC);
    towpath_u32_to(buffer + 4, (uint32_t)out->count);
    towpath_u32_to(buffer + 8, (uint32_t)base);
    towpath_u32_to(buffer + 12, 0);
    return buffer;
}

/* What is kept of the incoming arena, in bytes. */
static size_t kept_bytes(const towpath_output *out) {
    size_t kept = 0;
    for (size_t index = 0; index < out->count; index++) {
        const uint8_t *entry = out->entries + index * TOWPATH_ENTRY_BYTES;
        for (size_t at = 0; at < TOWPATH_COUNT(SLOTS); at++) {
            const uint32_t start = towpath_u32_at(entry + SLOTS[at]);
            const uint32_t length = towpath_u32_at(entry + SLOTS[at] + 4);
            if (start < out->batch->base) {
                if (start < TOWPATH_HEAD_BYTES || length > out->batch->base - start) {
                    towpath_panic("a slot is outside of the arena");
                }
                kept += length;
            }
        }
    }
    return kept;
}

/* A buffer of what is kept and what was written alone. */
static uint8_t *gathered(towpath_output *out, size_t kept, size_t *length) {
    const size_t base = TOWPATH_HEAD_BYTES + kept + out->length;
    uint8_t *buffer = malloc(base + out->count * TOWPATH_ENTRY_BYTES);
    if (buffer == NULL) {
        towpath_panic("no memory for a batch of %zu bytes", base);
    }
    size_t end = TOWPATH_HEAD_BYTES;
    for (size_t index = 0; index < out->count; index++) {
        uint8_t *entry = out->entries + index * TOWPATH_ENTRY_BYTES;
        no_slot(entry + TOWPATH_AT_POSITION);
        for (size_t at = 0; at < TOWPATH_COUNT(SLOTS); at++) {
            uint8_t *slot = entry + SLOTS[at];
            const uint32_t start = towpath_u32_at(slot), size = towpath_u32_at(slot + 4);
            if (start == TOWPATH_NOT_THERE) {
                continue;
            }
            if (start < out->batch->base) {
                memcpy(buffer + end, out->batch->at + start, size);
                towpath_u32_to(slot, (uint32_t)end);
                end += size;
            } else {
                towpath_u32_to(slot, (uint32_t)(start - out->batch->base + TOWPATH_HEAD_BYTES + kept));
            }
        }
    }
    if (out->length > 0) {
        memcpy(buffer + end, out->parts, out->length);
    }
    if (out->count > 0) {
        memcpy(buffer + base, out->entries, out->count * TOWPATH_ENTRY_BYTES);
    }
    *length = base + out->count * TOWPATH_ENTRY_BYTES;
    return head(buffer, out, base);
}

/* What was written, and the entries, behind what came in. */
static uint8_t *in_place(towpath_output *out, uint8_t *incoming, size_t *length) {
    const size_t base = out->batch->base + out->length;
    *length = base + out->count * TOWPATH_ENTRY_BYTES;
    uint8_t *buffer = realloc(incoming, *length);
    if (buffer == NULL) {
        towpath_panic("no memory for a batch of %zu bytes", *length);
    }
    if (out->length > 0) {
        memcpy(buffer + out->batch->base, out->parts, out->length);
    }
    if (out->count > 0) {
        memcpy(buffer + base, out->entries, out->count * TOWPATH_ENTRY_BYTES);
    }
    return head(buffer, out, base);
}

uint8_t *towpath_output_finish(towpath_output *out, uint8_t *incoming, size_t *length) {
    out->length = out->sealed;
    uint8_t *buffer = incoming;
    if (!out->changed && out->count == out->batch->count) {
        *length = out->batch->base + out->count * TOWPATH_ENTRY_BYTES;
    } else {
        /* Where little is kept, it is not worth to send all of what came in. */
        const size_t kept = kept_bytes(out);
        if (kept < (out->batch->base - TOWPATH_HEAD_BYTES) / 2) {
            buffer = gathered(out, kept, length);
            free(incoming);
        } else {
            buffer = in_place(out, incoming, length);
        }
    }
    if (out->parts_room > HELD_BYTES_MAX) {
        free(out->parts);
        out->parts = NULL;
        out->parts_room = 0;
    }
    if (out->entries_room > HELD_BYTES_MAX / TOWPATH_ENTRY_BYTES) {
        free(out->entries);
        out->entries = NULL;
        out->entries_room = 0;
    }
    return buffer;
}

void towpath_output_forget(void) {
    free(output.parts);
    free(output.entries);
    memset(&output, 0, sizeof output);
}
