/* Adds a field with the geohash of a latitude and a longitude: to partition by, to join on, to group by. */
#include <stdlib.h>

#include "geohash.h"
#include "towpath.h"

static const towpath_choice INVALID[] = {
    {"reject", "The record goes to the dead-letter topic."},
    {"null", "The field is null."},
    {NULL, NULL},
};

static const towpath_option OPTIONS[] = {
    {.name = "latitude",
     .doc = "The field with the latitude in degrees: a number, or a text that is one.",
     .element = {.kind = TOWPATH_ELEMENT_NON_EMPTY_TEXT},
     .required = true},
    {.name = "longitude",
     .doc = "The field with the longitude in degrees.",
     .element = {.kind = TOWPATH_ELEMENT_NON_EMPTY_TEXT},
     .required = true},
    {.name = "into",
     .doc = "The field that is written. Where rows have it already, it must be text.",
     .element = {.kind = TOWPATH_ELEMENT_NON_EMPTY_TEXT},
     .default_json = "\"geohash\""},
    {.name = "precision",
     .doc = "How many characters it has: 5 are about 5 km, 9 are about 5 m.",
     .element = {.kind = TOWPATH_ELEMENT_INTEGER, .min = 1, .max = GEOHASH_LENGTH_MAX},
     .default_json = "9"},
    {.name = "invalid",
     .doc = "What becomes of a record whose place cannot be.",
     .element = {.kind = TOWPATH_ELEMENT_ONE_OF, .choices = INVALID},
     .default_json = "\"reject\""},
};

/* What becomes of the records of one schema. */
typedef struct plan {
    struct plan *next;
    uint32_t number;
    enum { KEEP, ADD, REPLACE, REFUSE } what;
    size_t latitude, longitude, into;
    /* The schema with the field added. */
    uint32_t target;
} plan;

typedef struct geohash {
    towpath_text latitude, longitude, into;
    size_t precision;
    bool rejects;
    plan *plans;
} geohash;

static void check(towpath_problems *problems) {
    towpath_text latitude, longitude, into;
    if (!towpath_config_text("latitude", &latitude) || !towpath_config_text("longitude", &longitude) ||
        !towpath_config_text("into", &into)) {
        return;
    }
    if (towpath_text_equal(latitude, longitude)) {
        towpath_problem(problems, "longitude", "`%.*s` is the latitude", TOWPATH_SHOW(longitude));
    }
    if (towpath_text_equal(into, latitude) || towpath_text_equal(into, longitude)) {
        towpath_problem(problems, "into", "`%.*s` is what it is made of", TOWPATH_SHOW(into))->hint =
            "name a field of its own";
    }
}

static const towpath_error *open_it(void **instance) {
    geohash *it = towpath_alloc(sizeof *it);
    towpath_text invalid;
    int64_t precision;
    if (!towpath_config_text("latitude", &it->latitude) || !towpath_config_text("longitude", &it->longitude) ||
        !towpath_config_text("into", &it->into) || !towpath_config_text("invalid", &invalid) ||
        !towpath_config_integer("precision", &precision)) {
        return towpath_terminal("GEOHASH_OPTIONS", "an option is missing");
    }
    it->precision = (size_t)precision;
    it->rejects = towpath_text_is(invalid, "reject");
    *instance = it;
    return NULL;
}

/* Defines the schema with the field added. */
static bool define(const geohash *it, const towpath_schema *schema, uint32_t *number) {
    const size_t count = schema->value.length;
    towpath_field *fields = towpath_alloc((count + 1) * sizeof *fields);
    memcpy(fields, schema->value.at, count * sizeof *fields);
    fields[count] = towpath_nullable(it->into, TOWPATH_TEXT);
    towpath_schema made = *schema;
    made.value.at = fields;
    made.value.length = count + 1;
    return towpath_define(&made, number);
}

/* What becomes of a record's schema: found once for each. NULL where there are too many of them. */
static const plan *plan_of(geohash *it, towpath_record record) {
    const uint32_t number = towpath_record_schema_number(record);
    for (plan **link = &it->plans; *link != NULL; link = &(*link)->next) {
        if ((*link)->number == number) {
            /* Found first the next time. */
            plan *found = *link;
            *link = found->next;
            found->next = it->plans;
            it->plans = found;
            return found;
        }
    }
    const towpath_schema *schema = towpath_record_schema(record);
    const ptrdiff_t latitude = towpath_fields_index(&schema->value, it->latitude);
    const ptrdiff_t longitude = towpath_fields_index(&schema->value, it->longitude);
    const ptrdiff_t into = towpath_fields_index(&schema->value, it->into);
    plan *made = towpath_alloc_instance(sizeof *made);
    made->number = number;
    if (latitude < 0 || longitude < 0) {
        made->what = KEEP;
    } else if (into < 0) {
        made->what = ADD;
        if (!define(it, schema, &made->target)) {
            return NULL;
        }
    } else {
        const towpath_field *field = &schema->value.at[into];
        made->what = field->scalar == TOWPATH_TEXT && field->dimensions == 0 ? REPLACE : REFUSE;
        made->into = (size_t)into;
    }
    made->latitude = latitude < 0 ? 0 : (size_t)latitude;
    made->longitude = longitude < 0 ? 0 : (size_t)longitude;
    made->next = it->plans;
    it->plans = made;
    return made;
}

typedef enum outcome { MADE, NULL_MADE, INVALID_PLACE } outcome;

static bool degrees(towpath_value value, double *to) {
    switch (value.kind) {
    case TOWPATH_IS_INT:
        *to = (double)value.as.integer;
        return true;
    case TOWPATH_IS_FLOAT32:
        *to = value.as.float32;
        return true;
    case TOWPATH_IS_FLOAT64:
        *to = value.as.float64;
        return true;
    case TOWPATH_IS_TEXT:
        return geohash_number(value.as.text.at, value.as.text.length, to);
    default:
        return false;
    }
}

static bool missing(towpath_value value) { return value.kind == TOWPATH_IS_NULL || value.kind == TOWPATH_IS_ABSENT; }

/* The geohash of a row as a value; `to` has room for it. */
static outcome hashed(const geohash *it, const plan *plan, towpath_row row, char *to, towpath_value *value) {
    const towpath_value latitude = towpath_row_get(row, plan->latitude);
    const towpath_value longitude = towpath_row_get(row, plan->longitude);
    value->kind = TOWPATH_IS_NULL;
    if (missing(latitude) || missing(longitude)) {
        /* What the source did not tell of its columns, nobody can tell of this one. */
        if (latitude.kind == TOWPATH_IS_ABSENT || longitude.kind == TOWPATH_IS_ABSENT) {
            value->kind = TOWPATH_IS_ABSENT;
        }
        return NULL_MADE;
    }
    double north, east;
    if (!degrees(latitude, &north) || !degrees(longitude, &east) || !geohash_write(north, east, it->precision, to)) {
        return it->rejects ? INVALID_PLACE : NULL_MADE;
    }
    value->kind = TOWPATH_IS_TEXT;
    value->as.text.at = to;
    value->as.text.length = it->precision;
    return MADE;
}

/* Copies a row's fields, with the geohash at its place: `count` fields are written. */
static void write_row(towpath_rewrite *to, const plan *plan, towpath_row row, towpath_value value) {
    const size_t at = plan->what == ADD ? row.fields->length : plan->into;
    for (size_t index = 0; index < row.fields->length; index++) {
        if (index == at) {
            towpath_put(to, value);
        } else {
            towpath_put_copy(to, row, index);
        }
    }
    if (at == row.fields->length) {
        towpath_put(to, value);
    }
}

static void one(const geohash *it, const plan *plan, towpath_record record, towpath_output *out) {
    const towpath_row before = towpath_record_before(record), after = towpath_record_after(record);
    char place[2][GEOHASH_LENGTH_MAX];
    towpath_value old, new;
    if (towpath_row_there(before) && hashed(it, plan, before, place[0], &old) == INVALID_PLACE) {
        /* It was let in once; what counts is where it is now. */
        old.kind = TOWPATH_IS_NULL;
    }
    if (towpath_row_there(after) && hashed(it, plan, after, place[1], &new) == INVALID_PLACE) {
        towpath_reject(out, record, "GEOHASH_PLACE", "`%.*s` and `%.*s` are no place in the world",
                       TOWPATH_SHOW(it->latitude), TOWPATH_SHOW(it->longitude))
            ->hint = "with `invalid: null` such records go on without a geohash";
        return;
    }
    towpath_rewrite to = plan->what == ADD ? towpath_rewrite_as(out, record, plan->target)
                                           : towpath_rewrite_record(out, record);
    if (towpath_row_there(before)) {
        towpath_begin_before(&to);
        write_row(&to, plan, before, old);
    }
    if (towpath_row_there(after)) {
        towpath_begin_after(&to);
        write_row(&to, plan, after, new);
    }
    towpath_finish(&to);
}

static const towpath_error *process(void *instance, const towpath_batch *batch, towpath_output *out) {
    geohash *it = instance;
    for (size_t at = 0; at < towpath_batch_length(batch); at++) {
        const towpath_record record = towpath_batch_record(batch, at);
        const plan *plan = plan_of(it, record);
        if (plan == NULL) {
            return towpath_terminal("GEOHASH_SCHEMAS", "there are too many schemas, or one is too large");
        }
        switch (plan->what) {
        case KEEP:
            towpath_keep(out, record);
            break;
        case REFUSE:
            towpath_reject(out, record, "GEOHASH_FIELD", "there is a field `%.*s`, and it is no text",
                           TOWPATH_SHOW(it->into))
                ->path = "into";
            break;
        default:
            one(it, plan, record, out);
        }
    }
    return NULL;
}

TOWPATH_EXPORT_TRANSFORM = {
    .name = "geohash",
    .version = "0.1.0",
    .summary = "Adds the geohash of a latitude and a longitude",
    .options = OPTIONS,
    .option_count = TOWPATH_COUNT(OPTIONS),
    .check = check,
    .open = open_it,
    .process = process,
};
