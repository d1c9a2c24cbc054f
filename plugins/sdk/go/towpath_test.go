package towpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var tested = Schema{Name: "t", Value: []Field{
	{Name: "id", Type: TypeInt64, Nullable: true},
	{Name: "text", Type: TypeText},
	{Name: "flag", Type: TypeBoolean},
	{Name: "real", Type: TypeFloat64},
	{Name: "single", Type: TypeFloat32},
	{Name: "raw", Type: TypeBytes},
	{Name: "list", Type: TypeInt32, Dimensions: 1},
	{Name: "short", Type: TypeInt16, Nullable: true},
}}

func row(id int64) map[string]Value {
	return map[string]Value{
		"id": IntValue(id), "text": TextValue("Zoë"), "flag": BoolValue(true), "real": Float64Value(1.5),
		"single": Float32Value(0.25), "raw": BytesValue([]byte("\x00\xff")), "list": TextValue("[1]"), "short": NullValue(),
	}
}

func values(row Row) map[string]Value {
	all := make(map[string]Value)
	for name, value := range row.All() {
		all[name] = value
	}
	return all
}

// A transform that is a function.
type process func(batch *Batch, out *Output) error

func (p process) Process(batch *Batch, out *Output) error { return p(batch, out) }

func through(t *testing.T, p process, rows ...map[string]Value) *Tried {
	t.Helper()
	open := func(Config) (Transform, error) { return p, nil }
	tried, err := Try(Plugin{Open: open}, nil, tested, rows...)
	if err != nil {
		t.Fatal(err)
	}
	return tried
}

// What a function panics with.
func panicOf(run func()) (what string) {
	defer func() {
		if found := recover(); found != nil {
			what = fmt.Sprint(found)
		}
	}()
	run()
	return ""
}

func TestRecordsAreKeptRewrittenRejectedAndDropped(t *testing.T) {
	why := Rejection{Code: "NO", Message: "not this one", Hint: "another"}
	headers := []Header{{"a", []byte("1")}, {"b", nil}, {"c", []byte{}}}
	tried := through(t, func(batch *Batch, out *Output) error {
		for record := range batch.Records() {
			switch id, _ := record.After().At(0).Int(); id {
			case 0:
				out.Keep(record)
			case 1:
				out.Reject(record, why)
			case 2:
				// One that is begun and not finished leaves nothing behind.
				out.Rewrite(record).After(func(row *RowWriter) { row.Int(7) }).Topic("nowhere")
				out.Rewrite(record).After(func(row *RowWriter) {
					row.Null()
					row.AppendText(func(to []byte) []byte { return append(append(to, "O"...), "mega"...) })
				}).Topic("elsewhere").Headers(headers...).Partition(7).Finish()
			case 3:
				out.Rewrite(record).Set("text", TextValue("not this")).SetAt(1, TextValue("set")).
					Op(OpUpdate).Flat(true).TimestampMs(-5).Finish()
			}
		}
		return nil
	}, row(0), row(1), row(2), row(3), row(4))
	if len(tried.Passed) != 3 || len(tried.Rejected) != 1 || tried.Rejected[1] != why {
		t.Fatal(tried)
	}
	kept, other, set := tried.Passed[0], tried.Passed[1], tried.Passed[2]
	if kept.Origin != 0 || other.Origin != 2 || set.Origin != 3 || !reflect.DeepEqual(values(kept.After()), row(0)) {
		t.Error(kept, values(kept.After()))
	}
	if after := other.After(); !after.At(0).IsNull() || after.Get("text").String() != "Omega" || !after.Get("flag").IsAbsent() {
		t.Error(values(after))
	}
	topic, _ := other.Topic()
	if partition, chosen := other.Partition(); topic != "elsewhere" || partition != 7 || !chosen {
		t.Error(topic, partition)
	}
	if found := other.Headers(); !reflect.DeepEqual(found, headers) {
		t.Error(found)
	}
	expected := row(3)
	expected["text"] = TextValue("set")
	if !reflect.DeepEqual(values(set.After()), expected) || set.Op() != OpUpdate || !set.IsFlat() || set.TimestampMs() != -5 {
		t.Error(values(set.After()))
	}
	if _, chosen := set.Partition(); chosen || set.Before().Exists() || set.Key().Exists() || set.Source().Exists() {
		t.Error("what was never there is there")
	}
	if _, chosen := set.Topic(); chosen || !set.Key().Get("id").IsAbsent() || set.After().Get("no").Kind() != KindAbsent {
		t.Error("what was never there is there")
	}
}

func TestValuesAreWhatTheyAre(t *testing.T) {
	shown := []string{}
	for _, field := range tested.Value {
		shown = append(shown, row(-1)[field.Name].String())
	}
	if expected := []string{"-1", "Zoë", "true", "1.5", "0.25", "00ff", "[1]", "null"}; !slices.Equal(shown, expected) {
		t.Error(shown)
	}
	if _, ok := TextValue("1").Int(); ok {
		t.Error("a text is no number")
	}
	if bytes, ok := TextValue("1").Bytes(); ok || bytes != nil {
		t.Error("a text is no bytes")
	}
	if float, ok := Float32Value(0.5).Float(); !ok || float != 0.5 {
		t.Error(float)
	}
	if _, ok := IntValue(1).Float(); ok {
		t.Error("a whole number is none with a fraction")
	}
}

func TestAnotherSchema(t *testing.T) {
	other := Schema{Name: "u", Key: []Field{}, Value: []Field{{Name: "twice", Type: TypeInt32}, {Name: "text", Type: TypeText}}}
	tried := through(t, func(batch *Batch, out *Output) error {
		number, err := out.Define(&other)
		again, _ := out.Define(&other)
		if err != nil || again != number {
			t.Error(number, again, err)
		}
		for record := range batch.Records() {
			from := record.After()
			id, _ := from.At(0).Int()
			out.RewriteAs(record, number).After(func(row *RowWriter) {
				row.Int(id * 2)
				row.Copy(from, 1)
			}).Finish()
		}
		return nil
	}, row(21))
	passed := tried.Passed[0]
	expected := map[string]Value{"twice": IntValue(42), "text": TextValue("Zoë")}
	if !reflect.DeepEqual(*passed.Schema(), other) || !reflect.DeepEqual(values(passed.After()), expected) {
		t.Error(passed.Schema(), values(passed.After()))
	}
}

func TestWhatIsKeptTakesTheDroppedBytesNotAlong(t *testing.T) {
	known := schemasOf(&testSchemas{})
	var rows []map[string]Value
	for id := range int64(100) {
		rows = append(rows, map[string]Value{"id": IntValue(id), "text": TextValue(strings.Repeat("x", 1000))})
	}
	batch, err := batchOf(encoded(known, &tested, rows), known)
	if err != nil {
		t.Fatal(err)
	}
	var out Output
	// Twice: memory is used again.
	for range 2 {
		out.begin(batch)
		out.Keep(batch.Record(7))
		out.Rewrite(batch.Record(50)).Set("text", TextValue("y")).Finish()
		sent := out.finish()
		if len(sent) > 1700 {
			t.Errorf("%d bytes", len(sent))
		}
		read, err := batchOf(sent, known)
		if err != nil || read.Len() != 2 {
			t.Fatal(err)
		}
		if text := read.Record(1).After().Get("text").String(); text != "y" || read.Record(0).After().Get("id").String() != "7" {
			t.Error(text)
		}
		out.end()
	}
	out.begin(batch)
	for record := range batch.Records() {
		out.Keep(record)
	}
	if sent := out.finish(); &sent[0] != &batch.data[0] {
		t.Error("what is only kept is sent as it came")
	}
}

func TestWhatDoesNotFitIsTold(t *testing.T) {
	for expected, write := range map[string]func(batch *Batch, out *Output){
		"`text` takes no int, but text": func(batch *Batch, out *Output) { out.Rewrite(batch.Record(0)).Set("text", IntValue(7)) },
		"40000 does not fit `short`":    func(batch *Batch, out *Output) { out.Rewrite(batch.Record(0)).Set("short", IntValue(40000)) },
		"no field `other`":              func(batch *Batch, out *Output) { out.Rewrite(batch.Record(0)).Set("other", NullValue()) },
		"no field 8":                    func(batch *Batch, out *Output) { out.Rewrite(batch.Record(0)).SetAt(8, NullValue()) },
		"no such row":                   func(batch *Batch, out *Output) { out.Rewrite(batch.Record(0)).Key(func(*RowWriter) {}) },
		"has 8 fields and no more": func(batch *Batch, out *Output) {
			out.Rewrite(batch.Record(0)).After(func(row *RowWriter) {
				row.CopyAll(batch.Record(0).After())
				row.Null()
			})
		},
		"goes on once": func(batch *Batch, out *Output) {
			out.Keep(batch.Record(0))
			out.Keep(batch.Record(0))
		},
		"one record is written": func(batch *Batch, out *Output) {
			one := out.Rewrite(batch.Record(0))
			out.Rewrite(batch.Record(1))
			one.Topic("a")
		},
		"one row is written": func(batch *Batch, out *Output) {
			one := out.Rewrite(batch.Record(0))
			one.After(func(*RowWriter) { one.Before(func(*RowWriter) {}) })
		},
		"written whole": func(batch *Batch, out *Output) {
			out.Rewrite(batch.Record(0)).After(func(*RowWriter) {}).Set("text", NullValue())
		},
		"the row was written": func(batch *Batch, out *Output) {
			var kept *RowWriter
			out.Rewrite(batch.Record(0)).After(func(row *RowWriter) { kept = row })
			kept.Null()
		},
		"of another batch": func(batch *Batch, out *Output) {
			other := *batch
			out.Keep(other.Record(0))
		},
		"no record 2":   func(batch *Batch, _ *Output) { batch.Record(2) },
		"the schema 99": func(batch *Batch, out *Output) { out.RewriteAs(batch.Record(0), 99) },
	} {
		through(t, func(batch *Batch, out *Output) error {
			if what := panicOf(func() { write(batch, out) }); !strings.Contains(what, expected) {
				t.Errorf("%q is not %q", what, expected)
			}
			return nil
		}, row(0), row(1))
	}
}

func TestWhatIsNoBatchIsNotRead(t *testing.T) {
	known := schemasOf(&testSchemas{})
	data := encoded(known, &tested, []map[string]Value{row(1)})
	for _, length := range []int{0, 3, 16, len(data) - 1} {
		if _, err := batchOf(data[:length], known); err == nil {
			t.Error(length)
		}
	}
	if batch, err := batchOf(data, schemasOf(&testSchemas{})); err != nil || !strings.Contains(panicOf(func() { batch.Record(0) }), "schema 0") {
		t.Error(err)
	}
	// Whatever a slot or a row says, nothing outside of its record is read: what is found wrong is told by us, and not by Go.
	for at := headBytes; at < len(data); at++ {
		for _, byte := range []byte{0, 1, 0x7F, 0xFF} {
			forged := slices.Clone(data)
			forged[at] = byte
			batch, err := batchOf(forged, known)
			if err != nil {
				t.Fatal(err)
			}
			what := panicOf(func() {
				record := batch.Record(0)
				record.Headers()
				record.Topic()
				for _, row := range []Row{record.Key(), record.Before(), record.After(), record.Source()} {
					values(row)
				}
				var out Output
				out.begin(batch)
				out.Rewrite(record).Topic("a").Finish()
				out.finish()
			})
			if strings.Contains(what, "runtime error") {
				t.Errorf("%d %x: %s", at, byte, what)
			}
		}
	}
}

func TestHeadersAreReadWithinTheirBounds(t *testing.T) {
	for _, data := range [][]byte{{1}, {5, 0, 0, 0, 'a'}, {0xFF, 0xFF, 0xFF, 0xFF}, {1, 0, 0, 0, 'a'}, {1, 0, 0, 0, 'a', 9, 0, 0, 0}} {
		arena := append(make([]byte, headBytes), data...)
		entry := make([]byte, entryBytes)
		binary.LittleEndian.PutUint32(entry[atHeaders:], headBytes)
		binary.LittleEndian.PutUint32(entry[atHeaders+4:], uint32(len(data)))
		record := Record{batch: &Batch{data: arena, base: len(arena)}, entry: entry}
		if what := panicOf(func() { record.Headers() }); !strings.Contains(what, "a header") {
			t.Errorf("%v: %q", data, what)
		}
	}
}

func TestErrorsKeepTheirKinds(t *testing.T) {
	around := fmt.Errorf("around: %w", NeedsOperator("CODE", "act on %d", 7))
	if told := errorOf(around); told.Kind != KindNeedsOperator || told.Code != "CODE" || told.Message != "around: act on 7" {
		t.Error(told)
	}
	if told := errorOf(errors.New("plain")); told.Kind != KindRetry || told.Code != "PLUGIN_ERROR" || told.Delay != time.Second {
		t.Error(told)
	}
	failing := Plugin{Open: func(Config) (Transform, error) { return nil, Terminal("NO", "never") }}
	var found *Error
	if _, err := Try(failing, nil, tested); !errors.As(err, &found) || found.Kind != KindTerminal {
		t.Error(err)
	}
}

func TestOptionsAreRead(t *testing.T) {
	config := TestConfig(map[string]any{"t": "x", "n": 1500, "f": false, "l": []string{"a"}, "m": map[string]int{"k": 1}})
	text, _ := config.Text("t")
	number, _ := config.Int("n")
	wait, _ := config.Duration("n")
	flag, given := config.Bool("f")
	if text != "x" || number != 1500 || wait != 1500*time.Millisecond || flag || !given || config.Texts("l")[0] != "a" {
		t.Error(text, number, wait, flag, given)
	}
	if json, given := config.JSON("m"); string(json) != `{"k":1}` || !given {
		t.Error(string(json))
	}
	for _, given := range []bool{
		second(config.Text("no")), second(config.Int("no")), second(config.Bool("no")), second(config.JSON("no")), second(config.Int("t")),
	} {
		if given {
			t.Error("what is not given is there")
		}
	}
}

func second[T any](_ T, given bool) bool { return given }

func TestAPluginIsExportedOnceAndWhole(t *testing.T) {
	if what := panicOf(func() { Export(Plugin{}) }); !strings.Contains(what, "no Open") {
		t.Error(what)
	}
	whole := Plugin{Open: func(Config) (Transform, error) { return nil, nil }}
	Export(whole)
	if what := panicOf(func() { Export(whole) }); !strings.Contains(what, "one plugin") {
		t.Error(what)
	}
}
