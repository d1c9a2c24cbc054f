//! What stands in for a system where a language cannot do without one: Go's runtime asks WASI for the time, for chance and
//! for a place to print to. All that it gets comes from the contract; whatever else it asks for is not there (R11).
//!
//! It is an adapter of `wit-component`: a module that shares the guest's memory. It allocates nothing, and keeps what it needs
//! in the 8 KiB between Go's first page and its data, which Go's linker leaves free for another system's arguments.
//!
//! While the host has memory allocated for what it passes, a guest must call nothing, and Go's scheduler asks for the time even
//! then. So the SDK says when the host can be called (`towpath_awake`): meanwhile time stands still, and what is printed waits.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    GlobalSection, GlobalType, ImportSection, InstructionSink, MemArg, MemoryType, Module, TypeSection,
    ValType,
};

/// The module whose functions are imported.
pub(crate) const NAME: &str = "wasi_snapshot_preview1";

/// What the adapter imports, and where it finds it in the contract.
pub(crate) const WORLD: &str = "package towpath:wasi; world adapter { import towpath:plugin/log@VERSION; \
     import towpath:plugin/clock@VERSION; import towpath:plugin/random@VERSION; }";

/// Where the host writes what it answers to the adapter.
const ANSWER: i32 = 4096;
/// What is printed and has no end yet: less than the host writes of a line.
const LINE: i32 = 8192;
const LINE_END: i32 = 12288 - 8;
/// Random bytes that the host gives at a time.
const RANDOM_MAX: i32 = 65536;

/// By this function the SDK says whether the host can be called.
const AWAKE_NAME: &str = "towpath_awake";

/// Error numbers of WASI.
const AGAIN: i32 = 6;
const BAD_FILE: i32 = 8;
const INVALID: i32 = 28;
const NOT_THERE: i32 = 52;

/// Levels of the log.
const INFO: i32 = 1;
const WARN: i32 = 2;
const ERROR: i32 = 3;

/// How the line begins with which Go's runtime gives up. The last error is what users are told, so that it is none what else
/// goes to the standard error: the stacks of all goroutines follow.
const FATAL: i64 = i64::from_le_bytes(*b"fatal er");
const PANIC: i64 = i64::from_le_bytes(*b"panic: \0");
const PANIC_MASK: i64 = i64::from_le_bytes([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0]);

/// The functions that are imported, by their places.
const LOG: u32 = 0;
const NOW_MS: u32 = 1;
const MONOTONIC_NS: u32 = 2;
const RANDOM: u32 = 3;
/// The first functions that are defined.
const PUT: u32 = 4;
const FLUSH: u32 = 5;

/// Variables of 32 bits.
const TO: u32 = 0;
const END: u32 = 1;
const START: u32 = 2;
const NEED: u32 = 3;
const LOW: u32 = 4;
const HIGH: u32 = 5;
const STREAM: u32 = 6;
const AWAKE: u32 = 7;
const VARIABLES: [i32; 8] = [0, LINE, LINE, 0, 0x80, 0xBF, 1, 1];
/// Variables of 64 bits: the times that were told last.
const NOW: u32 = 8;
const MONOTONIC: u32 = 9;

/// What is not there, with its parameters: `i` is 32 bits, `l` is 64.
const MISSING: [(&str, &str); 35] = [
    ("clock_res_get", "ii"),
    ("fd_advise", "illi"),
    ("fd_allocate", "ill"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "ill"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "il"),
    ("fd_filestat_set_times", "illi"),
    ("fd_pread", "iiili"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_pwrite", "iiili"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiili"),
    ("fd_renumber", "ii"),
    ("fd_seek", "ilii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiilli"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiillii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Types by their letters.
fn types(letters: &str) -> Vec<ValType> {
    letters.chars().map(|it| if it == 'l' { ValType::I64 } else { ValType::I32 }).collect()
}

/// A module that grows function by function.
#[derive(Default)]
struct Adapter {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    exports: ExportSection,
    code: CodeSection,
    count: u32,
}

impl Adapter {
    fn ty(&mut self, parameters: &str, results: &str) -> u32 {
        self.types.ty().function(types(parameters), types(results));
        self.types.len() - 1
    }

    /// A function of the contract: `interface` is its full name.
    fn import(&mut self, interface: &str, name: &str, parameters: &str, results: &str) {
        let ty = self.ty(parameters, results);
        self.imports.import(interface, name, EntityType::Function(ty));
        self.count += 1;
    }

    /// A function, with its local variables behind its parameters; exported where it has a name.
    fn define(
        &mut self,
        name: &str,
        (parameters, results): (&str, &str),
        locals: &str,
        body: impl FnOnce(&mut InstructionSink<'_>),
    ) {
        let ty = self.ty(parameters, results);
        self.functions.function(ty);
        let mut function = Function::new_with_locals_types(types(locals));
        body(&mut function.instructions());
        function.instructions().end();
        self.code.function(&function);
        if !name.is_empty() {
            self.exports.export(name, ExportKind::Func, self.count);
        }
        self.count += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let memory =
            MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
        self.imports.import("env", "memory", EntityType::Memory(memory));
        let mut globals = GlobalSection::new();
        for value in VARIABLES {
            let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
            globals.global(ty, &ConstExpr::i32_const(value));
        }
        for _ in [NOW, MONOTONIC] {
            let ty = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
            globals.global(ty, &ConstExpr::i64_const(0));
        }
        let mut module = Module::new();
        module.section(&self.types).section(&self.imports).section(&self.functions);
        module.section(&globals).section(&self.exports).section(&self.code);
        module.finish()
    }
}

/// Where in memory: so many bytes behind an address, on a boundary of a byte at least.
const fn at(offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index: 0 }
}

/// The adapter; `full` gives the full name of one of the contract's interfaces.
pub(crate) fn adapter(full: impl Fn(&str) -> String) -> Vec<u8> {
    let mut adapter = Adapter::default();
    adapter.import(&full("log"), "write", "iii", "");
    adapter.import(&full("clock"), "now-ms", "", "l");
    adapter.import(&full("clock"), "monotonic-ns", "", "l");
    adapter.import(&full("random"), "bytes", "ii", "");
    printing(&mut adapter);
    chance(&mut adapter);
    time(&mut adapter);
    adapter.define(AWAKE_NAME, ("i", ""), "", |it| {
        it.local_get(0).global_set(AWAKE);
    });
    adapter.define("proc_exit", ("i", ""), "", |it| {
        it.call(FLUSH).unreachable();
    });
    adapter.define("sched_yield", ("", "i"), "", |it| {
        it.i32_const(0);
    });
    // There are no arguments, and no environment.
    for (sizes, get) in [("args_sizes_get", "args_get"), ("environ_sizes_get", "environ_get")] {
        adapter.define(sizes, ("ii", "i"), "", |it| {
            it.local_get(0)
                .i32_const(0)
                .i32_store(at(0))
                .local_get(1)
                .i32_const(0)
                .i32_store(at(0))
                .i32_const(0);
        });
        adapter.define(get, ("ii", "i"), "", |it| {
            it.i32_const(0);
        });
    }
    for (name, parameters) in MISSING {
        // Go looks for folders that it was given until there is no such file.
        let number = if name == "fd_prestat_get" { BAD_FILE } else { NOT_THERE };
        adapter.define(name, (parameters, "i"), "", |it| {
            it.i32_const(number);
        });
    }
    adapter.finish()
}

/// What is printed goes to the log, line by line: what is no UTF-8 in it becomes `?`.
fn printing(adapter: &mut Adapter) {
    // PUT: one byte more. START is where the character begins that it is of, NEED how many bytes that one still wants, and
    // LOW and HIGH what the next of them can be.
    adapter.define("", ("i", ""), "", |it| {
        it.global_get(NEED).if_(BlockType::Empty);
        it.local_get(0).global_get(LOW).i32_sub().global_get(HIGH).global_get(LOW).i32_sub().i32_le_u();
        it.if_(BlockType::Empty);
        append(it);
        it.global_get(NEED).i32_const(1).i32_sub().global_set(NEED);
        it.i32_const(0x80).global_set(LOW).i32_const(0xBF).global_set(HIGH).return_().end();
        mend(it);
        it.end();
        it.local_get(0)
            .i32_const(i32::from(b'\n'))
            .i32_eq()
            .if_(BlockType::Empty)
            .call(FLUSH)
            .return_()
            .end();
        // Only between two characters, so that none is cut.
        it.global_get(END).i32_const(LINE_END).i32_ge_u().if_(BlockType::Empty).call(FLUSH).end();
        it.global_get(END).i32_const(LINE_END).i32_ge_u().if_(BlockType::Empty).return_().end();
        it.global_get(END).global_set(START);
        append(it);
        it.local_get(0).i32_const(0xC2).i32_ge_u();
        it.local_get(0).i32_const(0xE0).i32_ge_u().i32_add();
        it.local_get(0).i32_const(0xF0).i32_ge_u().i32_add().global_set(NEED);
        it.i32_const(0xA0).i32_const(0x90).i32_const(0x80).local_get(0).i32_const(0xF0).i32_eq().select();
        it.local_get(0).i32_const(0xE0).i32_eq().select().global_set(LOW);
        it.i32_const(0x9F).i32_const(0x8F).i32_const(0xBF).local_get(0).i32_const(0xF4).i32_eq().select();
        it.local_get(0).i32_const(0xED).i32_eq().select().global_set(HIGH);
        // 80 to C1 begin no character, and what is above F4 does not either.
        it.local_get(0).i32_const(0x80).i32_sub().i32_const(0x41).i32_le_u();
        it.local_get(0).i32_const(0xF5).i32_ge_u().i32_or().if_(BlockType::Empty);
        mend(it);
        it.end();
    });
    // FLUSH: the line ends. Where nobody can be told, it waits for the next one, as far as there is room.
    adapter.define("", ("", ""), "", |it| {
        it.global_get(NEED).if_(BlockType::Empty);
        mend(it);
        it.end();
        it.global_get(AWAKE).i32_eqz().if_(BlockType::Empty);
        it.global_get(END).i32_const(LINE_END).i32_lt_u().if_(BlockType::Empty);
        it.global_get(END).i32_const(i32::from(b'\n')).i32_store8(at(0));
        it.global_get(END).i32_const(1).i32_add().global_set(END).end().return_().end();
        it.global_get(END).i32_const(LINE).i32_ne().if_(BlockType::Empty);
        it.i32_const(INFO).i32_const(ERROR).i32_const(WARN);
        it.i32_const(LINE).i64_load(at(0)).i64_const(FATAL).i64_eq();
        it.i32_const(LINE).i64_load(at(0)).i64_const(PANIC_MASK).i64_and().i64_const(PANIC).i64_eq().i32_or();
        it.global_get(END).i32_const(LINE + 8).i32_ge_u().i32_and().select();
        it.global_get(STREAM).i32_const(1).i32_eq().select();
        it.i32_const(LINE).global_get(END).i32_const(LINE).i32_sub().call(LOG);
        it.i32_const(LINE).global_set(END).end();
    });
    // Of file, parts, count of parts, written; the locals are a part's place and length, and what was written.
    adapter.define("fd_write", ("iiii", "i"), "iii", |it| {
        it.local_get(0).i32_const(1).i32_sub().i32_const(2).i32_ge_u();
        it.if_(BlockType::Empty).i32_const(BAD_FILE).return_().end();
        it.local_get(0).global_get(STREAM).i32_ne().if_(BlockType::Empty);
        it.call(FLUSH).local_get(0).global_set(STREAM).end();
        it.loop_(BlockType::Empty).local_get(2).if_(BlockType::Empty);
        it.local_get(1).i32_load(at(0)).local_set(4).local_get(1).i32_load(at(4)).local_tee(5);
        it.local_get(6).i32_add().local_set(6);
        it.loop_(BlockType::Empty).local_get(5).if_(BlockType::Empty);
        it.local_get(4).i32_load8_u(at(0)).call(PUT);
        it.local_get(4).i32_const(1).i32_add().local_set(4);
        it.local_get(5).i32_const(1).i32_sub().local_set(5).br(1).end().end();
        it.local_get(1).i32_const(8).i32_add().local_set(1);
        it.local_get(2).i32_const(1).i32_sub().local_set(2).br(1).end().end();
        it.local_get(3).local_get(6).i32_store(at(0)).i32_const(0);
    });
}

/// The byte that PUT was given goes to the line's end.
fn append(it: &mut InstructionSink<'_>) {
    it.global_get(END).local_get(0).i32_store8(at(0));
    it.global_get(END).i32_const(1).i32_add().global_set(END);
}

/// The character that was begun is none.
fn mend(it: &mut InstructionSink<'_>) {
    it.global_get(START).i32_const(i32::from(b'?')).i32_store8(at(0));
    it.global_get(START).i32_const(1).i32_add().global_set(END).i32_const(0).global_set(NEED);
}

/// The host's random bytes go to where they are wanted at once: whoever asks may be a runtime that cannot allocate yet.
fn chance(adapter: &mut Adapter) {
    adapter.define("cabi_import_realloc", ("iiii", "i"), "", |it| {
        it.global_get(TO);
    });
    // Where, how many; the local is how many at once.
    adapter.define("random_get", ("ii", "i"), "i", |it| {
        it.global_get(AWAKE).i32_eqz().if_(BlockType::Empty).i32_const(AGAIN).return_().end();
        it.loop_(BlockType::Empty).local_get(1).if_(BlockType::Empty);
        it.local_get(1).i32_const(RANDOM_MAX).local_get(1).i32_const(RANDOM_MAX).i32_lt_u().select();
        it.local_set(2).local_get(0).global_set(TO);
        it.local_get(2).i32_const(ANSWER).call(RANDOM);
        it.local_get(0).local_get(2).i32_add().local_set(0);
        it.local_get(1).local_get(2).i32_sub().local_set(1).br(1).end().end().i32_const(0);
    });
}

fn time(adapter: &mut Adapter) {
    // Which clock, how exactly, where to.
    adapter.define("clock_time_get", ("ili", "i"), "", |it| {
        it.local_get(2).local_get(0).if_(BlockType::Result(ValType::I64));
        monotonic(it);
        it.else_().global_get(AWAKE).if_(BlockType::Empty);
        it.call(NOW_MS).i64_const(1_000_000).i64_mul().global_set(NOW).end().global_get(NOW).end();
        it.i64_store(at(0)).i32_const(0);
    });
    // What is waited for, what happened, how much is waited for, how much happened; the local is when. Of all that could be
    // waited for there is time alone, and nobody to wait with: it passes, until the call's own ends.
    adapter.define("poll_oneoff", ("iiii", "i"), "l", |it| {
        it.local_get(2).i32_eqz().if_(BlockType::Empty).i32_const(INVALID).return_().end();
        it.local_get(0).i32_load8_u(at(8)).if_(BlockType::Empty).i32_const(NOT_THERE).return_().end();
        monotonic(it);
        it.local_get(0).i64_load(at(24)).i64_add().local_set(4);
        it.global_get(AWAKE).if_(BlockType::Empty).loop_(BlockType::Empty);
        monotonic(it);
        it.local_get(4).i64_lt_u().br_if(0).end().else_().local_get(4).global_set(MONOTONIC).end();
        it.local_get(1).local_get(0).i64_load(at(0)).i64_store(at(0));
        it.local_get(1).i64_const(0).i64_store(at(8));
        it.local_get(3).i32_const(1).i32_store(at(0)).i32_const(0);
    });
}

/// The time of the clock that never goes back, if it can be asked; else what it said.
fn monotonic(it: &mut InstructionSink<'_>) {
    it.global_get(AWAKE)
        .if_(BlockType::Empty)
        .call(MONOTONIC_NS)
        .global_set(MONOTONIC)
        .end()
        .global_get(MONOTONIC);
}
