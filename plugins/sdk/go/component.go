//go:build wasip1

package towpath

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"unsafe"
)

// Between the contract and the author's plugin: in a component only.

//go:wasmimport towpath:plugin/log@0.1.0 write
func importLog(level uint32, text unsafe.Pointer, length uint32)

//go:wasmimport towpath:plugin/config@0.1.0 text
func importText(name unsafe.Pointer, length uint32, answer unsafe.Pointer)

//go:wasmimport towpath:plugin/config@0.1.0 integer
func importInteger(name unsafe.Pointer, length uint32, answer unsafe.Pointer)

//go:wasmimport towpath:plugin/config@0.1.0 flag
func importFlag(name unsafe.Pointer, length uint32, answer unsafe.Pointer)

//go:wasmimport towpath:plugin/config@0.1.0 texts
func importTexts(name unsafe.Pointer, length uint32, answer unsafe.Pointer)

//go:wasmimport towpath:plugin/config@0.1.0 json
func importJSON(name unsafe.Pointer, length uint32, answer unsafe.Pointer)

//go:wasmimport towpath:plugin/schemas@0.1.0 get
func importSchema(number uint32, answer unsafe.Pointer)

//go:wasmimport towpath:plugin/schemas@0.1.0 define
func importDefine(name, nameLength, variables, variablesLength, hasKey, key, keyLength, value, valueLength,
	computed, computedLength, hasSource, constants, constantsLength, source, sourceLength uint32, answer unsafe.Pointer)

// Says whether the host can be called. The build's stand-in for WASI has it.
//
//go:wasmimport wasi_snapshot_preview1 towpath_awake
func importAwake(awake uint32)

// ---- When the host can be called ----

// The host must not be called while it has memory allocated here: before a call, and while it answers. Whoever calls it has
// this, and so has nobody between two calls, when goroutines may run that the plugin has started.
var world sync.Mutex

// Whether this is a time between two calls. The first one of an instance has nothing to be allocated for it.
var asleep bool

func sleep() {
	world.Lock()
	asleep = true
	importAwake(0)
}

func wake() {
	if asleep {
		importAwake(1)
		asleep = false
		world.Unlock()
	}
}

// What the host has had allocated and what of it has not been taken; what it reads of the last answer.
var (
	held   [][]uint64
	answer given
	// Where the host writes what it answers.
	area [16]uint64
)

//go:wasmexport cabi_realloc
func exportRealloc(old unsafe.Pointer, oldSize, _, size uint32) unsafe.Pointer {
	// It has read the last answer: what it allocates belongs to another call.
	answer = given{}
	words := make([]uint64, max(size+7, 8)/8)
	held = append(held, words)
	at := unsafe.Pointer(unsafe.SliceData(words))
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(at), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return at
}

// What the host has had allocated was taken.
func release() {
	clear(held)
	held = held[:0]
}

// Calls the host for what it has to allocate memory for, and takes it.
func asked(call func(at unsafe.Pointer), take func(answer taken)) {
	world.Lock()
	defer world.Unlock()
	at := unsafe.Pointer(&area)
	importAwake(0)
	call(at)
	importAwake(1)
	take(taken{at})
	release()
}

// ---- What the host does ----

func hostLog(level level, message string) {
	message = strings.ToValidUTF8(message, "?")
	world.Lock()
	defer world.Unlock()
	importLog(uint32(level), unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

type hostOptions struct{}

func option(name string, call func(unsafe.Pointer, uint32, unsafe.Pointer), take func(answer taken)) {
	asked(func(at unsafe.Pointer) { call(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), at) }, take)
}

func (hostOptions) text(name string) (text string, given bool) {
	option(name, importText, func(answer taken) { text, given = answer.option(0) })
	return text, given
}

func (hostOptions) integer(name string) (number int64, given bool) {
	option(name, importInteger, func(answer taken) {
		if given = answer.byte(0) != 0; given {
			number = int64(answer.uint64(8))
		}
	})
	return number, given
}

func (hostOptions) flag(name string) (flag, given bool) {
	option(name, importFlag, func(answer taken) {
		given = answer.byte(0) != 0
		flag = given && answer.byte(1) != 0
	})
	return flag, given
}

func (hostOptions) texts(name string) (texts []string) {
	option(name, importTexts, func(answer taken) {
		texts = elements(answer, 0, 8, func(it taken) string { return it.text(0) })
	})
	return texts
}

func (hostOptions) json(name string) (text string, given bool) {
	option(name, importJSON, func(answer taken) { text, given = answer.option(0) })
	return text, given
}

type hostSchemas struct{}

func (hostSchemas) get(number uint32) (schema *Schema) {
	asked(func(at unsafe.Pointer) { importSchema(number, at) }, func(answer taken) {
		if answer.byte(0) != 0 {
			schema = answer.behind(4).schema()
		}
	})
	return schema
}

func (hostSchemas) define(schema *Schema) (number uint32, defined bool) {
	var made given
	// In the order in which the contract has them; a schema's parts are flat then.
	var parts [5 * 8]byte
	made.pairs(parts[0:], schema.Variables)
	made.fields(parts[8:], schema.Value)
	list(&made, parts[16:], schema.Computed, 24, func(to []byte, it *Computed) {
		made.text(to, it.Name)
		made.text(to[8:], it.SourceType)
		made.text(to[16:], it.Expression)
	})
	var name, key, source, constants [8]byte
	made.text(name[:], schema.Name)
	var hasKey, hasSource uint32
	if schema.Key != nil {
		hasKey = 1
		made.fields(key[:], schema.Key)
	}
	if schema.Source != nil {
		hasSource = 1
		made.pairs(constants[:], schema.Source.Constants)
		made.fields(source[:], schema.Source.Fields)
	}
	at := func(part []byte) (uint32, uint32) {
		words := taken{unsafe.Pointer(unsafe.SliceData(part))}
		return words.uint32(0), words.uint32(4)
	}
	n, nl := at(name[:])
	v, vl := at(parts[0:])
	k, kl := at(key[:])
	f, fl := at(parts[8:])
	c, cl := at(parts[16:])
	o, ol := at(constants[:])
	s, sl := at(source[:])
	asked(func(to unsafe.Pointer) {
		importDefine(n, nl, v, vl, hasKey, k, kl, f, fl, c, cl, hasSource, o, ol, s, sl, to)
	}, func(answer taken) {
		defined = answer.byte(0) == 0
		number = answer.uint32(4)
	})
	// Its addresses were numbers all the while.
	made = given{}
	return number, defined
}

// ---- What the component exports ----

// From this size on, what the batch before has left is collected first: the collector does not know how little memory there is.
const largeBytes = 1 << 20

// How large a goroutine's stack can be: without this, an endless recursion takes all memory.
const stackBytesMax = 4 << 20

func init() { debug.SetMaxStack(stackBytesMax) }

// One call: what it answers is read until the next one. A panic ends the instance, and is told.
func called(call func()) {
	wake()
	defer sleep()
	defer func() {
		if what := recover(); what != nil {
			stack := string(debug.Stack())
			hostLog(levelError, stack)
			hostLog(levelError, fmt.Sprint("panic: ", what))
			os.Exit(2)
		}
	}()
	if exported == nil {
		panic("there is no plugin: call towpath.Export in an init function")
	}
	call()
}

// An answer of so many bytes.
func answered(size int, write func(to []byte)) unsafe.Pointer {
	var at unsafe.Pointer
	called(func() {
		answer = given{}
		to, _ := answer.block(size)
		at = unsafe.Pointer(unsafe.SliceData(to))
		write(to)
	})
	return at
}

//go:wasmexport towpath:plugin/plugin@0.1.0#descriptor
func exportDescriptor() unsafe.Pointer {
	return answered(24, func(to []byte) {
		answer.text(to, exported.Name)
		answer.text(to[8:], exported.Version)
		answer.text(to[16:], exported.Summary)
	})
}

func (g *given) element(to []byte, element *Element) {
	to[0] = byte(element.kind)
	switch element.kind {
	case elementInteger:
		put64(to[8:], uint64(element.min))
		put64(to[16:], uint64(element.max))
	case elementURL:
		list(g, to[8:], element.schemes, 8, func(to []byte, scheme *string) { g.text(to, *scheme) })
	case elementOneOf:
		list(g, to[8:], element.choices, 16, func(to []byte, choice *Choice) {
			g.text(to, choice.Name)
			g.text(to[8:], choice.Doc)
		})
	}
}

//go:wasmexport towpath:plugin/plugin@0.1.0#config-spec
func exportConfigSpec() unsafe.Pointer {
	return answered(8, func(to []byte) {
		list(&answer, to, exported.Options, 72, func(to []byte, option *Option) {
			answer.text(to, option.Name)
			answer.text(to[8:], option.Doc)
			to[16] = byte(option.Shape)
			answer.element(to[24:48], &option.Element)
			to[48] = byte(BoolValue(option.Required).bits)
			answer.option(to[52:], option.DefaultJSON, option.DefaultJSON != "")
			to[64] = byte(BoolValue(option.Secret).bits)
		})
	})
}

//go:wasmexport towpath:plugin/plugin@0.1.0#check-config
func exportCheckConfig() unsafe.Pointer {
	return answered(8, func(to []byte) {
		var problems []Problem
		if exported.Check != nil {
			problems = exported.Check(Config{hostOptions{}})
		}
		list(&answer, to, problems, 28, func(to []byte, problem *Problem) {
			answer.text(to, problem.Path)
			answer.text(to[8:], problem.Message)
			answer.option(to[16:], problem.Hint, problem.Hint != "")
		})
	})
}

func (g *given) details(to []byte, code, message, hint, path string) {
	g.text(to, code)
	g.text(to[8:], message)
	g.option(to[16:], hint, hint != "")
	g.option(to[28:], path, path != "")
}

// A result that is an error.
func (g *given) failed(to []byte, err error) {
	failed := errorOf(err)
	to[0], to[8] = 1, byte(failed.Kind)
	details := to[16:]
	if failed.Kind == KindRetry {
		put64(details, uint64(max(failed.Delay.Milliseconds(), 0)))
		details = details[8:]
	}
	g.details(details, failed.Code, failed.Message, failed.Hint, failed.Path)
}

// The plugin, once it is open, and what it knows and writes.
var (
	opened  Transform
	defined = schemasOf(hostSchemas{})
	output  Output
)

//go:wasmexport towpath:plugin/transforms@0.1.0#open
func exportOpen() unsafe.Pointer {
	return answered(64, func(to []byte) {
		transform, err := exported.Open(Config{hostOptions{}})
		if err != nil {
			answer.failed(to, err)
			return
		}
		opened = transform
	})
}

// A batch through the plugin.
func processed(data []byte) ([]byte, error) {
	if opened == nil {
		return nil, Terminal("PLUGIN_NOT_OPEN", "the plugin has not been opened")
	}
	batch, err := batchOf(data, defined)
	if err != nil {
		return nil, Terminal("PLUGIN_BATCH", "the batch from the host cannot be read: %v", err)
	}
	output.begin(batch)
	if err := opened.Process(batch, &output); err != nil {
		return nil, err
	}
	return output.finish(), nil
}

//go:wasmexport towpath:plugin/transforms@0.1.0#process
func exportProcess(at, length uint32) unsafe.Pointer {
	return answered(64, func(to []byte) {
		data := bytesAt(at, length)
		release()
		if length > largeBytes {
			runtime.GC()
		}
		made, err := processed(data)
		if err != nil {
			answer.failed(to, err)
		} else {
			answer.texts = append(answer.texts, textOf(made))
			putBytes(to[8:], made)
			list(&answer, to[16:], output.rejected, 44, func(to []byte, it *rejected) {
				put32(to, it.index)
				answer.details(to[4:], it.why.Code, it.why.Message, it.why.Hint, it.why.Path)
			})
		}
		output.end()
	})
}
