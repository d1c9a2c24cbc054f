/* The transform `NAME`, in LANGUAGE. */
#include "towpath.h"

/* Drops records whose field holds a certain text. */
typedef struct settings {
    towpath_text field, text;
} settings;

static const towpath_option SETTINGS[] = {
    {.name = "field",
     .doc = "The field to look at.",
     .element = {.kind = TOWPATH_ELEMENT_NON_EMPTY_TEXT},
     .required = true},
    {.name = "text",
     .doc = "Records that hold this text are dropped.",
     .element = {.kind = TOWPATH_ELEMENT_TEXT},
     .required = true},
};

static const towpath_error *open_it(void **instance) {
    /* What is allocated here lasts as long as the instance. */
    settings *it = towpath_alloc(sizeof *it);
    if (!towpath_config_text("field", &it->field) || !towpath_config_text("text", &it->text)) {
        return towpath_terminal("SETTINGS_MISSING", "`field` and `text` must be given");
    }
    *instance = it;
    return NULL;
}

static const towpath_error *process(void *instance, const towpath_batch *batch, towpath_output *out) {
    const settings *it = instance;
    for (size_t at = 0; at < towpath_batch_length(batch); at++) {
        const towpath_record record = towpath_batch_record(batch, at);
        const towpath_value value = towpath_row_by_name(towpath_record_after(record), it->field);
        if (value.kind != TOWPATH_IS_TEXT || !towpath_text_equal(value.as.text, it->text)) {
            towpath_keep(out, record);
        }
    }
    return NULL;
}

TOWPATH_EXPORT_TRANSFORM = {
    .name = "NAME",
    .version = "0.1.0",
    .summary = "Drops records whose field holds a certain text",
    .options = SETTINGS,
    .option_count = TOWPATH_COUNT(SETTINGS),
    .open = open_it,
    .process = process,
};
