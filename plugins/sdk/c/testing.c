/* What stands in for the host in tests. */
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

enum { SETTINGS_MAX = 64, SCHEMAS_MAX = 1024 };

typedef enum setting_kind { OF_TEXT, OF_INTEGER, OF_FLAG, OF_LIST, OF_JSON } setting_kind;

typedef struct setting {
    setting_kind kind;
    const char *name, *text;
    int64_t integer;
    bool flag;
} setting;

static struct {
    setting settings[SETTINGS_MAX];
    size_t setting_count;
    /* Each with what it is made of, by which the same one is found again. */
    struct {
        towpath_schema schema;
        uint8_t *spelled;
        size_t length;
    } schemas[SCHEMAS_MAX];
    uint32_t schema_count;
    /* The batch that is being written, without its head. */
    uint8_t *arena, *entries;
    size_t arena_length, arena_room, entry_count, entry_room;
    uint8_t *given;
    size_t given_length;
    const towpath_transform *transform;
    void *instance;
    /* The batch that went on. */
    uint8_t *answer;
    towpath_batch passed;
    towpath_rejected *rejected;
    size_t rejected_count;
    towpath_problems problems;
    char line[512];
} test;

jmp_buf towpath_test_stopped;
bool towpath_test_catch;

/* ---- The host ---- */

void towpath_host_log(towpath_level level, char *message) {
    (void)level;
    snprintf(test.line, sizeof test.line, "%s", message);
}

void towpath_host_stop(void) {
    if (towpath_test_catch) {
        towpath_test_catch = false;
        longjmp(towpath_test_stopped, 1);
    }
    fprintf(stderr, "the plugin was stopped: %s\n", test.line);
    abort();
}

const char *towpath_test_last_line(void) { return test.line; }

int64_t towpath_now_ms(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t towpath_monotonic_ns(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Good enough for tests. */
void towpath_random(void *to, size_t length) {
    for (size_t at = 0; at < length; at++) {
        ((uint8_t *)to)[at] = (uint8_t)(rand() >> 7);
    }
}

static const setting *setting_of(setting_kind kind, const char *name) {
    for (size_t at = 0; at < test.setting_count; at++) {
        if (test.settings[at].kind == kind && strcmp(test.settings[at].name, name) == 0) {
            return &test.settings[at];
        }
    }
    return NULL;
}

bool towpath_config_text(const char *name, towpath_text *value) {
    const setting *found = setting_of(OF_TEXT, name);
    if (found != NULL) {
        *value = towpath_text_of(found->text);
    }
    return found != NULL;
}

bool towpath_config_integer(const char *name, int64_t *value) {
    const setting *found = setting_of(OF_INTEGER, name);
    if (found != NULL) {
        *value = found->integer;
    }
    return found != NULL;
}

bool towpath_config_flag(const char *name, bool *value) {
    const setting *found = setting_of(OF_FLAG, name);
    if (found != NULL) {
        *value = found->flag;
    }
    return found != NULL;
}

size_t towpath_config_texts(const char *name, const towpath_text **values) {
    towpath_text *made = towpath_alloc(test.setting_count * sizeof *made);
    size_t count = 0;
    for (size_t at = 0; at < test.setting_count; at++) {
        if (test.settings[at].kind == OF_LIST && strcmp(test.settings[at].name, name) == 0) {
            made[count++] = towpath_text_of(test.settings[at].text);
        }
    }
    *values = made;
    return count;
}

bool towpath_config_json(const char *name, towpath_text *value) {
    const setting *found = setting_of(OF_JSON, name);
    if (found != NULL) {
        *value = towpath_text_of(found->text);
    }
    return found != NULL;
}

/* ---- Schemas ---- */

/* A copy in memory of the instance, and what was copied, one after the other. */
typedef struct copier {
    uint8_t *at;
    size_t length, room;
} copier;

static void spell(copier *to, const void *at, size_t length) {
    to->at = towpath_grown(to->at, &to->room, to->length + length + 1, 1);
    if (length > 0) {
        memcpy(to->at + to->length, at, length);
    }
    to->length += length;
}

static void spell_number(copier *to, uint64_t number) { spell(to, &number, sizeof number); }

static towpath_text copy_text(copier *to, towpath_text text) {
    spell_number(to, text.at == NULL ? UINT64_MAX : text.length);
    spell(to, text.at, text.length);
    if (text.at == NULL) {
        return text;
    }
    char *made = towpath_alloc_instance(text.length + 1);
    memcpy(made, text.at, text.length);
    towpath_text copied = {made, text.length};
    return copied;
}

static towpath_fields copy_fields(copier *to, towpath_fields from) {
    towpath_field *made = towpath_alloc_instance(from.length * sizeof *made);
    spell_number(to, from.length);
    for (size_t at = 0; at < from.length; at++) {
        const towpath_field *field = &from.at[at];
        made[at] = *field;
        made[at].name = copy_text(to, field->name);
        made[at].source_type = copy_text(to, field->source_type);
        made[at].renamed_from = copy_text(to, field->renamed_from);
        made[at].initial = copy_text(to, field->initial);
        spell_number(to, (uint64_t)field->scalar << 16 | (uint64_t)field->dimensions << 8 | field->nullable);
        spell_number(to, field->has_id ? field->table : UINT64_MAX);
        spell_number(to, field->has_id ? field->column : UINT64_MAX);
    }
    towpath_fields copied = {made, from.length};
    return copied;
}

static towpath_pairs copy_pairs(copier *to, towpath_pairs from) {
    towpath_pair *made = towpath_alloc_instance(from.length * sizeof *made);
    spell_number(to, from.length);
    for (size_t at = 0; at < from.length; at++) {
        made[at].name = copy_text(to, from.at[at].name);
        made[at].value = copy_text(to, from.at[at].value);
    }
    towpath_pairs copied = {made, from.length};
    return copied;
}

static towpath_schema copy_schema(copier *to, const towpath_schema *from) {
    towpath_schema made = *from;
    made.name = copy_text(to, from->name);
    made.variables = copy_pairs(to, from->variables);
    spell_number(to, from->has_key);
    made.key = copy_fields(to, from->key);
    made.value = copy_fields(to, from->value);
    towpath_computed *computed = towpath_alloc_instance(from->computed.length * sizeof *computed);
    spell_number(to, from->computed.length);
    for (size_t at = 0; at < from->computed.length; at++) {
        computed[at].name = copy_text(to, from->computed.at[at].name);
        computed[at].source_type = copy_text(to, from->computed.at[at].source_type);
        computed[at].expression = copy_text(to, from->computed.at[at].expression);
    }
    made.computed.at = computed;
    spell_number(to, from->has_source);
    made.constants = copy_pairs(to, from->constants);
    made.source = copy_fields(to, from->source);
    return made;
}

bool towpath_host_schema(uint32_t number, towpath_schema *schema) {
    if (number >= test.schema_count) {
        return false;
    }
    *schema = test.schemas[number].schema;
    return true;
}

bool towpath_host_define(const towpath_schema *schema, uint32_t *number) {
    copier to = {NULL, 0, 0};
    towpath_schema made = copy_schema(&to, schema);
    for (uint32_t at = 0; at < test.schema_count; at++) {
        if (test.schemas[at].length == to.length && memcmp(test.schemas[at].spelled, to.at, to.length) == 0) {
            free(to.at);
            *number = at;
            return true;
        }
    }
    if (test.schema_count == SCHEMAS_MAX) {
        free(to.at);
        return false;
    }
    test.schemas[test.schema_count].schema = made;
    test.schemas[test.schema_count].spelled = to.at;
    test.schemas[test.schema_count].length = to.length;
    *number = test.schema_count++;
    return true;
}

/* ---- Options ---- */

void towpath_test_begin(void) {
    towpath_test_end();
    memset(&test, 0, sizeof test);
}

void towpath_test_end(void) {
    for (uint32_t at = 0; at < test.schema_count; at++) {
        free(test.schemas[at].spelled);
    }
    free(test.arena);
    free(test.entries);
    free(test.given);
    free(test.answer);
    towpath_output_forget();
    towpath_forget();
    memset(&test, 0, sizeof test);
}

static setting *add(setting_kind kind, const char *name) {
    if (test.setting_count == SETTINGS_MAX) {
        towpath_panic("a test has at most %d options", (int)SETTINGS_MAX);
    }
    setting *made = &test.settings[test.setting_count++];
    made->kind = kind;
    made->name = name;
    return made;
}

void towpath_test_text(const char *name, const char *value) { add(OF_TEXT, name)->text = value; }

void towpath_test_integer(const char *name, int64_t value) { add(OF_INTEGER, name)->integer = value; }

void towpath_test_flag(const char *name, bool value) { add(OF_FLAG, name)->flag = value; }

void towpath_test_list(const char *name, const char *value) { add(OF_LIST, name)->text = value; }

void towpath_test_json(const char *name, const char *json) { add(OF_JSON, name)->text = json; }

size_t towpath_test_check(const towpath_transform *transform) {
    memset(&test.problems, 0, sizeof test.problems);
    if (transform->check != NULL) {
        transform->check(&test.problems);
    }
    return test.problems.count;
}

const char *towpath_test_problem(size_t index, const towpath_details **details) {
    if (index >= test.problems.count) {
        towpath_panic("there is no problem %zu", index);
    }
    if (details != NULL) {
        *details = &test.problems.at[index].why;
    }
    return test.problems.at[index].path;
}

const towpath_error *towpath_test_open(const towpath_transform *transform) {
    test.transform = transform;
    const towpath_error *error = transform->open == NULL ? NULL : transform->open(&test.instance);
    towpath_arena_keep();
    return error;
}

/* ---- Records ---- */

towpath_value towpath_test_null(void) {
    towpath_value made;
    memset(&made, 0, sizeof made);
    made.kind = TOWPATH_IS_NULL;
    return made;
}

towpath_value towpath_test_int(int64_t value) {
    towpath_value made = towpath_test_null();
    made.kind = TOWPATH_IS_INT;
    made.as.integer = value;
    return made;
}

towpath_value towpath_test_float64(double value) {
    towpath_value made = towpath_test_null();
    made.kind = TOWPATH_IS_FLOAT64;
    made.as.float64 = value;
    return made;
}

towpath_value towpath_test_string(const char *value) {
    towpath_value made = towpath_test_null();
    made.kind = TOWPATH_IS_TEXT;
    made.as.text = towpath_text_of(value);
    return made;
}

/* Appends to the arena, and fills the slot. */
static void part(uint8_t *slot, const uint8_t *at, size_t length) {
    test.arena = towpath_grown(test.arena, &test.arena_room, test.arena_length + length + 1, 1);
    if (length > 0) {
        memcpy(test.arena + test.arena_length, at, length);
    }
    towpath_u32_to(slot, (uint32_t)(TOWPATH_HEAD_BYTES + test.arena_length));
    towpath_u32_to(slot + 4, (uint32_t)length);
    test.arena_length += length;
}

/* A row, written as plugins write it. */
static void row(uint8_t *slot, uint32_t number, const towpath_value *values, size_t count) {
    uint8_t entry[TOWPATH_ENTRY_BYTES] = {0};
    towpath_u32_to(entry, number);
    towpath_batch nothing = {entry, 0, 1};
    towpath_output *out = towpath_output_begin(&nothing);
    towpath_rewrite it = towpath_rewrite_as(out, towpath_batch_record(&nothing, 0), number);
    towpath_begin_after(&it);
    for (size_t at = 0; at < count; at++) {
        towpath_put(&it, values[at]);
    }
    towpath_finish(&it);
    part(slot, out->parts, out->length);
}

size_t towpath_test_change(const towpath_schema *schema, towpath_op op, const towpath_value *before,
                           const towpath_value *after, size_t count) {
    uint32_t number;
    if (!towpath_host_define(schema, &number)) {
        towpath_panic("there are too many schemas");
    }
    if (test.given != NULL) {
        free(test.given);
        test.given = NULL;
        test.arena_length = test.entry_count = 0;
    }
    uint8_t entry[TOWPATH_ENTRY_BYTES] = {0};
    towpath_u32_to(entry, number);
    towpath_u32_to(entry + 4, UINT32_MAX);
    entry[8] = (uint8_t)op;
    towpath_u32_to(entry + 12, (uint32_t)test.entry_count);
    towpath_u64_to(entry + 24, test.entry_count);
    for (size_t slot = TOWPATH_AT_KEY; slot <= TOWPATH_AT_TOPIC; slot += 8) {
        towpath_u32_to(entry + slot, TOWPATH_NOT_THERE);
    }
    if (before != NULL) {
        row(entry + TOWPATH_AT_BEFORE, number, before, count);
    }
    if (after != NULL) {
        row(entry + TOWPATH_AT_AFTER, number, after, count);
    }
    test.entries = towpath_grown(test.entries, &test.entry_room, test.entry_count + 1, sizeof entry);
    memcpy(test.entries + test.entry_count * sizeof entry, entry, sizeof entry);
    return test.entry_count++;
}

size_t towpath_test_row(const towpath_schema *schema, const towpath_value *values, size_t count) {
    return towpath_test_change(schema, TOWPATH_OP_NONE, NULL, values, count);
}

unsigned char *towpath_test_buffer(size_t *length) {
    if (test.given == NULL) {
        const size_t base = TOWPATH_HEAD_BYTES + test.arena_length, entries = test.entry_count * TOWPATH_ENTRY_BYTES;
        test.given_length = base + entries;
        test.given = malloc(test.given_length);
        if (test.given == NULL) {
            towpath_panic("no memory for a batch");
        }
        towpath_u32_to(test.given, TOWPATH_MAGIC);
        towpath_u32_to(test.given + 4, (uint32_t)test.entry_count);
        towpath_u32_to(test.given + 8, (uint32_t)base);
        towpath_u32_to(test.given + 12, 0);
        if (test.arena_length > 0) {
            memcpy(test.given + TOWPATH_HEAD_BYTES, test.arena, test.arena_length);
        }
        if (entries > 0) {
            memcpy(test.given + base, test.entries, entries);
        }
    }
    *length = test.given_length;
    return test.given;
}

const towpath_error *towpath_test_run(void) {
    towpath_arena_reset();
    free(test.answer);
    test.answer = NULL;
    test.passed.count = 0;
    test.rejected_count = 0;
    size_t length;
    const uint8_t *given = towpath_test_buffer(&length);
    /* A buffer of the exact size, so that tools that watch memory see what goes beyond it. */
    test.answer = malloc(length);
    if (test.answer == NULL) {
        towpath_panic("no memory for a batch");
    }
    memcpy(test.answer, given, length);
    /* Not on the stack: records of it may be asked for after the transform was stopped. */
    static towpath_batch batch;
    const char *wrong = towpath_batch_read(&batch, test.answer, length);
    if (wrong != NULL) {
        return towpath_terminal("PLUGIN_BATCH", "the batch cannot be read: %s", wrong);
    }
    towpath_output *out = towpath_output_begin(&batch);
    const towpath_error *error = test.transform->process(test.instance, &batch, out);
    if (error != NULL) {
        return error;
    }
    test.rejected = out->rejected;
    test.rejected_count = out->rejected_count;
    test.answer = towpath_output_finish(out, test.answer, &length);
    wrong = towpath_batch_read(&test.passed, test.answer, length);
    if (wrong != NULL) {
        towpath_panic("what goes on cannot be read: %s", wrong);
    }
    return NULL;
}

size_t towpath_test_passed_count(void) { return test.passed.count; }

towpath_record towpath_test_passed(size_t index) { return towpath_batch_record(&test.passed, index); }

size_t towpath_test_origin(size_t index) { return towpath_u32_at(towpath_test_passed(index).entry + 12); }

size_t towpath_test_rejected_count(void) { return test.rejected_count; }

size_t towpath_test_rejected(size_t index, const towpath_details **details) {
    if (index >= test.rejected_count) {
        towpath_panic("there is no rejected record %zu", index);
    }
    if (details != NULL) {
        *details = &test.rejected[index].why;
    }
    return test.rejected[index].index;
}
