#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "../geohash.h"
#include "testing.h"

static bool is(double latitude, double longitude, const char *expected) {
    char made[GEOHASH_LENGTH_MAX];
    const size_t length = strlen(expected);
    return geohash_write(latitude, longitude, length, made) && memcmp(made, expected, length) == 0;
}

static void geohashes_are_those_that_are_known(void) {
    assert(is(57.64911, 10.40744, "u4pruydqqvj8"));
    assert(is(42.6, -5.6, "ezs42"));
    assert(is(0, 0, "s00000000000") && is(-90, -180, "000000000000") && is(90, 180, "zzzzzzzzzzzz"));
    char none[GEOHASH_LENGTH_MAX];
    assert(!geohash_write(90.1, 0, 5, none) && !geohash_write(0, -180.1, 5, none) && !geohash_write(0.0 / 0.0, 0, 5, none));
    double number;
    assert(geohash_number("-5.6e0", 6, &number) && number == -5.6);
    assert(!geohash_number("nan", 3, &number) && !geohash_number("", 0, &number) && !geohash_number("1 ", 2, &number));
    assert(!geohash_number("0x1", 3, &number) && !geohash_number("1\0", 2, &number));
}

static void rows_get_the_field(void) {
    towpath_test_begin();
    towpath_test_text("latitude", "lat");
    towpath_test_text("longitude", "lon");
    towpath_test_text("into", "place");
    towpath_test_text("invalid", "reject");
    towpath_test_integer("precision", 5);
    assert(towpath_test_check(&towpath_exported) == 0);
    assert(towpath_test_open(&towpath_exported) == NULL);
    const towpath_field fields[] = {
        towpath_nullable(towpath_text_of("lat"), TOWPATH_FLOAT64),
        towpath_nullable(towpath_text_of("lon"), TOWPATH_DECIMAL),
    };
    const towpath_schema schema = {.name = towpath_text_of("places"), .value = {fields, 2}};
    const towpath_value here[] = {towpath_test_float64(42.6), towpath_test_string("-5.6")};
    const towpath_value there[] = {towpath_test_float64(57.64911), towpath_test_string("10.40744")};
    const towpath_value nowhere[] = {towpath_test_float64(91), towpath_test_string("0")};
    towpath_test_row(&schema, here, 2);
    towpath_test_row(&schema, nowhere, 2);
    towpath_test_change(&schema, TOWPATH_OP_UPDATE, here, there, 2);
    assert(towpath_test_run() == NULL);
    assert(towpath_test_passed_count() == 2 && towpath_test_rejected_count() == 1);
    const towpath_text place = towpath_text_of("place");
    assert(towpath_text_is(towpath_row_by_name(towpath_record_after(towpath_test_passed(0)), place).as.text, "ezs42"));
    const towpath_record moved = towpath_test_passed(1);
    assert(towpath_text_is(towpath_row_by_name(towpath_record_before(moved), place).as.text, "ezs42"));
    assert(towpath_text_is(towpath_row_by_name(towpath_record_after(moved), place).as.text, "u4pru"));
    towpath_test_end();
}

int main(void) {
    geohashes_are_those_that_are_known();
    rows_get_the_field();
    return 0;
}
