package towpath

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"strconv"
	"unsafe"
)

// Kind is what a value is.
type Kind uint8

const (
	// KindAbsent is what the source did not tell: never to be taken for null.
	KindAbsent Kind = iota
	// KindNull is the database's NULL.
	KindNull
	KindBool
	// KindInt is an integer of any width.
	KindInt
	KindFloat32
	KindFloat64
	KindBytes
	// KindText is everything else, arrays among it.
	KindText
)

// String is its name.
func (k Kind) String() string {
	return [...]string{"absent", "null", "bool", "int", "float32", "float64", "bytes", "text"}[k&7]
}

// Value is one field's value. The zero value is absent.
type Value struct {
	kind Kind
	bits uint64
	// Texts and bytes.
	text string
}

// AbsentValue is a value that the source did not tell.
func AbsentValue() Value { return Value{} }

// NullValue is the database's NULL.
func NullValue() Value { return Value{kind: KindNull} }

// BoolValue is a boolean.
func BoolValue(value bool) Value {
	if value {
		return Value{kind: KindBool, bits: 1}
	}
	return Value{kind: KindBool}
}

// IntValue is a whole number.
func IntValue(value int64) Value { return Value{kind: KindInt, bits: uint64(value)} }

// Float32Value is a number of single precision.
func Float32Value(value float32) Value {
	return Value{kind: KindFloat32, bits: uint64(math.Float32bits(value))}
}

// Float64Value is a number of double precision.
func Float64Value(value float64) Value {
	return Value{kind: KindFloat64, bits: math.Float64bits(value)}
}

// BytesValue is bytes, which must not change until they are written.
func BytesValue(value []byte) Value { return Value{kind: KindBytes, text: textOf(value)} }

// TextValue is a text, or whatever else a row carries as text (decimals, dates, UUIDs, JSON, arrays).
func TextValue(value string) Value { return Value{kind: KindText, text: value} }

// Kind is what it is.
func (v Value) Kind() Kind { return v.kind }

// IsAbsent says that the source did not tell it.
func (v Value) IsAbsent() bool { return v.kind == KindAbsent }

// IsNull says that it is the database's NULL.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Text is its text, where it is one. It stands in the batch: whoever holds it for long clones it.
func (v Value) Text() (string, bool) {
	if v.kind != KindText {
		return "", false
	}
	return v.text, true
}

// Bytes is its bytes, where it is such. They stand in the batch, and must not be changed.
func (v Value) Bytes() ([]byte, bool) {
	if v.kind != KindBytes {
		return nil, false
	}
	return bytesOf(v.text), true
}

// Int is the whole number that it is.
func (v Value) Int() (int64, bool) { return int64(v.bits), v.kind == KindInt }

// Bool is the boolean that it is.
func (v Value) Bool() (value, ok bool) { return v.kind == KindBool && v.bits != 0, v.kind == KindBool }

// Float is the number that it is, in single or double precision.
func (v Value) Float() (float64, bool) {
	switch v.kind {
	case KindFloat32:
		return float64(math.Float32frombits(uint32(v.bits))), true
	case KindFloat64:
		return math.Float64frombits(v.bits), true
	default:
		return 0, false
	}
}

// String shows it to people.
func (v Value) String() string {
	switch v.kind {
	case KindBool:
		return strconv.FormatBool(v.bits != 0)
	case KindInt:
		return strconv.FormatInt(int64(v.bits), 10)
	case KindFloat32, KindFloat64:
		number, _ := v.Float()
		bits := 64
		if v.kind == KindFloat32 {
			bits = 32
		}
		return strconv.FormatFloat(number, 'g', -1, bits)
	case KindBytes:
		return fmt.Sprintf("%x", v.text)
	case KindText:
		return v.text
	default:
		return v.kind.String()
	}
}

// Both without a copy: the bytes must not change.
func textOf(bytes []byte) string { return unsafe.String(unsafe.SliceData(bytes), len(bytes)) }

func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

const (
	endMask    = 1<<30 - 1
	stateShift = 30
	stateNull  = 1
	// What the source did not tell.
	stateAbsent = 2
)

// Row is a row of a record under its fields.
type Row struct {
	shape *shape
	// The table, and the fields behind it.
	data []byte
}

func rowOf(shape *shape, data []byte) Row {
	if len(data)/4 < len(shape.fields) {
		panic("a row is shorter than its table")
	}
	return Row{shape, data}
}

// Exists says whether the record has the row. Of one that it has not, every value is absent.
func (r Row) Exists() bool { return r.shape != nil }

// Fields are its fields; they must not be changed.
func (r Row) Fields() []Field {
	if r.shape == nil {
		return nil
	}
	return r.shape.fields
}

// Len is how many fields it has.
func (r Row) Len() int { return len(r.Fields()) }

// Index is the index of a field, or -1.
func (r Row) Index(name string) int {
	if r.shape != nil {
		if index, found := r.shape.index[name]; found {
			return index
		}
	}
	return -1
}

// Get is the value of the field called so; absent where there is no such field.
func (r Row) Get(name string) Value { return r.At(r.Index(name)) }

// The state of a field and its bytes as they stand.
func (r Row) raw(index int) (uint32, []byte) {
	entry := binary.LittleEndian.Uint32(r.data[index*4:])
	start, end := 0, int(entry&endMask)
	if index > 0 {
		start = int(binary.LittleEndian.Uint32(r.data[index*4-4:]) & endMask)
	}
	fields := r.data[len(r.shape.fields)*4:]
	if start > end || end > len(fields) {
		panic("a field is outside of its row")
	}
	return entry >> stateShift, fields[start:end:end]
}

// At is the value of a field; absent where there is no such field.
func (r Row) At(index int) Value {
	if index < 0 || index >= r.Len() {
		return Value{}
	}
	state, data := r.raw(index)
	switch state {
	case 0:
	case stateNull:
		return NullValue()
	default:
		return Value{}
	}
	kind := r.shape.kinds[index]
	switch kind {
	case KindBool:
		return BoolValue(ofWidth(data, 1)[0] != 0)
	case KindInt, KindFloat64:
		return Value{kind: kind, bits: binary.LittleEndian.Uint64(ofWidth(data, 8))}
	case KindFloat32:
		return Value{kind: kind, bits: uint64(binary.LittleEndian.Uint32(ofWidth(data, 4)))}
	default:
		return Value{kind: kind, text: textOf(data)}
	}
}

func ofWidth(data []byte, width int) []byte {
	if len(data) != width {
		panic("a field has the wrong width")
	}
	return data
}

// All is its values by the names of their fields, in their order.
func (r Row) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for index := range r.Len() {
			if !yield(r.shape.fields[index].Name, r.At(index)) {
				return
			}
		}
	}
}
