/* Memory, schemas, and reading the batch that comes in. Its form stands in the contract's README. */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/* ---- Memory ---- */

typedef struct chunk {
    struct chunk *before;
    size_t used, room;
} chunk;

enum { CHUNK_BYTES = 64 << 10, ALIGNMENT = 16, CHUNK_HEAD = (sizeof(chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT };

/* Of the call, and of the instance. */
static chunk *called, *kept;

static void *from_chunks(chunk **last, size_t length) {
    if (length > SIZE_MAX / 2) {
        towpath_panic("%zu bytes are more than there can be", length);
    }
    length = (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (*last == NULL || (*last)->room - (*last)->used < length) {
        size_t room = length > CHUNK_BYTES ? length : CHUNK_BYTES;
        chunk *made = malloc(CHUNK_HEAD + room);
        if (made == NULL) {
            towpath_panic("no memory for %zu bytes", length);
        }
        made->before = *last;
        made->used = 0;
        made->room = room;
        *last = made;
    }
    uint8_t *at = (uint8_t *)*last + CHUNK_HEAD + (*last)->used;
    (*last)->used += length;
    memset(at, 0, length);
    return at;
}

static void free_chunks(chunk *last) {
    while (last != NULL) {
        chunk *before = last->before;
        free(last);
        last = before;
    }
}

void *towpath_alloc(size_t length) { return from_chunks(&called, length); }

void *towpath_alloc_instance(size_t length) { return from_chunks(&kept, length); }

void towpath_arena_reset(void) {
    if (called == NULL) {
        return;
    }
    /* One chunk of the usual size stays for the next call. */
    chunk *stays = called->room == CHUNK_BYTES ? called : NULL;
    free_chunks(stays == NULL ? called : called->before);
    called = stays;
    if (stays != NULL) {
        stays->before = NULL;
        stays->used = 0;
    }
}

void towpath_arena_keep(void) {
    chunk *first = called;
    if (first == NULL) {
        return;
    }
    while (first->before != NULL) {
        first = first->before;
    }
    first->before = kept;
    kept = called;
    called = NULL;
}

void *towpath_grown(void *at, size_t *room, size_t count, size_t size) {
    if (count <= *room) {
        return at;
    }
    size_t wished = *room < 64 ? 64 : *room;
    while (wished < count) {
        wished = wished > SIZE_MAX / 4 ? count : wished * 2;
    }
    if (wished > SIZE_MAX / 2 / size) {
        towpath_panic("%zu elements are more than there can be", count);
    }
    void *grown = realloc(at, wished * size);
    if (grown == NULL && wished > count) {
        /* Where memory is short, no more than is needed. */
        wished = count;
        grown = realloc(at, wished * size);
    }
    if (grown == NULL) {
        towpath_panic("no memory for %zu bytes", wished * size);
    }
    *room = wished;
    return grown;
}

/* ---- Messages ---- */

char *towpath_vformat(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *made = towpath_alloc(length < 0 ? 1 : (size_t)length + 1);
    if (length > 0) {
        vsnprintf(made, (size_t)length + 1, format, arguments);
    }
    return made;
}

towpath_text towpath_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    towpath_text made = towpath_text_of(towpath_vformat(format, arguments));
    va_end(arguments);
    return made;
}

void towpath_log(towpath_level level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    towpath_host_log(level, towpath_vformat(format, arguments));
    va_end(arguments);
}

void towpath_panic(const char *format, ...) {
    /* Not of the arena: that there is no memory must be told, too. */
    static char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    towpath_host_log(TOWPATH_ERROR, message);
    towpath_host_stop();
}

static towpath_error *failed(towpath_failure kind, const char *code, const char *format, va_list arguments) {
    towpath_error *error = towpath_alloc(sizeof *error);
    error->kind = kind;
    error->why.code = code;
    error->why.message = towpath_vformat(format, arguments);
    return error;
}

towpath_error *towpath_retry_after(uint64_t delay_ms, const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    towpath_error *error = failed(TOWPATH_RETRY_AFTER, code, format, arguments);
    va_end(arguments);
    error->delay_ms = delay_ms;
    return error;
}

towpath_error *towpath_needs_operator(const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    towpath_error *error = failed(TOWPATH_NEEDS_OPERATOR, code, format, arguments);
    va_end(arguments);
    return error;
}

towpath_error *towpath_terminal(const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    towpath_error *error = failed(TOWPATH_TERMINAL, code, format, arguments);
    va_end(arguments);
    return error;
}

towpath_details *towpath_problem(towpath_problems *problems, const char *path, const char *format, ...) {
    if (problems->count == problems->room) {
        size_t room = problems->room == 0 ? 16 : problems->room * 2;
        towpath_found *grown = towpath_alloc(room * sizeof *grown);
        if (problems->count > 0) {
            memcpy(grown, problems->at, problems->count * sizeof *grown);
        }
        problems->at = grown;
        problems->room = room;
    }
    towpath_found *found = &problems->at[problems->count++];
    va_list arguments;
    va_start(arguments, format);
    found->path = towpath_format("%s", path).at;
    found->why.message = towpath_vformat(format, arguments);
    va_end(arguments);
    return &found->why;
}

/* ---- Schemas ---- */

/* The schemas that the instance knows, by their numbers: a table that is at most half full. */
static struct {
    const towpath_known **at;
    size_t count, room;
    /* The one that was asked for last. */
    const towpath_known *last;
} known;

static size_t place_of(uint32_t number) {
    size_t at = (number * 2654435769u) & (known.room - 1);
    while (known.at[at] != NULL && known.at[at]->number != number) {
        at = (at + 1) & (known.room - 1);
    }
    return at;
}

static void remember(const towpath_known *schema) {
    if (known.count * 2 >= known.room) {
        size_t room = known.room == 0 ? 16 : known.room * 2;
        const towpath_known **before = known.at;
        size_t count = known.room;
        known.at = calloc(room, sizeof *known.at);
        if (known.at == NULL) {
            towpath_panic("no memory for %zu schemas", room);
        }
        known.room = room;
        for (size_t at = 0; at < count; at++) {
            if (before[at] != NULL) {
                known.at[place_of(before[at]->number)] = before[at];
            }
        }
        free(before);
    }
    known.at[place_of(schema->number)] = schema;
    known.count++;
}

const towpath_known *towpath_known_of(uint32_t number) {
    if (known.last != NULL && known.last->number == number) {
        return known.last;
    }
    const towpath_known *found = known.room == 0 ? NULL : known.at[place_of(number)];
    if (found == NULL) {
        towpath_schema schema;
        if (!towpath_host_schema(number, &schema)) {
            return NULL;
        }
        towpath_known *made = towpath_alloc_instance(sizeof *made);
        made->number = number;
        made->schema = schema;
        remember(made);
        found = made;
    }
    known.last = found;
    return found;
}

const towpath_schema *towpath_schema_of(uint32_t number) {
    const towpath_known *found = towpath_known_of(number);
    return found == NULL ? NULL : &found->schema;
}

bool towpath_define(const towpath_schema *schema, uint32_t *number) { return towpath_host_define(schema, number); }

ptrdiff_t towpath_fields_index(const towpath_fields *fields, towpath_text name) {
    for (size_t at = 0; at < fields->length; at++) {
        if (towpath_text_equal(fields->at[at].name, name)) {
            return (ptrdiff_t)at;
        }
    }
    return -1;
}

void towpath_forget(void) {
    free(known.at);
    memset(&known, 0, sizeof known);
    free_chunks(called);
    free_chunks(kept);
    called = kept = NULL;
}

/* ---- Rows ---- */

/* What the values of a field are, when they are there. */
towpath_kind towpath_field_kind(const towpath_field *field) {
    if (field->dimensions > 0) {
        return TOWPATH_IS_TEXT;
    }
    switch (field->scalar) {
    case TOWPATH_BOOLEAN:
        return TOWPATH_IS_BOOL;
    case TOWPATH_INT16:
    case TOWPATH_INT32:
    case TOWPATH_INT64:
        return TOWPATH_IS_INT;
    case TOWPATH_FLOAT32:
        return TOWPATH_IS_FLOAT32;
    case TOWPATH_FLOAT64:
        return TOWPATH_IS_FLOAT64;
    case TOWPATH_BYTES:
        return TOWPATH_IS_BYTES;
    default:
        return TOWPATH_IS_TEXT;
    }
}

uint32_t towpath_row_raw(towpath_row row, size_t index, towpath_bytes *bytes) {
    /* The row was found to hold its table when it was made. */
    const uint32_t entry = towpath_u32_at(row.at + index * 4);
    const uint32_t end = entry & TOWPATH_END_MASK;
    const uint32_t from = index == 0 ? 0 : towpath_u32_at(row.at + index * 4 - 4) & TOWPATH_END_MASK;
    const size_t table = row.fields->length * 4;
    if (from > end || end > row.length - table) {
        towpath_panic("a field is outside of its row");
    }
    bytes->at = row.at + table + from;
    bytes->length = end - from;
    return entry >> TOWPATH_STATE_SHIFT;
}

static void has_width(towpath_bytes bytes, size_t width) {
    if (bytes.length != width) {
        towpath_panic("a field has the wrong width");
    }
}

towpath_value towpath_row_get(towpath_row row, size_t index) {
    towpath_value value;
    memset(&value, 0, sizeof value);
    if (row.fields == NULL || index >= row.fields->length) {
        return value;
    }
    towpath_bytes bytes;
    const uint32_t state = towpath_row_raw(row, index, &bytes);
    if (state != 0) {
        value.kind = state == 1 ? TOWPATH_IS_NULL : TOWPATH_IS_ABSENT;
        return value;
    }
    value.kind = towpath_field_kind(&row.fields->at[index]);
    switch (value.kind) {
    case TOWPATH_IS_BOOL:
        has_width(bytes, 1);
        value.as.flag = bytes.at[0] != 0;
        break;
    case TOWPATH_IS_INT:
        has_width(bytes, 8);
        value.as.integer = (int64_t)towpath_u64_at(bytes.at);
        break;
    case TOWPATH_IS_FLOAT32: {
        has_width(bytes, 4);
        const uint32_t bits = towpath_u32_at(bytes.at);
        memcpy(&value.as.float32, &bits, sizeof bits);
        break;
    }
    case TOWPATH_IS_FLOAT64: {
        has_width(bytes, 8);
        const uint64_t bits = towpath_u64_at(bytes.at);
        memcpy(&value.as.float64, &bits, sizeof bits);
        break;
    }
    case TOWPATH_IS_BYTES:
        value.as.bytes = bytes;
        break;
    default:
        value.as.text.at = (const char *)bytes.at;
        value.as.text.length = bytes.length;
    }
    return value;
}

towpath_value towpath_row_by_name(towpath_row row, towpath_text name) {
    const ptrdiff_t index = row.fields == NULL ? -1 : towpath_fields_index(row.fields, name);
    return towpath_row_get(row, index < 0 ? SIZE_MAX : (size_t)index);
}

/* ---- Records ---- */

const char *towpath_batch_read(towpath_batch *batch, const uint8_t *at, size_t length) {
    if (length < TOWPATH_HEAD_BYTES) {
        return "it is shorter than its head";
    }
    if (towpath_u32_at(at) != TOWPATH_MAGIC) {
        return "it does not begin with TPB1";
    }
    batch->at = at;
    batch->count = towpath_u32_at(at + 4);
    batch->base = towpath_u32_at(at + 8);
    if (batch->base < TOWPATH_HEAD_BYTES || batch->base > length ||
        batch->count != (length - batch->base) / TOWPATH_ENTRY_BYTES ||
        (length - batch->base) % TOWPATH_ENTRY_BYTES != 0) {
        return "its entries are at a wrong place";
    }
    return NULL;
}

size_t towpath_batch_length(const towpath_batch *batch) { return batch->count; }

towpath_record towpath_batch_record(const towpath_batch *batch, size_t index) {
    if (index >= batch->count) {
        towpath_panic("the batch has no record %zu", index);
    }
    const uint8_t *entry = batch->at + batch->base + index * TOWPATH_ENTRY_BYTES;
    const towpath_known *schema = towpath_known_of(towpath_u32_at(entry));
    if (schema == NULL) {
        towpath_panic("nobody knows the schema %u", (unsigned)towpath_u32_at(entry));
    }
    towpath_record record = {batch, schema, entry, (uint32_t)index};
    return record;
}

const towpath_schema *towpath_record_schema(towpath_record record) { return &record.known->schema; }

uint32_t towpath_record_schema_number(towpath_record record) { return record.known->number; }

towpath_op towpath_record_op(towpath_record record) {
    return record.entry[8] <= TOWPATH_OP_TOMBSTONE ? (towpath_op)record.entry[8] : TOWPATH_OP_NONE;
}

bool towpath_record_is_flat(towpath_record record) { return record.entry[9] == 1; }

int64_t towpath_record_timestamp_ms(towpath_record record) { return (int64_t)towpath_u64_at(record.entry + 16); }

int64_t towpath_record_offset(towpath_record record) { return (int64_t)towpath_u64_at(record.entry + 24); }

int32_t towpath_record_partition(towpath_record record) {
    const int32_t partition = (int32_t)towpath_u32_at(record.entry + 4);
    return partition < 0 ? -1 : partition;
}

static bool slot_of(towpath_record record, size_t at, towpath_bytes *bytes) {
    const uint32_t start = towpath_u32_at(record.entry + at);
    const uint32_t length = towpath_u32_at(record.entry + at + 4);
    if (start == TOWPATH_NOT_THERE) {
        return false;
    }
    if (start < TOWPATH_HEAD_BYTES || start > record.batch->base || length > record.batch->base - start) {
        towpath_panic("a slot is outside of the arena");
    }
    bytes->at = record.batch->at + start;
    bytes->length = length;
    return true;
}

static towpath_row row_of(towpath_record record, size_t at, bool there, const towpath_fields *fields) {
    towpath_row row = {NULL, NULL, 0};
    towpath_bytes bytes;
    if (!there || !slot_of(record, at, &bytes)) {
        return row;
    }
    if (bytes.length / 4 < fields->length) {
        towpath_panic("a row is shorter than its table");
    }
    row.fields = fields;
    row.at = bytes.at;
    row.length = bytes.length;
    return row;
}

towpath_row towpath_record_key(towpath_record record) {
    return row_of(record, TOWPATH_AT_KEY, record.known->schema.has_key, &record.known->schema.key);
}

towpath_row towpath_record_before(towpath_record record) {
    return row_of(record, TOWPATH_AT_BEFORE, true, &record.known->schema.value);
}

towpath_row towpath_record_after(towpath_record record) {
    return row_of(record, TOWPATH_AT_AFTER, true, &record.known->schema.value);
}

towpath_row towpath_record_source(towpath_record record) {
    return row_of(record, TOWPATH_AT_SOURCE, record.known->schema.has_source, &record.known->schema.source);
}

towpath_text towpath_record_topic(towpath_record record) {
    towpath_text topic = {NULL, 0};
    towpath_bytes bytes;
    if (slot_of(record, TOWPATH_AT_TOPIC, &bytes)) {
        topic.at = (const char *)bytes.at;
        topic.length = bytes.length;
    }
    return topic;
}

towpath_headers towpath_record_headers(towpath_record record) {
    towpath_headers headers = {NULL, 0};
    towpath_bytes bytes;
    if (slot_of(record, TOWPATH_AT_HEADERS, &bytes)) {
        headers.at = bytes.at;
        headers.length = bytes.length;
    }
    return headers;
}

static towpath_bytes header_part(towpath_headers *headers) {
    towpath_bytes part = {NULL, 0};
    if (headers->length < 4) {
        towpath_panic("a header is outside of its record");
    }
    const uint32_t length = towpath_u32_at(headers->at);
    headers->at += 4;
    headers->length -= 4;
    if (length == TOWPATH_NOT_THERE) {
        return part;
    }
    if (length > headers->length) {
        towpath_panic("a header is outside of its record");
    }
    part.at = headers->at;
    part.length = length;
    headers->at += length;
    headers->length -= length;
    return part;
}

bool towpath_headers_next(towpath_headers *headers, towpath_header *header) {
    if (headers->length == 0) {
        return false;
    }
    const towpath_bytes name = header_part(headers);
    if (name.at == NULL) {
        towpath_panic("a header has no name");
    }
    header->name.at = (const char *)name.at;
    header->name.length = name.length;
    header->value = header_part(headers);
    return true;
}
