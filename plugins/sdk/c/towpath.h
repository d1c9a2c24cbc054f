/* Write a Towpath plugin in C: fill in one `towpath_transform`, and export it with `TOWPATH_EXPORT_TRANSFORM`.
 *
 * Memory: what `towpath_alloc` gives, and whatever these functions return, lasts until the call that asked for it
 * returns; in `open` it lasts as long as the instance. Nothing needs to be freed.
 *
 * A plugin that breaks the rules (a value of another type than its field's, a record that goes on twice) is stopped, and
 * Towpath's log says why: see `towpath_panic`. */
#ifndef TOWPATH_H
#define TOWPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define TOWPATH_FORMAT(at, first) __attribute__((format(printf, at, first)))
#define TOWPATH_NORETURN __attribute__((noreturn))
#else
#define TOWPATH_FORMAT(at, first)
#define TOWPATH_NORETURN
#endif

/* How many elements an array has. */
#define TOWPATH_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- Texts and bytes ---- */

/* UTF-8, so many bytes of it, without a zero at the end. `at` is NULL where there is none. */
typedef struct towpath_text {
    const char *at;
    size_t length;
} towpath_text;

typedef struct towpath_bytes {
    const uint8_t *at;
    size_t length;
} towpath_bytes;

/* For `"%.*s"`: `towpath_panic("`%.*s`", TOWPATH_SHOW(text))`. */
#define TOWPATH_SHOW(text) (int)(text).length, (text).at

static inline towpath_text towpath_text_of(const char *text) {
    towpath_text made = {text, strlen(text)};
    return made;
}

static inline bool towpath_text_equal(towpath_text one, towpath_text other) {
    return one.length == other.length && (one.length == 0 || memcmp(one.at, other.at, one.length) == 0);
}

static inline bool towpath_text_is(towpath_text text, const char *other) {
    return towpath_text_equal(text, towpath_text_of(other));
}

/* ---- Schemas ---- */

/* What a value is when it is no array. */
typedef enum towpath_scalar {
    TOWPATH_BOOLEAN,
    TOWPATH_INT16,
    TOWPATH_INT32,
    TOWPATH_INT64,
    TOWPATH_FLOAT32,
    TOWPATH_FLOAT64,
    TOWPATH_DECIMAL,
    TOWPATH_TEXT,
    TOWPATH_BYTES,
    TOWPATH_DATE,
    TOWPATH_TIME,
    TOWPATH_TIME_TZ,
    TOWPATH_TIMESTAMP,
    TOWPATH_TIMESTAMP_TZ,
    TOWPATH_INTERVAL,
    TOWPATH_UUID,
    TOWPATH_JSON,
} towpath_scalar;

/* One field of a row. */
typedef struct towpath_field {
    towpath_text name;
    towpath_scalar scalar;
    /* 0 for the scalar itself; else an array of so many dimensions, which is carried as JSON text. */
    uint8_t dimensions;
    bool nullable;
    /* The type as the source's system writes it, with the dialect in front; or none. */
    towpath_text source_type;
    /* The name before it was renamed, or none. */
    towpath_text renamed_from;
    /* What rows have in it that were there before the column was added, or none. */
    towpath_text initial;
    /* What the column is known by, whatever it is called. */
    bool has_id;
    uint64_t table;
    uint32_t column;
} towpath_field;

typedef struct towpath_fields {
    const towpath_field *at;
    size_t length;
} towpath_fields;

typedef struct towpath_pair {
    towpath_text name, value;
} towpath_pair;

typedef struct towpath_pairs {
    const towpath_pair *at;
    size_t length;
} towpath_pairs;

/* A column that its database computes: records do not carry it. */
typedef struct towpath_computed {
    towpath_text name, source_type, expression;
} towpath_computed;

typedef struct towpath_computed_columns {
    const towpath_computed *at;
    size_t length;
} towpath_computed_columns;

/* The schema of the records of one table, file or stream. */
typedef struct towpath_schema {
    /* `public.orders`. */
    towpath_text name;
    /* What `{…}` stands for in templates. */
    towpath_pairs variables;
    bool has_key;
    towpath_fields key;
    /* The fields of a row. */
    towpath_fields value;
    towpath_computed_columns computed;
    /* Debezium's `source` block: constant entries, and fields of each record. */
    bool has_source;
    towpath_pairs constants;
    towpath_fields source;
} towpath_schema;

/* A field that can be null. */
static inline towpath_field towpath_nullable(towpath_text name, towpath_scalar scalar) {
    towpath_field made;
    memset(&made, 0, sizeof made);
    made.name = name;
    made.scalar = scalar;
    made.nullable = true;
    return made;
}

/* The index of a field, or -1. */
ptrdiff_t towpath_fields_index(const towpath_fields *fields, towpath_text name);

/* The schema of a number, which stands for it as long as the instance lives; NULL where nobody knows it. */
const towpath_schema *towpath_schema_of(uint32_t number);

/* A number for a schema to write records of; the same schema gets the same number. False when there are too many, or it is
 * too large. */
bool towpath_define(const towpath_schema *schema, uint32_t *number);

/* ---- Values and rows ---- */

typedef enum towpath_kind {
    /* Not told by the source: never to be taken for null. */
    TOWPATH_IS_ABSENT,
    /* The database's NULL. */
    TOWPATH_IS_NULL,
    TOWPATH_IS_BOOL,
    /* Integers of any width. */
    TOWPATH_IS_INT,
    TOWPATH_IS_FLOAT32,
    TOWPATH_IS_FLOAT64,
    TOWPATH_IS_BYTES,
    /* Everything else, arrays among it. */
    TOWPATH_IS_TEXT,
} towpath_kind;

/* One field's value. */
typedef struct towpath_value {
    towpath_kind kind;
    union {
        bool flag;
        int64_t integer;
        float float32;
        double float64;
        towpath_bytes bytes;
        towpath_text text;
    } as;
} towpath_value;

/* A row of a record under its fields; `fields` is NULL where the record has no such row. */
typedef struct towpath_row {
    const towpath_fields *fields;
    const uint8_t *at;
    size_t length;
} towpath_row;

/* Whether the record has the row. */
static inline bool towpath_row_there(towpath_row row) { return row.fields != NULL; }

/* The value of a field; absent where there is no such field. */
towpath_value towpath_row_get(towpath_row row, size_t index);

/* The value of the field called so; absent where there is no such field. */
towpath_value towpath_row_by_name(towpath_row row, towpath_text name);

/* ---- Records ---- */

typedef enum towpath_op {
    /* A plain record. */
    TOWPATH_OP_NONE,
    TOWPATH_OP_CREATE,
    /* Read by a snapshot. */
    TOWPATH_OP_READ,
    TOWPATH_OP_UPDATE,
    TOWPATH_OP_DELETE,
    /* The whole table was truncated. */
    TOWPATH_OP_TRUNCATE,
    /* A null value that lets compaction forget the key. */
    TOWPATH_OP_TOMBSTONE,
} towpath_op;

typedef struct towpath_batch towpath_batch;
typedef struct towpath_known towpath_known;

/* One record of a batch; lasts as long as the batch. */
typedef struct towpath_record {
    const towpath_batch *batch;
    const towpath_known *known;
    const uint8_t *entry;
    uint32_t index;
} towpath_record;

/* How many records there are. */
size_t towpath_batch_length(const towpath_batch *batch);

/* A record by its index, which must be below the length. */
towpath_record towpath_batch_record(const towpath_batch *batch, size_t index);

const towpath_schema *towpath_record_schema(towpath_record record);
/* The number of its schema, which stands for it as long as the instance lives. */
uint32_t towpath_record_schema_number(towpath_record record);
towpath_op towpath_record_op(towpath_record record);
/* Whether formats write the row alone instead of the envelope. */
bool towpath_record_is_flat(towpath_record record);
/* Milliseconds since 1970 UTC. */
int64_t towpath_record_timestamp_ms(towpath_record record);
/* The offset in the partition it was read from; -1 on the way into a topic. */
int64_t towpath_record_offset(towpath_record record);
/* The partition chosen for it; -1 for none. */
int32_t towpath_record_partition(towpath_record record);
/* The topic chosen for it; none where `at` is NULL. */
towpath_text towpath_record_topic(towpath_record record);
towpath_row towpath_record_key(towpath_record record);
/* The row before the change. */
towpath_row towpath_record_before(towpath_record record);
/* The row after the change, or a plain record's row. */
towpath_row towpath_record_after(towpath_record record);
/* The row of the source block. */
towpath_row towpath_record_source(towpath_record record);

/* One header; its value may be null (`at` is NULL). */
typedef struct towpath_header {
    towpath_text name;
    towpath_bytes value;
} towpath_header;

typedef struct towpath_headers {
    const uint8_t *at;
    size_t length;
} towpath_headers;

towpath_headers towpath_record_headers(towpath_record record);

/* The next header; false where there is none left. */
bool towpath_headers_next(towpath_headers *headers, towpath_header *header);

/* ---- What goes on ---- */

typedef struct towpath_output towpath_output;

/* What is told of a failure, of a call or of one record. */
typedef struct towpath_details {
    /* A stable word in upper snake case, which users look up and alert on. */
    const char *code;
    /* One sentence, without secrets. */
    const char *message;
    /* What the user can do, or NULL. */
    const char *hint;
    /* The option at fault, as a path below the connector (`fields[1]`), or NULL. */
    const char *path;
} towpath_details;

/* Lets the record go on as it is. A record goes on at most once, and in the order in which it came. */
void towpath_keep(towpath_output *out, towpath_record record);

/* Sends the record, as it came, to the dead-letter topic. A hint may be set in what is returned, before the next one. */
towpath_details *towpath_reject(towpath_output *out, towpath_record record, const char *code, const char *format, ...)
    TOWPATH_FORMAT(4, 5);

/* A record on its way out; without `towpath_finish` it does not go on. One at a time: what is written of it is forgotten when
 * another is begun or kept. Its parts are not for authors. */
typedef struct towpath_rewrite {
    towpath_output *out;
    towpath_record record;
    const towpath_known *known;
    const towpath_fields *fields;
    size_t slot, start, field;
    uint32_t serial;
    bool images, in_parts;
} towpath_rewrite;

/* Lets the record go on, but for what is written of it. */
towpath_rewrite towpath_rewrite_record(towpath_output *out, towpath_record record);

/* Lets the record go on under another schema: its images are those that are written, its key and source block stay. */
towpath_rewrite towpath_rewrite_as(towpath_output *out, towpath_record record, uint32_t schema);

/* Begin a row; its values follow in the order of the schema, and those that do not are absent. */
void towpath_begin_key(towpath_rewrite *it);
void towpath_begin_before(towpath_rewrite *it);
void towpath_begin_after(towpath_rewrite *it);

/* The next value of the row, which must be of the field's type. */
void towpath_put(towpath_rewrite *it, towpath_value value);
void towpath_put_absent(towpath_rewrite *it);
void towpath_put_null(towpath_rewrite *it);
void towpath_put_bool(towpath_rewrite *it, bool value);
void towpath_put_int(towpath_rewrite *it, int64_t value);
void towpath_put_float32(towpath_rewrite *it, float value);
void towpath_put_float64(towpath_rewrite *it, double value);
void towpath_put_bytes(towpath_rewrite *it, const void *at, size_t length);
void towpath_put_text(towpath_rewrite *it, towpath_text value);
void towpath_put_format(towpath_rewrite *it, const char *format, ...) TOWPATH_FORMAT(2, 3);
/* A text part by part, where it goes, without a copy of its own; `towpath_put_parts_end` ends it. */
void towpath_put_part(towpath_rewrite *it, towpath_text part);
void towpath_put_parts_end(towpath_rewrite *it);
/* A field of another row as it stands there. */
void towpath_put_copy(towpath_rewrite *it, towpath_row row, size_t index);

/* A field that gets another value. */
typedef struct towpath_change {
    size_t index;
    towpath_value value;
} towpath_change;

/* Writes these fields of the row after the change anew; the others stay. */
void towpath_change_after(towpath_rewrite *it, const towpath_change *changes, size_t count);

void towpath_set_op(towpath_rewrite *it, towpath_op op);
void towpath_set_flat(towpath_rewrite *it, bool flat);
void towpath_set_timestamp_ms(towpath_rewrite *it, int64_t timestamp_ms);
void towpath_set_topic(towpath_rewrite *it, towpath_text topic);
void towpath_set_partition(towpath_rewrite *it, int32_t partition);
/* Replaces all headers. */
void towpath_set_headers(towpath_rewrite *it, const towpath_header *headers, size_t count);

/* The record goes on; what has not been written stays. */
void towpath_finish(towpath_rewrite *it);

/* ---- Failures ---- */

typedef enum towpath_failure {
    /* The world may heal by itself: try again, and not before `delay_ms` have passed. */
    TOWPATH_RETRY_AFTER,
    /* Somebody has to change something outside. */
    TOWPATH_NEEDS_OPERATOR,
    /* Going on would lose or falsify data, or can never work. */
    TOWPATH_TERMINAL,
} towpath_failure;

/* Why a call failed. */
typedef struct towpath_error {
    towpath_failure kind;
    uint64_t delay_ms;
    towpath_details why;
} towpath_error;

towpath_error *towpath_retry_after(uint64_t delay_ms, const char *code, const char *format, ...) TOWPATH_FORMAT(3, 4);
towpath_error *towpath_needs_operator(const char *code, const char *format, ...) TOWPATH_FORMAT(2, 3);
towpath_error *towpath_terminal(const char *code, const char *format, ...) TOWPATH_FORMAT(2, 3);

/* Ends the instance, as a crash does; the record at which it happened goes to the dead-letter topic. */
TOWPATH_NORETURN void towpath_panic(const char *format, ...) TOWPATH_FORMAT(1, 2);

/* ---- Options ---- */

typedef enum towpath_element_kind {
    TOWPATH_ELEMENT_BOOLEAN,
    TOWPATH_ELEMENT_INTEGER,
    TOWPATH_ELEMENT_TEXT,
    TOWPATH_ELEMENT_NON_EMPTY_TEXT,
    TOWPATH_ELEMENT_URL,
    TOWPATH_ELEMENT_PATH,
    /* `10s`; read as milliseconds. */
    TOWPATH_ELEMENT_DURATION,
    /* `64KiB`; read as bytes. */
    TOWPATH_ELEMENT_BYTE_SIZE,
    TOWPATH_ELEMENT_ONE_OF,
    /* Text, number, boolean or null. */
    TOWPATH_ELEMENT_SCALAR,
    /* Any YAML. */
    TOWPATH_ELEMENT_ANY,
} towpath_element_kind;

/* One word of a choice, and what it means. */
typedef struct towpath_choice {
    const char *name, *doc;
} towpath_choice;

/* What a single value of an option is. */
typedef struct towpath_element {
    towpath_element_kind kind;
    /* Of a number: the least and the most, both included. */
    int64_t min, max;
    /* Of a URL: its schemes, each without `://`; NULL ends them. */
    const char *const *schemes;
    /* Of a choice: its words; one without a name ends them. */
    const towpath_choice *choices;
} towpath_element;

typedef enum towpath_shape {
    /* One value. */
    TOWPATH_ONE,
    /* A list. */
    TOWPATH_MANY,
    /* A map. */
    TOWPATH_BY_KEY,
} towpath_shape;

/* One option in the YAML. Towpath validates it, with line and column, before the plugin sees it. */
typedef struct towpath_option {
    const char *name;
    /* What it does, in a sentence or two. */
    const char *doc;
    towpath_element element;
    towpath_shape shape;
    bool required;
    /* Whether its value must never be shown. */
    bool secret;
    /* What counts when it is not given, or NULL: JSON in normal form (`"4"`, `"\"hash\""`). */
    const char *default_json;
} towpath_option;

/* The options of this instance, as they were validated, with defaults filled in. False, or an empty list, where an option is
 * not given. Texts have a zero at their end. */
bool towpath_config_text(const char *name, towpath_text *value);
/* A number, a duration in milliseconds, or a size in bytes. */
bool towpath_config_integer(const char *name, int64_t *value);
bool towpath_config_flag(const char *name, bool *value);
/* The texts of a list; how many there are is returned. */
size_t towpath_config_texts(const char *name, const towpath_text **values);
/* Any option as JSON. */
bool towpath_config_json(const char *name, towpath_text *value);

typedef struct towpath_problems towpath_problems;

/* Tells what is wrong with an option: `path` is the option (`fields[1]`), or "" for all of them. A hint may be set in what is
 * returned, before the next one. */
towpath_details *towpath_problem(towpath_problems *problems, const char *path, const char *format, ...)
    TOWPATH_FORMAT(3, 4);

/* ---- What the host does for a plugin ---- */

typedef enum towpath_level {
    TOWPATH_DEBUG,
    TOWPATH_INFO,
    TOWPATH_WARN,
    TOWPATH_ERROR,
} towpath_level;

/* Writes a line into Towpath's log. */
void towpath_log(towpath_level level, const char *format, ...) TOWPATH_FORMAT(2, 3);
/* Milliseconds since 1970 UTC. */
int64_t towpath_now_ms(void);
/* Nanoseconds of a clock that never goes back. */
uint64_t towpath_monotonic_ns(void);
/* Random bytes, at most 64 KiB at a time. */
void towpath_random(void *to, size_t length);

/* Zeroed memory, aligned for anything; see the top of this file for how long it lasts. Never NULL. */
void *towpath_alloc(size_t length);
/* The same, as long as the instance. */
void *towpath_alloc_instance(size_t length);
/* A text as `printf` makes it. */
towpath_text towpath_format(const char *format, ...) TOWPATH_FORMAT(1, 2);

/* ---- The plugin ---- */

/* What changes records on their way. It may keep state (counts, caches), but no records: after a crash it is given them
 * again, in a new instance. */
typedef struct towpath_transform {
    const char *name, *version;
    /* One line. */
    const char *summary;
    const towpath_option *options;
    size_t option_count;
    /* Tells what is wrong with options that fit their types; all of it at once. May be NULL. */
    void (*check)(towpath_problems *problems);
    /* Opens the instance: what it writes to `instance` is given to `process`. NULL where it worked. May be NULL. */
    const towpath_error *(*open)(void **instance);
    /* Transforms one batch, which may be empty: what is to go on is written to `out`, in the order in which it came. A
     * record of which nothing is said is dropped. NULL where it worked; a record that it cannot handle is rejected. */
    const towpath_error *(*process)(void *instance, const towpath_batch *batch, towpath_output *out);
} towpath_transform;

/* The transform of this component. */
extern const towpath_transform towpath_exported;

/* Exports a transform, once in a plugin: `TOWPATH_EXPORT_TRANSFORM = { .name = … };`. */
#define TOWPATH_EXPORT_TRANSFORM const towpath_transform towpath_exported

#ifdef __cplusplus
}
#endif
#endif
