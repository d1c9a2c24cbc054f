/* The SDK on this machine. Compile with sanitizers: what is read outside of a buffer must be seen. */
#undef NDEBUG
#include <assert.h>
#include <stdlib.h>

#include "../testing.h"

static const towpath_error *(*processing)(const towpath_batch *batch, towpath_output *out);

static const towpath_error *process(void *instance, const towpath_batch *batch, towpath_output *out) {
    assert(instance == &processing);
    return processing(batch, out);
}

static const towpath_error *open_it(void **instance) {
    *instance = (void *)&processing;
    return NULL;
}

static void check(towpath_problems *problems) {
    for (int at = 0; at < 40; at++) {
        towpath_problem(problems, towpath_format("fields[%d]", at).at, "no %d", at);
    }
    towpath_problem(problems, "", "nothing to do")->hint = "do something";
}

static const towpath_option OPTIONS[] = {{.name = "field", .element = {.kind = TOWPATH_ELEMENT_TEXT}}};

TOWPATH_EXPORT_TRANSFORM = {
    .name = "t", .version = "1", .summary = "T", .options = OPTIONS, .option_count = 1, .check = check, .open = open_it,
    .process = process,
};

enum { ID, TEXT, FLAG, REAL, SINGLE, RAW, LIST, SHORT, FIELDS };

static towpath_field fields[FIELDS];
static towpath_schema schema;
static towpath_value row[FIELDS];

static void begin(const towpath_error *(*with)(const towpath_batch *batch, towpath_output *out)) {
    towpath_test_begin();
    processing = with;
    static const char *const NAMES[] = {"id", "text", "flag", "real", "single", "raw", "list", "short"};
    static const towpath_scalar SCALARS[] = {TOWPATH_INT64,   TOWPATH_TEXT,  TOWPATH_BOOLEAN, TOWPATH_FLOAT64,
                                             TOWPATH_FLOAT32, TOWPATH_BYTES, TOWPATH_INT32,   TOWPATH_INT16};
    for (size_t at = 0; at < FIELDS; at++) {
        fields[at] = towpath_nullable(towpath_text_of(NAMES[at]), SCALARS[at]);
    }
    fields[LIST].dimensions = 1;
    memset(&schema, 0, sizeof schema);
    schema.name = towpath_text_of("t");
    schema.value.at = fields;
    schema.value.length = FIELDS;
    memset(row, 0, sizeof row);
    row[ID] = towpath_test_int(1);
    row[TEXT] = towpath_test_string("Zoë");
    row[FLAG].kind = TOWPATH_IS_BOOL;
    row[FLAG].as.flag = true;
    row[REAL] = towpath_test_float64(1.5);
    row[SINGLE].kind = TOWPATH_IS_FLOAT32;
    row[SINGLE].as.float32 = 0.25f;
    row[RAW].kind = TOWPATH_IS_BYTES;
    row[RAW].as.bytes = (towpath_bytes){(const uint8_t *)"\0\xff", 2};
    row[LIST] = towpath_test_string("[1]");
    row[SHORT] = towpath_test_null();
    assert(towpath_test_open(&towpath_exported) == NULL);
}

static towpath_value by_name(towpath_row of, const char *name) { return towpath_row_by_name(of, towpath_text_of(name)); }

/* ---- Records ---- */

static const towpath_error *each_another_way(const towpath_batch *batch, towpath_output *out) {
    const towpath_header headers[] = {{towpath_text_of("a"), {(const uint8_t *)"1", 1}}, {towpath_text_of("b"), {NULL, 0}}};
    for (size_t at = 0; at < towpath_batch_length(batch); at++) {
        const towpath_record record = towpath_batch_record(batch, at);
        const int64_t id = towpath_row_get(towpath_record_after(record), ID).as.integer;
        if (id == 0) {
            towpath_keep(out, record);
        } else if (id == 1) {
            towpath_reject(out, record, "NO", "not %s", "this one")->hint = "another";
        } else if (id == 2) {
            /* One that is begun and not finished leaves nothing behind. */
            towpath_rewrite left = towpath_rewrite_record(out, record);
            towpath_begin_after(&left);
            towpath_put_int(&left, 7);
            towpath_rewrite it = towpath_rewrite_record(out, record);
            towpath_begin_after(&it);
            towpath_put_null(&it);
            towpath_put_part(&it, towpath_text_of("O"));
            towpath_put_part(&it, towpath_text_of("mega"));
            towpath_put_parts_end(&it);
            towpath_set_topic(&it, towpath_text_of("elsewhere"));
            towpath_set_headers(&it, headers, 2);
            towpath_set_partition(&it, 7);
            towpath_finish(&it);
        } else if (id == 3) {
            const towpath_change change = {TEXT, towpath_test_string("set")};
            towpath_rewrite it = towpath_rewrite_record(out, record);
            towpath_change_after(&it, &change, 1);
            towpath_set_op(&it, TOWPATH_OP_UPDATE);
            towpath_set_flat(&it, true);
            towpath_set_timestamp_ms(&it, -5);
            towpath_finish(&it);
        }
    }
    return NULL;
}

static void same_as_row(towpath_row after, int64_t id, const char *text) {
    assert(towpath_row_get(after, ID).as.integer == id);
    assert(towpath_text_is(by_name(after, "text").as.text, text));
    assert(by_name(after, "flag").as.flag && by_name(after, "real").as.float64 == 1.5);
    assert(by_name(after, "single").as.float32 == 0.25f && by_name(after, "short").kind == TOWPATH_IS_NULL);
    const towpath_value raw = by_name(after, "raw");
    assert(raw.kind == TOWPATH_IS_BYTES && raw.as.bytes.length == 2 && memcmp(raw.as.bytes.at, "\0\xff", 2) == 0);
    assert(towpath_text_is(by_name(after, "list").as.text, "[1]"));
}

static void records_are_kept_rewritten_rejected_and_dropped(void) {
    begin(each_another_way);
    for (int64_t id = 0; id < 5; id++) {
        row[ID] = towpath_test_int(id);
        towpath_test_row(&schema, row, FIELDS);
    }
    assert(towpath_test_run() == NULL);
    assert(towpath_test_passed_count() == 3 && towpath_test_rejected_count() == 1);
    const towpath_details *why;
    assert(towpath_test_rejected(0, &why) == 1);
    assert(strcmp(why->code, "NO") == 0 && strcmp(why->message, "not this one") == 0 && strcmp(why->hint, "another") == 0);
    assert(towpath_test_origin(0) == 0 && towpath_test_origin(1) == 2 && towpath_test_origin(2) == 3);
    same_as_row(towpath_record_after(towpath_test_passed(0)), 0, "Zoë");
    const towpath_record other = towpath_test_passed(1);
    const towpath_row after = towpath_record_after(other);
    assert(towpath_row_get(after, ID).kind == TOWPATH_IS_NULL && towpath_text_is(towpath_row_get(after, TEXT).as.text, "Omega"));
    assert(towpath_row_get(after, FLAG).kind == TOWPATH_IS_ABSENT && by_name(after, "no").kind == TOWPATH_IS_ABSENT);
    assert(towpath_text_is(towpath_record_topic(other), "elsewhere") && towpath_record_partition(other) == 7);
    towpath_headers headers = towpath_record_headers(other);
    towpath_header header;
    assert(towpath_headers_next(&headers, &header) && towpath_text_is(header.name, "a") && *header.value.at == '1');
    assert(towpath_headers_next(&headers, &header) && towpath_text_is(header.name, "b") && header.value.at == NULL);
    assert(!towpath_headers_next(&headers, &header));
    const towpath_record set = towpath_test_passed(2);
    same_as_row(towpath_record_after(set), 3, "set");
    assert(towpath_record_op(set) == TOWPATH_OP_UPDATE && towpath_record_is_flat(set));
    assert(towpath_record_timestamp_ms(set) == -5 && towpath_record_partition(towpath_test_passed(0)) == -1);
    assert(!towpath_row_there(towpath_record_before(set)) && !towpath_row_there(towpath_record_key(set)));
    assert(towpath_record_topic(set).at == NULL);
    towpath_test_end();
}

static const towpath_error *two_of_many(const towpath_batch *batch, towpath_output *out) {
    towpath_keep(out, towpath_batch_record(batch, 7));
    towpath_rewrite it = towpath_rewrite_record(out, towpath_batch_record(batch, 50));
    const towpath_change change = {TEXT, towpath_test_string("y")};
    towpath_change_after(&it, &change, 1);
    towpath_finish(&it);
    return NULL;
}

/* What is dropped is not sent where it would be most of the batch. */
static void little_of_a_batch_is_gathered(void) {
    begin(two_of_many);
    for (int64_t id = 0; id < 100; id++) {
        row[ID] = towpath_test_int(id);
        towpath_test_row(&schema, row, FIELDS);
    }
    assert(towpath_test_run() == NULL && towpath_test_passed_count() == 2);
    same_as_row(towpath_record_after(towpath_test_passed(0)), 7, "Zoë");
    same_as_row(towpath_record_after(towpath_test_passed(1)), 50, "y");
    /* The same schema, and the same memory, the next time. */
    for (int64_t id = 0; id < 60; id++) {
        row[ID] = towpath_test_int(id);
        towpath_test_row(&schema, row, FIELDS);
    }
    assert(towpath_test_run() == NULL && towpath_test_passed_count() == 2);
    towpath_test_end();
}

static const towpath_error *twice(const towpath_batch *batch, towpath_output *out) {
    const towpath_field field = towpath_nullable(towpath_text_of("twice"), TOWPATH_INT32);
    const towpath_schema made = {.name = towpath_text_of("u"), .value = {&field, 1}};
    uint32_t number, again;
    assert(towpath_define(&made, &number) && towpath_define(&made, &again) && number == again);
    for (size_t at = 0; at < towpath_batch_length(batch); at++) {
        const towpath_record record = towpath_batch_record(batch, at);
        towpath_rewrite it = towpath_rewrite_as(out, record, number);
        towpath_begin_after(&it);
        towpath_put_int(&it, towpath_row_get(towpath_record_after(record), ID).as.integer * 2);
        towpath_finish(&it);
    }
    return NULL;
}

static void another_schema(void) {
    begin(twice);
    row[ID] = towpath_test_int(21);
    towpath_test_row(&schema, row, FIELDS);
    assert(towpath_test_run() == NULL);
    const towpath_record record = towpath_test_passed(0);
    assert(towpath_text_is(towpath_record_schema(record)->name, "u"));
    assert(by_name(towpath_record_after(record), "twice").as.integer == 42);
    towpath_test_end();
}

/* ---- What is refused ---- */

static int fault;

static const towpath_error *faulty(const towpath_batch *batch, towpath_output *out) {
    const towpath_record record = towpath_batch_record(batch, 0);
    towpath_rewrite it = towpath_rewrite_record(out, record), other;
    switch (fault) {
    case 0:
        towpath_begin_after(&it);
        towpath_put_text(&it, towpath_text_of("1"));
        break;
    case 1:
        towpath_begin_after(&it);
        for (int at = 0; at <= FIELDS; at++) {
            towpath_put_null(&it);
        }
        break;
    case 2:
        towpath_keep(out, record);
        towpath_keep(out, record);
        break;
    case 3:
        towpath_begin_after(&it);
        for (int at = 0; at < SHORT; at++) {
            towpath_put_null(&it);
        }
        towpath_put_int(&it, 1 << 15);
        break;
    case 4:
        towpath_put_null(&it);
        break;
    case 5:
        other = towpath_rewrite_record(out, record);
        towpath_begin_after(&other);
        towpath_begin_after(&it);
        break;
    case 6:
        towpath_begin_key(&it);
        break;
    case 7:
        towpath_batch_record(batch, 1);
        break;
    case 8:
        towpath_rewrite_as(out, record, 99);
        break;
    case 9:
        towpath_finish(&it);
        towpath_finish(&it);
        break;
    case 10:
        towpath_begin_after(&it);
        towpath_put_null(&it);
        towpath_put_part(&it, towpath_text_of("a"));
        towpath_finish(&it);
        break;
    case 11:
        towpath_begin_after(&it);
        towpath_keep(out, record);
        towpath_put_null(&it);
        break;
    default:
        towpath_panic("%s", "of its own");
    }
    return NULL;
}

static void plugins_that_break_the_rules_are_stopped(void) {
    static const char *const SAID[] = {
        "`id` takes no text, but int", "the row has 8 fields and no more", "a record goes on once", "32768 does not fit `short`",
        "no row was begun", "one record is written at a time", "the schema has no key", "the batch has no record 1",
        "nobody knows the schema 99", "one record is written at a time", "a text was not ended", "one record is written at a time",
        "of its own",
    };
    for (fault = 0; fault < (int)TOWPATH_COUNT(SAID); fault++) {
        begin(faulty);
        towpath_test_row(&schema, row, FIELDS);
        if (!TOWPATH_TEST_STOPS()) {
            towpath_test_run();
            assert(!"it was not stopped");
        }
        assert(strstr(towpath_test_last_line(), SAID[fault]) != NULL);
        towpath_test_end();
    }
}

static const towpath_error *reading_everything(const towpath_batch *batch, towpath_output *out) {
    unsigned sum = 0;
    for (size_t at = 0; at < towpath_batch_length(batch); at++) {
        const towpath_record record = towpath_batch_record(batch, at);
        const towpath_row rows[] = {towpath_record_key(record), towpath_record_before(record), towpath_record_after(record),
                                    towpath_record_source(record)};
        for (size_t of = 0; of < TOWPATH_COUNT(rows); of++) {
            for (size_t index = 0; towpath_row_there(rows[of]) && index < rows[of].fields->length; index++) {
                const towpath_value value = towpath_row_get(rows[of], index);
                for (size_t byte = 0; value.kind >= TOWPATH_IS_BYTES && byte < value.as.bytes.length; byte++) {
                    sum += value.as.bytes.at[byte];
                }
            }
        }
        towpath_headers headers = towpath_record_headers(record);
        for (towpath_header header; towpath_headers_next(&headers, &header);) {
            sum += (unsigned)header.name.length;
        }
        sum += (unsigned)towpath_record_topic(record).length + towpath_record_op(record);
        towpath_keep(out, record);
    }
    towpath_log(TOWPATH_DEBUG, "%u", sum);
    return NULL;
}

static const towpath_error *keeping_all_but_one(const towpath_batch *batch, towpath_output *out) {
    for (size_t at = 1; at < towpath_batch_length(batch); at++) {
        towpath_keep(out, towpath_batch_record(batch, at));
    }
    return NULL;
}

/* Whatever the bytes of a batch say, nothing outside of them is read. */
static void forged_batches_are_not_followed(const towpath_error *(*with)(const towpath_batch *, towpath_output *)) {
    static const unsigned char VALUES[] = {0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xff};
    static volatile size_t stopped, refused, at, of;
    stopped = refused = 0;
    static volatile size_t length = 1;
    for (at = 0; at < length; at++) {
        for (of = 0; of < TOWPATH_COUNT(VALUES); of++) {
            begin(with);
            for (int count = 0; count < 3; count++) {
                towpath_test_change(&schema, TOWPATH_OP_UPDATE, row, row, FIELDS);
            }
            size_t found;
            unsigned char *bytes = towpath_test_buffer(&found);
            length = found;
            bytes[at] = VALUES[of];
            if (TOWPATH_TEST_STOPS()) {
                stopped++;
            } else if (towpath_test_run() != NULL) {
                refused++;
            }
            towpath_test_catch = false;
            towpath_test_end();
        }
    }
    assert(stopped > 0 && refused > 0);
}

/* ---- The rest ---- */

static const towpath_error *failing(const towpath_batch *batch, towpath_output *out) {
    (void)batch;
    (void)out;
    towpath_error *error = towpath_retry_after(7, "C", "%.*s failed", TOWPATH_SHOW(towpath_text_of("it")));
    error->why.hint = "wait";
    return error;
}

static void errors_and_options(void) {
    begin(failing);
    const towpath_error *error = towpath_test_run();
    assert(error->kind == TOWPATH_RETRY_AFTER && error->delay_ms == 7 && strcmp(error->why.message, "it failed") == 0);
    assert(towpath_terminal("C", "m")->kind == TOWPATH_TERMINAL);
    assert(towpath_needs_operator("C", "m")->kind == TOWPATH_NEEDS_OPERATOR);
    towpath_test_text("t", "x");
    towpath_test_integer("n", 1);
    towpath_test_flag("f", false);
    towpath_test_list("l", "a");
    towpath_test_list("l", "b");
    towpath_text text;
    int64_t number;
    bool flag = true;
    const towpath_text *texts;
    assert(towpath_config_text("t", &text) && towpath_text_is(text, "x") && !towpath_config_text("n", &text));
    assert(towpath_config_integer("n", &number) && number == 1 && towpath_config_flag("f", &flag) && !flag);
    assert(towpath_config_texts("l", &texts) == 2 && towpath_text_is(texts[1], "b") && towpath_config_texts("no", &texts) == 0);
    assert(!towpath_config_json("j", &text));
    assert(towpath_test_check(&towpath_exported) == 41);
    const towpath_details *details;
    assert(strcmp(towpath_test_problem(39, &details), "fields[39]") == 0 && strcmp(details->message, "no 39") == 0);
    assert(strcmp(towpath_test_problem(40, &details), "") == 0 && strcmp(details->hint, "do something") == 0);
    towpath_test_end();
}

static const towpath_error *allocating(const towpath_batch *batch, towpath_output *out) {
    (void)batch;
    (void)out;
    for (size_t length = 0; length < 200000; length += 997) {
        uint8_t *at = towpath_alloc(length);
        assert((uintptr_t)at % 16 == 0);
        for (size_t byte = 0; byte < length; byte++) {
            assert(at[byte] == 0);
        }
        memset(at, 1, length);
    }
    return NULL;
}

static void memory_is_zeroed_and_used_again(void) {
    begin(allocating);
    for (int times = 0; times < 3; times++) {
        assert(towpath_test_run() == NULL);
    }
    assert(towpath_now_ms() > 0 && towpath_monotonic_ns() > 0);
    towpath_test_end();
}

int main(void) {
    records_are_kept_rewritten_rejected_and_dropped();
    little_of_a_batch_is_gathered();
    another_schema();
    plugins_that_break_the_rules_are_stopped();
    forged_batches_are_not_followed(reading_everything);
    forged_batches_are_not_followed(keeping_all_but_one);
    errors_and_options();
    memory_is_zeroed_and_used_again();
    return 0;
}
