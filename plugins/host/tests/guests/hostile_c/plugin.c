/* Does what each record's text says; a plugin in C that does everything wrong, and asks for everything that there is. */
#include <stdlib.h>

#include "towpath.h"

static const char *const SCHEMES[] = {"http", "https", NULL};
static const towpath_choice WORDS[] = {{"a", "A."}, {"b", "B."}, {NULL, NULL}};

static const towpath_option OPTIONS[] = {
    {.name = "text", .doc = "T.", .element = {.kind = TOWPATH_ELEMENT_TEXT}, .default_json = "\"x\""},
    {.name = "number", .doc = "N.", .element = {.kind = TOWPATH_ELEMENT_INTEGER, .min = -5, .max = 5}, .required = true},
    {.name = "flag", .doc = "F.", .element = {.kind = TOWPATH_ELEMENT_BOOLEAN}},
    {.name = "list", .doc = "L.", .element = {.kind = TOWPATH_ELEMENT_ONE_OF, .choices = WORDS}, .shape = TOWPATH_MANY},
    {.name = "map", .doc = "M.", .element = {.kind = TOWPATH_ELEMENT_ANY}, .shape = TOWPATH_BY_KEY},
    {.name = "url", .doc = "U.", .element = {.kind = TOWPATH_ELEMENT_URL, .schemes = SCHEMES}},
    {.name = "wait", .doc = "W.", .element = {.kind = TOWPATH_ELEMENT_DURATION}},
    {.name = "size", .doc = "S.", .element = {.kind = TOWPATH_ELEMENT_BYTE_SIZE}},
    {.name = "token", .doc = "K.", .element = {.kind = TOWPATH_ELEMENT_TEXT}, .secret = true},
    {.name = "at_open", .doc = "O.", .element = {.kind = TOWPATH_ELEMENT_TEXT}},
};

static const towpath_error *open_it(void **instance) {
    towpath_text how;
    *instance = towpath_alloc(sizeof(uint64_t));
    if (!towpath_config_text("at_open", &how)) {
        return NULL;
    }
    if (towpath_text_is(how, "operator")) {
        return towpath_needs_operator("HOSTILE_OPEN", "somebody has to act");
    }
    return towpath_retry_after(7000, "HOSTILE_OPEN", "later");
}

static volatile unsigned depth;

__attribute__((noinline)) static unsigned deeper(unsigned by) {
    volatile char room[1024];
    room[by % sizeof room] = (char)by;
    depth = by;
    return deeper(by + 1) + (unsigned)room[(by + 1) % sizeof room];
}

/* What is told of the options. */
static void tell_options(towpath_rewrite *it) {
    towpath_text text, map, url;
    const towpath_text *list;
    int64_t number, wait, size;
    bool flag;
    const bool told = towpath_config_text("text", &text) && towpath_config_integer("number", &number) &&
                      towpath_config_flag("flag", &flag) && towpath_config_json("map", &map) &&
                      towpath_config_text("url", &url) && towpath_config_integer("wait", &wait);
    if (!told || towpath_config_integer("size", &size)) {
        towpath_panic("an option is missing, or there is one too many");
    }
    const size_t count = towpath_config_texts("list", &list);
    towpath_put_format(it, "%s %lld %d %zu %s %s %s %lld", text.at, (long long)number, flag, count,
                       count == 0 ? "" : list[count - 1].at, map.at, url.at, (long long)wait);
}

static void one(uint64_t *calls, towpath_record record, towpath_output *out) {
    const towpath_text how = towpath_row_get(towpath_record_after(record), 0).as.text;
    towpath_rewrite it;
    if (towpath_text_is(how, "panic")) {
        towpath_panic("on purpose");
    } else if (towpath_text_is(how, "abort")) {
        abort();
    } else if (towpath_text_is(how, "stack")) {
        depth = deeper(0);
    } else if (towpath_text_is(how, "loop")) {
        for (;;) {
            depth++;
        }
    } else if (towpath_text_is(how, "hog")) {
        for (;;) {
            memset(towpath_alloc(1 << 20), 1, 1 << 20);
        }
    } else if (towpath_text_is(how, "type")) {
        it = towpath_rewrite_record(out, record);
        towpath_begin_after(&it);
        towpath_put_int(&it, 7);
    } else if (towpath_text_is(how, "utf-8")) {
        it = towpath_rewrite_record(out, record);
        towpath_begin_after(&it);
        towpath_put_format(&it, "%.1s", "ü");
        towpath_finish(&it);
    } else if (towpath_text_is(how, "twice")) {
        towpath_keep(out, record);
        towpath_keep(out, record);
    } else if (towpath_text_is(how, "cut")) {
        towpath_details *why = towpath_reject(out, record, "HOSTILE_RECORD", "a%.1s%s", "ü", "ü\xed\xa0\x80");
        why->hint = "h";
        why->path = "text";
    } else if (towpath_text_is(how, "calls")) {
        it = towpath_rewrite_record(out, record);
        towpath_begin_after(&it);
        towpath_put_format(&it, "%llu", (unsigned long long)++*calls);
        towpath_finish(&it);
    } else if (towpath_text_is(how, "world")) {
        uint8_t bytes[2][16];
        towpath_random(bytes[0], sizeof bytes[0]);
        towpath_random(bytes[1], sizeof bytes[1]);
        const uint64_t begun = towpath_monotonic_ns();
        const bool right = towpath_now_ms() > 1700000000000 && towpath_monotonic_ns() >= begun &&
                           memcmp(bytes[0], bytes[1], sizeof bytes[0]) != 0;
        towpath_log(TOWPATH_INFO, "%s", right ? "right" : "wrong");
        it = towpath_rewrite_record(out, record);
        towpath_begin_after(&it);
        towpath_put_text(&it, towpath_text_of(right ? "right" : "wrong"));
        towpath_finish(&it);
    } else if (towpath_text_is(how, "options")) {
        it = towpath_rewrite_record(out, record);
        towpath_begin_after(&it);
        tell_options(&it);
        towpath_finish(&it);
    } else {
        towpath_keep(out, record);
    }
}

static const towpath_error *process(void *instance, const towpath_batch *batch, towpath_output *out) {
    for (size_t at = 0; at < towpath_batch_length(batch); at++) {
        const towpath_record record = towpath_batch_record(batch, at);
        if (towpath_text_is(towpath_row_get(towpath_record_after(record), 0).as.text, "terminal")) {
            return towpath_terminal("HOSTILE_END", "no more of %zu", towpath_batch_length(batch));
        }
        one(instance, record, out);
    }
    return NULL;
}

TOWPATH_EXPORT_TRANSFORM = {
    .name = "hostile_c",
    .version = "0.1.0",
    .summary = "Does everything wrong",
    .options = OPTIONS,
    .option_count = TOWPATH_COUNT(OPTIONS),
    .open = open_it,
    .process = process,
};
