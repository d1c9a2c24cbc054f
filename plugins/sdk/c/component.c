/* Between the contract's bindings and the author's table: in a component only. */
#include <stdlib.h>

#include "internal.h"
#include "transform.h"

/* The component's type is put in by `towpath plugin build`, and not by an object file, for which the bindings ask. */
void __component_type_object_force_link_transform(void) {}

/* ---- Texts ---- */

static transform_string_t borrowed(towpath_text text) {
    /* The host reads it, and nothing writes to it. */
    transform_string_t made = {(uint8_t *)(uintptr_t)text.at, text.length};
    return made;
}

/* How many bytes the character at `at` has; 0 where it is none. */
static size_t character(const uint8_t *at, size_t length) {
    const uint8_t first = at[0];
    size_t size = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (size > length) {
        return 0;
    }
    for (size_t next = 1; next < size; next++) {
        if ((at[next] & 0xC0) != 0x80) {
            return 0;
        }
    }
    if (size > 2) {
        const uint8_t second = at[1];
        if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
            (first == 0xF4 && second > 0x8F)) {
            return 0;
        }
    }
    return size;
}

/* What is no UTF-8, as where `%.*s` has cut a character, becomes `?`. */
static void mend(uint8_t *text, size_t length) {
    for (size_t at = 0; at < length;) {
        const size_t size = character(text + at, length - at);
        if (size == 0) {
            text[at] = '?';
        }
        at += size == 0 ? 1 : size;
    }
}

/* A copy that the bindings free. */
static void copy(transform_string_t *to, const char *text) {
    transform_string_dup(to, text == NULL ? "" : text);
    mend(to->ptr, to->len);
}

static void copy_option(transform_option_string_t *to, const char *text) {
    to->is_some = text != NULL;
    if (text != NULL) {
        copy(&to->val, text);
    }
}

/* Memory for an array that the bindings free. */
static void *array(size_t count, size_t size) {
    if (count == 0) {
        return NULL;
    }
    void *made = calloc(count, size);
    if (made == NULL) {
        towpath_panic("no memory for %zu elements", count);
    }
    return made;
}

static void details(towpath_plugin_types_details_t *to, const towpath_details *from) {
    copy(&to->code, from->code);
    copy(&to->message, from->message);
    copy_option(&to->hint, from->hint);
    copy_option(&to->path, from->path);
}

/* ---- What the host does ---- */

void towpath_host_log(towpath_level level, char *message) {
    /* Without a copy: that there is no memory must be told, too. */
    transform_string_t text = {(uint8_t *)message, strlen(message)};
    mend(text.ptr, text.len);
    towpath_plugin_log_write((towpath_plugin_log_level_t)level, &text);
}

void towpath_host_stop(void) { __builtin_trap(); }

int64_t towpath_now_ms(void) { return towpath_plugin_clock_now_ms(); }

uint64_t towpath_monotonic_ns(void) { return towpath_plugin_clock_monotonic_ns(); }

void towpath_random(void *to, size_t length) {
    transform_list_u8_t bytes;
    towpath_plugin_random_bytes((uint32_t)length, &bytes);
    if (bytes.len != length) {
        towpath_panic("the host gave %zu random bytes, not %zu", bytes.len, length);
    }
    if (length > 0) {
        memcpy(to, bytes.ptr, length);
    }
    transform_list_u8_free(&bytes);
}

/* What the host gave, in the arena. */
static towpath_text taken(transform_string_t *from) {
    char *made = towpath_alloc(from->len + 1);
    if (from->len > 0) {
        memcpy(made, from->ptr, from->len);
    }
    towpath_text text = {made, from->len};
    transform_string_free(from);
    return text;
}

bool towpath_config_text(const char *name, towpath_text *value) {
    transform_string_t wanted = borrowed(towpath_text_of(name)), found;
    if (!towpath_plugin_config_text(&wanted, &found)) {
        return false;
    }
    *value = taken(&found);
    return true;
}

bool towpath_config_integer(const char *name, int64_t *value) {
    transform_string_t wanted = borrowed(towpath_text_of(name));
    return towpath_plugin_config_integer(&wanted, value);
}

bool towpath_config_flag(const char *name, bool *value) {
    transform_string_t wanted = borrowed(towpath_text_of(name));
    return towpath_plugin_config_flag(&wanted, value);
}

size_t towpath_config_texts(const char *name, const towpath_text **values) {
    transform_string_t wanted = borrowed(towpath_text_of(name));
    transform_list_string_t found;
    towpath_plugin_config_texts(&wanted, &found);
    towpath_text *made = towpath_alloc(found.len * sizeof *made);
    const size_t count = found.len;
    for (size_t at = 0; at < count; at++) {
        made[at] = taken(&found.ptr[at]);
    }
    if (count > 0) {
        free(found.ptr);
    }
    *values = made;
    return count;
}

bool towpath_config_json(const char *name, towpath_text *value) {
    transform_string_t wanted = borrowed(towpath_text_of(name)), found;
    if (!towpath_plugin_config_json(&wanted, &found)) {
        return false;
    }
    *value = taken(&found);
    return true;
}

/* ---- Schemas ---- */

/* What the host says of a schema stays where it was put: `text_in` points into it. */
static towpath_text text_in(transform_string_t text) {
    towpath_text made = {text.len == 0 ? "" : (const char *)text.ptr, text.len};
    return made;
}

static towpath_text option_in(const transform_option_string_t *option) {
    towpath_text none = {NULL, 0};
    return option->is_some ? text_in(option->val) : none;
}

static towpath_fields fields_in(const towpath_plugin_schemas_list_field_t *from) {
    towpath_field *made = towpath_alloc_instance(from->len * sizeof *made);
    for (size_t at = 0; at < from->len; at++) {
        const towpath_plugin_schemas_field_t *field = &from->ptr[at];
        made[at].name = text_in(field->name);
        made[at].scalar = (towpath_scalar)field->field_type.scalar;
        made[at].dimensions = field->field_type.dimensions;
        made[at].nullable = field->nullable;
        made[at].source_type = option_in(&field->source_type);
        made[at].renamed_from = option_in(&field->renamed_from);
        made[at].initial = option_in(&field->initial);
        made[at].has_id = field->id.is_some;
        made[at].table = field->id.is_some ? field->id.val.table : 0;
        made[at].column = field->id.is_some ? field->id.val.column : 0;
    }
    towpath_fields fields = {made, from->len};
    return fields;
}

static towpath_pairs pairs_in(const transform_list_tuple2_string_string_t *from) {
    towpath_pair *made = towpath_alloc_instance(from->len * sizeof *made);
    for (size_t at = 0; at < from->len; at++) {
        made[at].name = text_in(from->ptr[at].f0);
        made[at].value = text_in(from->ptr[at].f1);
    }
    towpath_pairs pairs = {made, from->len};
    return pairs;
}

bool towpath_host_schema(uint32_t number, towpath_schema *schema) {
    towpath_plugin_schemas_schema_t found;
    if (!towpath_plugin_schemas_get(number, &found)) {
        return false;
    }
    memset(schema, 0, sizeof *schema);
    schema->name = text_in(found.name);
    schema->variables = pairs_in(&found.variables);
    schema->has_key = found.key.is_some;
    if (found.key.is_some) {
        schema->key = fields_in(&found.key.val);
    }
    schema->value = fields_in(&found.value);
    towpath_computed *computed = towpath_alloc_instance(found.computed.len * sizeof *computed);
    for (size_t at = 0; at < found.computed.len; at++) {
        computed[at].name = text_in(found.computed.ptr[at].name);
        computed[at].source_type = text_in(found.computed.ptr[at].source_type);
        computed[at].expression = text_in(found.computed.ptr[at].expression);
    }
    schema->computed.at = computed;
    schema->computed.length = found.computed.len;
    schema->has_source = found.source.is_some;
    if (found.source.is_some) {
        schema->constants = pairs_in(&found.source.val.constants);
        schema->source = fields_in(&found.source.val.fields);
    }
    return true;
}

static transform_option_string_t option_out(towpath_text text) {
    transform_option_string_t made = {text.at != NULL, borrowed(text)};
    return made;
}

static towpath_plugin_schemas_list_field_t fields_out(const towpath_fields *from) {
    towpath_plugin_schemas_field_t *made = towpath_alloc(from->length * sizeof *made);
    for (size_t at = 0; at < from->length; at++) {
        const towpath_field *field = &from->at[at];
        made[at].name = borrowed(field->name);
        made[at].field_type.scalar = (towpath_plugin_schemas_scalar_t)field->scalar;
        made[at].field_type.dimensions = field->dimensions;
        made[at].nullable = field->nullable;
        made[at].source_type = option_out(field->source_type);
        made[at].renamed_from = option_out(field->renamed_from);
        made[at].initial = option_out(field->initial);
        made[at].id.is_some = field->has_id;
        made[at].id.val.table = field->table;
        made[at].id.val.column = field->column;
    }
    towpath_plugin_schemas_list_field_t fields = {made, from->length};
    return fields;
}

static transform_list_tuple2_string_string_t pairs_out(const towpath_pairs *from) {
    transform_tuple2_string_string_t *made = towpath_alloc(from->length * sizeof *made);
    for (size_t at = 0; at < from->length; at++) {
        made[at].f0 = borrowed(from->at[at].name);
        made[at].f1 = borrowed(from->at[at].value);
    }
    transform_list_tuple2_string_string_t pairs = {made, from->length};
    return pairs;
}

bool towpath_host_define(const towpath_schema *schema, uint32_t *number) {
    towpath_plugin_schemas_schema_t made;
    memset(&made, 0, sizeof made);
    made.name = borrowed(schema->name);
    made.variables = pairs_out(&schema->variables);
    made.key.is_some = schema->has_key;
    if (schema->has_key) {
        made.key.val = fields_out(&schema->key);
    }
    made.value = fields_out(&schema->value);
    towpath_plugin_schemas_computed_t *computed = towpath_alloc(schema->computed.length * sizeof *computed);
    for (size_t at = 0; at < schema->computed.length; at++) {
        computed[at].name = borrowed(schema->computed.at[at].name);
        computed[at].source_type = borrowed(schema->computed.at[at].source_type);
        computed[at].expression = borrowed(schema->computed.at[at].expression);
    }
    made.computed.ptr = computed;
    made.computed.len = schema->computed.length;
    made.source.is_some = schema->has_source;
    if (schema->has_source) {
        made.source.val.constants = pairs_out(&schema->constants);
        made.source.val.fields = fields_out(&schema->source);
    }
    towpath_plugin_schemas_refusal_t refusal;
    return towpath_plugin_schemas_define(&made, number, &refusal);
}

/* ---- What the component exports ---- */

void exports_towpath_plugin_plugin_descriptor(exports_towpath_plugin_plugin_description_t *ret) {
    copy(&ret->name, towpath_exported.name);
    copy(&ret->version, towpath_exported.version);
    copy(&ret->summary, towpath_exported.summary);
}

static void element(towpath_plugin_types_element_t *to, const towpath_element *from) {
    to->tag = (uint8_t)from->kind;
    if (from->kind == TOWPATH_ELEMENT_INTEGER) {
        to->val.integer.min = from->min;
        to->val.integer.max = from->max;
    } else if (from->kind == TOWPATH_ELEMENT_URL) {
        size_t count = 0;
        while (from->schemes != NULL && from->schemes[count] != NULL) {
            count++;
        }
        to->val.url.ptr = array(count, sizeof *to->val.url.ptr);
        to->val.url.len = count;
        for (size_t at = 0; at < count; at++) {
            copy(&to->val.url.ptr[at], from->schemes[at]);
        }
    } else if (from->kind == TOWPATH_ELEMENT_ONE_OF) {
        size_t count = 0;
        while (from->choices != NULL && from->choices[count].name != NULL) {
            count++;
        }
        to->val.one_of.ptr = array(count, sizeof *to->val.one_of.ptr);
        to->val.one_of.len = count;
        for (size_t at = 0; at < count; at++) {
            copy(&to->val.one_of.ptr[at].name, from->choices[at].name);
            copy(&to->val.one_of.ptr[at].doc, from->choices[at].doc);
        }
    }
}

void exports_towpath_plugin_plugin_config_spec(exports_towpath_plugin_plugin_list_option_spec_t *ret) {
    ret->len = towpath_exported.option_count;
    ret->ptr = array(ret->len, sizeof *ret->ptr);
    for (size_t at = 0; at < ret->len; at++) {
        const towpath_option *option = &towpath_exported.options[at];
        towpath_plugin_types_option_spec_t *to = &ret->ptr[at];
        copy(&to->name, option->name);
        copy(&to->doc, option->doc);
        to->shape = (towpath_plugin_types_shape_t)option->shape;
        element(&to->element, &option->element);
        to->required = option->required;
        copy_option(&to->default_, option->default_json);
        to->secret = option->secret;
    }
}

void exports_towpath_plugin_plugin_check_config(exports_towpath_plugin_plugin_list_problem_t *ret) {
    towpath_problems problems = {NULL, 0, 0};
    if (towpath_exported.check != NULL) {
        towpath_exported.check(&problems);
    }
    ret->len = problems.count;
    ret->ptr = array(ret->len, sizeof *ret->ptr);
    for (size_t at = 0; at < ret->len; at++) {
        copy(&ret->ptr[at].path, problems.at[at].path);
        copy(&ret->ptr[at].message, problems.at[at].why.message);
        copy_option(&ret->ptr[at].hint, problems.at[at].why.hint);
    }
    towpath_arena_reset();
}

static void error_out(towpath_plugin_types_error_t *to, const towpath_error *error) {
    to->tag = (uint8_t)error->kind;
    switch (error->kind) {
    case TOWPATH_RETRY_AFTER:
        to->val.retry_after.delay_ms = error->delay_ms;
        details(&to->val.retry_after.details, &error->why);
        break;
    case TOWPATH_NEEDS_OPERATOR:
        details(&to->val.needs_operator, &error->why);
        break;
    case TOWPATH_TERMINAL:
        details(&to->val.terminal, &error->why);
        break;
    }
}

static void *instance;
static bool opened;

bool exports_towpath_plugin_transforms_open(exports_towpath_plugin_transforms_error_t *err) {
    const towpath_error *error = towpath_exported.open == NULL ? NULL : towpath_exported.open(&instance);
    if (error != NULL) {
        error_out(err, error);
        towpath_arena_reset();
        return false;
    }
    opened = true;
    towpath_arena_keep();
    return true;
}

/* The batch, or what is wrong. */
static const towpath_error *process(transform_list_u8_t *in, exports_towpath_plugin_transforms_outcome_t *ret) {
    if (!opened) {
        return towpath_terminal("PLUGIN_NOT_OPEN", "the plugin has not been opened");
    }
    towpath_batch batch;
    const char *wrong = towpath_batch_read(&batch, in->ptr, in->len);
    if (wrong != NULL) {
        return towpath_terminal("PLUGIN_BATCH", "the batch from the host cannot be read: %s", wrong);
    }
    towpath_output *out = towpath_output_begin(&batch);
    const towpath_error *error = towpath_exported.process(instance, &batch, out);
    if (error != NULL) {
        return error;
    }
    ret->rejected.len = out->rejected_count;
    ret->rejected.ptr = array(out->rejected_count, sizeof *ret->rejected.ptr);
    for (size_t at = 0; at < out->rejected_count; at++) {
        ret->rejected.ptr[at].index = out->rejected[at].index;
        details(&ret->rejected.ptr[at].details, &out->rejected[at].why);
    }
    ret->batch.ptr = towpath_output_finish(out, in->ptr, &ret->batch.len);
    return NULL;
}

bool exports_towpath_plugin_transforms_process(transform_list_u8_t *batch,
                                               exports_towpath_plugin_transforms_outcome_t *ret,
                                               exports_towpath_plugin_transforms_error_t *err) {
    const towpath_error *error = process(batch, ret);
    if (error != NULL) {
        error_out(err, error);
        transform_list_u8_free(batch);
    }
    towpath_arena_reset();
    return error == NULL;
}
