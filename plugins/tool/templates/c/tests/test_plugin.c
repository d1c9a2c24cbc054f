#undef NDEBUG
#include <assert.h>

#include "testing.h"

/* Records that hold the text are dropped. */
int main(void) {
    towpath_test_begin();
    towpath_test_text("field", "level");
    towpath_test_text("text", "debug");
    assert(towpath_test_open(&towpath_exported) == NULL);

    const towpath_field fields[] = {
        towpath_nullable(towpath_text_of("level"), TOWPATH_TEXT),
        towpath_nullable(towpath_text_of("n"), TOWPATH_INT64),
    };
    const towpath_schema schema = {.name = towpath_text_of("lines"), .value = {fields, TOWPATH_COUNT(fields)}};
    const char *const levels[] = {"info", "debug", "warn"};
    for (size_t at = 0; at < TOWPATH_COUNT(levels); at++) {
        const towpath_value row[] = {towpath_test_string(levels[at]), towpath_test_int((int64_t)at)};
        towpath_test_row(&schema, row, TOWPATH_COUNT(row));
    }
    assert(towpath_test_run() == NULL);
    assert(towpath_test_passed_count() == 2);
    assert(towpath_test_origin(0) == 0 && towpath_test_origin(1) == 2);
    towpath_test_end();
    return 0;
}
