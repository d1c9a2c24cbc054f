/* A transform on the author's machine, without WASM: link the plugin with `towpath.c`, `output.c` and `testing.c`.
 *
 *     towpath_test_begin();
 *     towpath_test_text("field", "level");
 *     assert(towpath_test_open(&towpath_exported) == NULL);
 *     towpath_test_row(schema, values, 2);
 *     assert(towpath_test_run() == NULL);
 *     … towpath_test_passed_count(), towpath_test_passed(0), towpath_test_rejected(0) …
 *     towpath_test_end(); */
#ifndef TOWPATH_TESTING_H
#define TOWPATH_TESTING_H

#include <setjmp.h>

#include "towpath.h"

/* Begins anew: no options, no schemas, no records. */
void towpath_test_begin(void);
/* Frees everything. */
void towpath_test_end(void);

/* What an option is. `towpath_test_list` adds a text to a list. */
void towpath_test_text(const char *name, const char *value);
void towpath_test_integer(const char *name, int64_t value);
void towpath_test_flag(const char *name, bool value);
void towpath_test_list(const char *name, const char *value);
void towpath_test_json(const char *name, const char *json);

/* What `check` finds: how many problems there are, and each of them. */
size_t towpath_test_check(const towpath_transform *transform);
const char *towpath_test_problem(size_t index, const towpath_details **details);

const towpath_error *towpath_test_open(const towpath_transform *transform);

/* A value of each kind. */
towpath_value towpath_test_null(void);
towpath_value towpath_test_int(int64_t value);
towpath_value towpath_test_float64(double value);
towpath_value towpath_test_string(const char *value);

/* Adds a plain record to the batch: values in the order of the schema's fields. Its index is returned. */
size_t towpath_test_row(const towpath_schema *schema, const towpath_value *values, size_t count);
/* The same for a change event: an operation, and rows before and after it, each of which may be NULL. */
size_t towpath_test_change(const towpath_schema *schema, towpath_op op, const towpath_value *before,
                           const towpath_value *after, size_t count);

/* Gives the batch to the transform; the next record begins another batch. */
const towpath_error *towpath_test_run(void);

/* What went on: its records, and the index of the record that each was made from. They last until the next run. */
size_t towpath_test_passed_count(void);
towpath_record towpath_test_passed(size_t index);
size_t towpath_test_origin(size_t index);

/* What was rejected: the index of the record is returned. */
size_t towpath_test_rejected_count(void);
size_t towpath_test_rejected(size_t index, const towpath_details **details);

/* Where a plugin that is stopped goes on: `if (TOWPATH_TEST_STOPS()) { … why: towpath_test_last_line() … }`. Without this
 * it aborts. */
#define TOWPATH_TEST_STOPS() (towpath_test_catch = true, setjmp(towpath_test_stopped) != 0)
extern jmp_buf towpath_test_stopped;
extern bool towpath_test_catch;
/* The last line of the log. */
const char *towpath_test_last_line(void);

/* For tests of the SDK: the bytes of the batch as it will be given; they may be changed. */
unsigned char *towpath_test_buffer(size_t *length);

#endif
