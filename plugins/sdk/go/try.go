package towpath

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
)

// Tried is what became of the records that a plugin was given by [Try].
type Tried struct {
	// Passed are the records that went on.
	Passed []Passed
	// Rejected are those that did not, by their places among the rows.
	Rejected map[int]Rejection
}

// Passed is a record that went on: which row it was made from, and what it is now.
type Passed struct {
	Origin int
	Record
}

// Try opens a plugin with these options, gives it plain records of a schema, one for each row by the names of its fields, and
// tells what became of them. It is for tests: no WASM is needed.
func Try(plugin Plugin, options map[string]any, schema Schema, rows ...map[string]Value) (*Tried, error) {
	config := TestConfig(options)
	if plugin.Check != nil {
		if problems := plugin.Check(config); len(problems) > 0 {
			return nil, fmt.Errorf("%s: %s", problems[0].Path, problems[0].Message)
		}
	}
	transform, err := plugin.Open(config)
	if err != nil {
		return nil, err
	}
	known := schemasOf(&testSchemas{})
	batch, err := batchOf(encoded(known, &schema, rows), known)
	if err != nil {
		return nil, err
	}
	var out Output
	out.begin(batch)
	if err := transform.Process(batch, &out); err != nil {
		return nil, err
	}
	tried := &Tried{Rejected: make(map[int]Rejection)}
	for _, it := range out.rejected {
		tried.Rejected[int(it.index)] = it.why
	}
	passed, err := batchOf(out.finish(), known)
	if err != nil {
		return nil, err
	}
	for record := range passed.Records() {
		origin := int(binary.LittleEndian.Uint32(record.entry[atOrigin:]))
		tried.Passed = append(tried.Passed, Passed{origin, record})
	}
	return tried, nil
}

// A buffer of plain records.
func encoded(known *schemas, schema *Schema, rows []map[string]Value) []byte {
	number, _ := known.source.define(schema)
	shape := known.get(number).value
	head := append([]byte(magic), 0, 0, 0, 0, headBytes, 0, 0, 0, 0, 0, 0, 0)
	empty := Batch{head, headBytes, len(rows), known}
	out := Output{batch: &empty}
	for index, row := range rows {
		entry := make([]byte, entryBytes)
		binary.LittleEndian.PutUint32(entry, number)
		binary.LittleEndian.PutUint32(entry[atPartition:], notThere)
		binary.LittleEndian.PutUint32(entry[atOrigin:], uint32(index))
		binary.LittleEndian.PutUint64(entry[atOffset:], uint64(index))
		for slot := atKey; slot < entryBytes; slot += 8 {
			noSlot(entry[slot:])
		}
		for name := range row {
			if _, found := shape.index[name]; !found {
				panic(fmt.Sprintf("the schema has no field `%s`", name))
			}
		}
		out.Rewrite(Record{&empty, known.get(number), entry, uint32(index)}).After(func(writer *RowWriter) {
			for _, field := range schema.Value {
				writer.Value(row[field.Name])
			}
		}).Finish()
	}
	return out.finish()
}

// Schemas that a test defines.
type testSchemas struct {
	all []*Schema
}

func (t *testSchemas) get(number uint32) *Schema {
	if int(number) < len(t.all) {
		return t.all[number]
	}
	return nil
}

func (t *testSchemas) define(schema *Schema) (uint32, bool) {
	for number, found := range t.all {
		if reflect.DeepEqual(found, schema) {
			return uint32(number), true
		}
	}
	copied := *schema
	t.all = append(t.all, &copied)
	return uint32(len(t.all) - 1), true
}

// TestConfig is options for a test: texts, whole numbers, booleans, lists of texts, and whatever JSON can be made of. Durations
// are milliseconds, sizes are bytes. Defaults are not filled in.
func TestConfig(options map[string]any) Config { return Config{testOptions(options)} }

type testOptions map[string]any

func (o testOptions) text(name string) (string, bool) {
	text, given := o[name].(string)
	return text, given
}

func (o testOptions) integer(name string) (int64, bool) {
	value := reflect.ValueOf(o[name])
	if !value.CanInt() {
		return 0, false
	}
	return value.Int(), true
}

func (o testOptions) flag(name string) (bool, bool) {
	value, given := o[name].(bool)
	return value, given
}

func (o testOptions) texts(name string) []string {
	texts, _ := o[name].([]string)
	return texts
}

func (o testOptions) json(name string) (string, bool) {
	value, given := o[name]
	if !given {
		return "", false
	}
	text, err := json.Marshal(value)
	return string(text), err == nil
}
