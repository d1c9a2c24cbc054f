package towpath

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Above this, memory is not held for the next batch.
const heldBytesMax = 8 << 20

// What a batch can have in its arena: places are of 32 bits, and the entries follow.
const arenaBytesMax = notThere / 2

var slots = [...]int{atKey, atBefore, atAfter, atSource, atHeaders, atTopic}

type rejected struct {
	index uint32
	why   Rejection
}

// Output is the records that go on, and those that are rejected. Each record can go on once, in the order in which it came.
//
// What is kept stays where it stands in the incoming buffer: what is written is counted from the end of it, and both are put
// together at the end.
type Output struct {
	batch   *Batch
	entries []byte
	parts   []byte
	// How much of parts belongs to records that go on.
	sealed int
	// How many records go on, and which can be the next.
	count, next int
	changed     bool
	rejected    []rejected
	// What is put together; held for the next batch.
	buffer []byte
	// The record that is being written, and its number; and the row of it that is being written.
	writing writing
	serial  uint32
	writer  RowWriter
}

type writing struct {
	record Record
	known  *known
	images bool
	after  bool
	// Fields of the row after the change that get another value.
	changes []change
}

type change struct {
	index int
	value Value
}

func (o *Output) begin(batch *Batch) {
	o.batch = batch
	o.entries, o.parts, o.rejected = o.entries[:0], o.parts[:0], o.rejected[:0]
	o.sealed, o.count, o.next, o.changed = 0, 0, 0, false
	o.serial++
}

// Lets go of what is not worth to be held for the next batch.
func (o *Output) end() {
	if cap(o.parts) > heldBytesMax {
		o.parts = nil
	}
	if cap(o.entries) > heldBytesMax {
		o.entries = nil
	}
	if cap(o.buffer) > heldBytesMax {
		o.buffer = nil
	}
	clear(o.rejected)
	o.batch, o.writing = nil, writing{changes: o.writing.changes[:0]}
	o.serial++
}

// Copies a record's entry to where the next one goes.
func (o *Output) copyEntry(record Record) {
	if o.batch == nil || record.batch != o.batch {
		panic("a record of another batch")
	}
	o.entries = append(o.entries[:o.count*entryBytes], record.entry...)
	// What was written of one that was not finished is forgotten.
	o.parts = o.parts[:o.sealed]
	o.serial++
}

// The entry that was copied goes on.
func (o *Output) push(record Record) {
	if int(record.index) < o.next {
		panic("a record goes on once, and in the order in which it came")
	}
	o.next = int(record.index) + 1
	o.count++
}

// Keep lets the record go on as it is.
func (o *Output) Keep(record Record) {
	o.copyEntry(record)
	o.push(record)
}

// Reject sends the record, as it came, to the dead-letter topic.
func (o *Output) Reject(record Record, why Rejection) {
	if o.batch == nil || record.batch != o.batch {
		panic("a record of another batch")
	}
	o.rejected = append(o.rejected, rejected{record.index, why})
}

// Define gives a number for a schema to write records of, which stands for it as long as the instance lives; the same schema
// gets the same number. It fails with [ErrSchema].
func (o *Output) Define(schema *Schema) (uint32, error) {
	if number, defined := o.batch.schemas.source.define(schema); defined {
		return number, nil
	}
	return 0, ErrSchema
}

// Rewrite lets the record go on, but for what is written of it.
func (o *Output) Rewrite(record Record) Rewrite {
	return o.write(record, record.known, true)
}

// RewriteAs lets the record go on under another schema: its images are those that are written, its key and source block stay.
func (o *Output) RewriteAs(record Record, number uint32) Rewrite {
	known := o.batch.schemas.get(number)
	if known == nil {
		panic(fmt.Sprintf("nobody knows the schema %d", number))
	}
	rewrite := o.write(record, known, false)
	entry := rewrite.entry()
	binary.LittleEndian.PutUint32(entry, number)
	noSlot(entry[atBefore:])
	noSlot(entry[atAfter:])
	return rewrite
}

func (o *Output) write(record Record, known *known, images bool) Rewrite {
	o.copyEntry(record)
	o.writing = writing{record: record, known: known, images: images, changes: o.writing.changes[:0]}
	rewrite := Rewrite{o, o.serial}
	// Positions are the host's business.
	noSlot(rewrite.entry()[atPosition:])
	return rewrite
}

func noSlot(slot []byte) {
	binary.LittleEndian.PutUint32(slot, notThere)
	binary.LittleEndian.PutUint32(slot[4:], 0)
}

// Rewrite is a record on its way out; without [Rewrite.Finish] it does not go on. One at a time: what is written of it is
// forgotten when another is begun or kept. Each method but the last returns the rewrite.
type Rewrite struct {
	out    *Output
	serial uint32
}

// The record that is being written.
func (r Rewrite) state() *writing {
	if r.out == nil || r.serial != r.out.serial {
		panic("one record is written at a time")
	}
	return &r.out.writing
}

func (r Rewrite) entry() []byte {
	r.state()
	return r.out.entries[r.out.count*entryBytes:][:entryBytes]
}

// Puts into a slot what was written from there on.
func (r Rewrite) slot(at, start int) Rewrite {
	entry, length := r.entry(), len(r.out.parts)-start
	if r.out.batch.base+len(r.out.parts) > arenaBytesMax {
		panic("a batch is larger than a batch may be")
	}
	binary.LittleEndian.PutUint32(entry[at:], uint32(r.out.batch.base+start))
	binary.LittleEndian.PutUint32(entry[at+4:], uint32(length))
	return r
}

func (r Rewrite) row(at int, shape *shape, write func(*RowWriter)) Rewrite {
	writer := r.beginRow(shape)
	write(writer)
	return r.endRow(at, writer)
}

func (r Rewrite) beginRow(shape *shape) *RowWriter {
	r.state()
	if shape == nil {
		panic("the schema has no such row")
	}
	writer := &r.out.writer
	if writer.shape != nil && writer.rewrite == r {
		panic("one row is written at a time")
	}
	*writer = RowWriter{r, shape, len(r.out.parts), 0}
	r.out.parts = append(r.out.parts, make([]byte, len(shape.fields)*4)...)
	return writer
}

func (r Rewrite) endRow(at int, writer *RowWriter) Rewrite {
	r.state()
	for writer.next < len(writer.shape.fields) {
		writer.seal(stateAbsent)
	}
	writer.shape = nil
	return r.slot(at, writer.start)
}

// Key writes the key's row anew.
func (r Rewrite) Key(write func(row *RowWriter)) Rewrite {
	return r.row(atKey, r.state().known.key, write)
}

// Before writes the row before the change anew.
func (r Rewrite) Before(write func(row *RowWriter)) Rewrite {
	return r.row(atBefore, r.state().known.value, write)
}

// After writes the row after the change anew.
func (r Rewrite) After(write func(row *RowWriter)) Rewrite {
	state := r.state()
	if len(state.changes) > 0 {
		panic("a row is written whole, or single fields of it are set")
	}
	state.after = true
	return r.row(atAfter, state.known.value, write)
}

// Set gives a field of the row after the change another value; those that are not set stay.
func (r Rewrite) Set(name string, value Value) Rewrite {
	index, found := r.state().known.value.index[name]
	if !found {
		panic(fmt.Sprintf("the record has no field `%s`", name))
	}
	return r.SetAt(index, value)
}

// SetAt is like [Rewrite.Set], for a field by its index.
func (r Rewrite) SetAt(index int, value Value) Rewrite {
	state := r.state()
	shape := state.known.value
	switch {
	case index < 0 || index >= len(shape.fields):
		panic(fmt.Sprintf("the record has no field %d", index))
	case !state.images || !state.record.After().Exists():
		panic("the record has no row to change")
	case state.after:
		panic("a row is written whole, or single fields of it are set")
	}
	shape.fits(index, value)
	state.changes = append(state.changes, change{index, value})
	return r
}

// Op says what became of the row.
func (r Rewrite) Op(op Op) Rewrite {
	r.entry()[atOp] = byte(op)
	return r
}

// Flat says whether formats write the row alone.
func (r Rewrite) Flat(flat bool) Rewrite {
	r.entry()[atFlat] = byte(BoolValue(flat).bits)
	return r
}

// TimestampMs sets the time, in milliseconds since 1970 UTC.
func (r Rewrite) TimestampMs(timestamp int64) Rewrite {
	binary.LittleEndian.PutUint64(r.entry()[atTimestamp:], uint64(timestamp))
	return r
}

// Partition chooses the partition.
func (r Rewrite) Partition(partition int32) Rewrite {
	binary.LittleEndian.PutUint32(r.entry()[atPartition:], uint32(partition))
	return r
}

// Topic chooses the topic.
func (r Rewrite) Topic(topic string) Rewrite {
	r.state()
	start := len(r.out.parts)
	r.out.parts = append(r.out.parts, topic...)
	return r.slot(atTopic, start)
}

// Headers replaces all headers.
func (r Rewrite) Headers(headers ...Header) Rewrite {
	r.state()
	parts := r.out.parts
	start := len(parts)
	for _, header := range headers {
		parts = binary.LittleEndian.AppendUint32(parts, uint32(len(header.Name)))
		parts = append(parts, header.Name...)
		if header.Value == nil {
			parts = binary.LittleEndian.AppendUint32(parts, notThere)
			continue
		}
		parts = binary.LittleEndian.AppendUint32(parts, uint32(len(header.Value)))
		parts = append(parts, header.Value...)
	}
	r.out.parts = parts
	return r.slot(atHeaders, start)
}

// Finish lets the record go on; what has not been written stays.
func (r Rewrite) Finish() {
	state := r.state()
	if len(state.changes) > 0 {
		writer := r.beginRow(state.known.value)
		writer.changed(state.record.After(), state.changes)
		r.endRow(atAfter, writer)
	}
	r.out.push(state.record)
	r.out.sealed, r.out.changed = len(r.out.parts), true
	// Nothing more can be written of it.
	r.out.serial++
}

// RowWriter writes the values of a row, in the order of its fields. Fields that are not written are absent.
type RowWriter struct {
	rewrite Rewrite
	shape   *shape
	// Where the row begins, and which field is the next.
	start, next int
}

// Panics where a value cannot be that of a field.
func (s *shape) fits(index int, value Value) {
	field, kind := &s.fields[index], s.kinds[index]
	if value.kind <= KindNull {
		return
	}
	if value.kind != kind {
		panic(fmt.Sprintf("`%s` takes no %v, but %v", field.Name, value.kind, kind))
	}
	number := int64(value.bits)
	if kind == KindInt && (field.Type == TypeInt16 && int64(int16(number)) != number ||
		field.Type == TypeInt32 && int64(int32(number)) != number) {
		panic(fmt.Sprintf("%d does not fit `%s`", number, field.Name))
	}
}

// The index of the next field.
func (w *RowWriter) field() int {
	w.rewrite.state()
	if w.shape == nil {
		panic("the row was written")
	}
	if w.next >= len(w.shape.fields) {
		panic(fmt.Sprintf("the row has %d fields and no more", len(w.shape.fields)))
	}
	return w.next
}

// Ends a field.
func (w *RowWriter) seal(state uint32) {
	parts := w.rewrite.out.parts
	end := len(parts) - w.start - len(w.shape.fields)*4
	if end > endMask {
		panic("a row is larger than a row may be")
	}
	binary.LittleEndian.PutUint32(parts[w.start+w.next*4:], state<<stateShift|uint32(end))
	w.next++
}

// Value writes the next value, which must be of the field's type.
func (w *RowWriter) Value(value Value) {
	w.shape.fits(w.field(), value)
	parts, state := w.rewrite.out.parts, uint32(0)
	switch value.kind {
	case KindAbsent:
		state = stateAbsent
	case KindNull:
		state = stateNull
	case KindBool:
		parts = append(parts, byte(value.bits))
	case KindInt, KindFloat64:
		parts = binary.LittleEndian.AppendUint64(parts, value.bits)
	case KindFloat32:
		parts = binary.LittleEndian.AppendUint32(parts, uint32(value.bits))
	default:
		parts = append(parts, value.text...)
	}
	w.rewrite.out.parts = parts
	w.seal(state)
}

// Absent writes a value that the source did not tell.
func (w *RowWriter) Absent() { w.Value(Value{}) }

// Null writes the database's NULL.
func (w *RowWriter) Null() { w.Value(NullValue()) }

// Bool writes a boolean.
func (w *RowWriter) Bool(value bool) { w.Value(BoolValue(value)) }

// Int writes a whole number.
func (w *RowWriter) Int(value int64) { w.Value(IntValue(value)) }

// Float32 writes a number of single precision.
func (w *RowWriter) Float32(value float32) { w.Value(Float32Value(value)) }

// Float64 writes a number of double precision.
func (w *RowWriter) Float64(value float64) { w.Value(Float64Value(value)) }

// Bytes writes bytes.
func (w *RowWriter) Bytes(value []byte) { w.Value(BytesValue(value)) }

// Text writes a text.
func (w *RowWriter) Text(value string) { w.Value(TextValue(value)) }

// AppendText writes a text without making it first: what write appends to the buffer that it is given, which it returns.
func (w *RowWriter) AppendText(write func(to []byte) []byte) {
	w.shape.fits(w.field(), Value{kind: KindText})
	length := len(w.rewrite.out.parts)
	parts := write(w.rewrite.out.parts)
	w.rewrite.state()
	if len(parts) < length {
		panic("what was written before is gone")
	}
	w.rewrite.out.parts = parts
	w.seal(0)
}

// Copy writes a field of another row as it stands there.
func (w *RowWriter) Copy(row Row, index int) {
	field := w.field()
	if index < 0 || index >= row.Len() {
		w.Absent()
		return
	}
	state, data := row.raw(index)
	if state == 0 && (w.shape != row.shape || field != index) {
		if w.shape.fields[field].Type != row.shape.fields[index].Type || w.shape.kinds[field] == KindInt {
			// Another type may be narrower.
			w.Value(row.At(index))
			return
		}
		w.shape.fits(field, Value{kind: row.shape.kinds[index]})
	}
	w.rewrite.out.parts = append(w.rewrite.out.parts, data...)
	w.seal(state)
}

// CopyAll writes all fields of another row as they stand there.
func (w *RowWriter) CopyAll(row Row) {
	for index := range row.Len() {
		w.Copy(row, index)
	}
}

// A row with other values in some of its fields; of several for one, the last counts.
func (w *RowWriter) changed(row Row, changes []change) {
	for index := range row.Len() {
		at := len(changes) - 1
		for at >= 0 && changes[at].index != index {
			at--
		}
		if at >= 0 {
			w.Value(changes[at].value)
		} else {
			w.Copy(row, index)
		}
	}
}

// The buffer of what goes on. It may be that which came in.
func (o *Output) finish() []byte {
	batch := o.batch
	o.entries, o.parts = o.entries[:o.count*entryBytes], o.parts[:o.sealed]
	if !o.changed && o.count == batch.count {
		return batch.data
	}
	// Where little is kept, it is not worth to send all of what came in.
	kept := o.keptBytes()
	if kept >= (batch.base-headBytes)/2 {
		kept = batch.base - headBytes
		o.room(kept)
		o.buffer = append(o.buffer, batch.data[headBytes:batch.base]...)
	} else {
		o.room(kept)
		o.gather(headBytes + kept)
	}
	o.buffer = append(append(o.buffer, o.parts...), o.entries...)
	return o.buffer
}

// Begins the buffer, with so much in it besides what was written.
func (o *Output) room(kept int) {
	base := headBytes + kept + len(o.parts)
	if whole := base + len(o.entries); cap(o.buffer) < whole {
		o.buffer = make([]byte, 0, whole+whole/4)
	}
	o.buffer = append(o.buffer[:0], magic...)
	o.buffer = binary.LittleEndian.AppendUint32(o.buffer, uint32(o.count))
	o.buffer = binary.LittleEndian.AppendUint32(o.buffer, uint32(base))
	o.buffer = binary.LittleEndian.AppendUint32(o.buffer, 0)
}

// What is kept of the incoming arena, in bytes.
func (o *Output) keptBytes() int {
	kept := uint64(0)
	for at := 0; at < len(o.entries); at += entryBytes {
		for _, slot := range slots {
			start := uint64(binary.LittleEndian.Uint32(o.entries[at+slot:]))
			length := uint64(binary.LittleEndian.Uint32(o.entries[at+slot+4:]))
			if start < uint64(o.batch.base) {
				if start < headBytes || start+length > uint64(o.batch.base) {
					panic("a slot is outside of the arena")
				}
				kept += length
			}
		}
	}
	return int(min(kept, math.MaxInt32))
}

// Copies what is kept of the incoming arena; what was written will begin at end.
func (o *Output) gather(end int) {
	for at := 0; at < len(o.entries); at += entryBytes {
		entry := o.entries[at:][:entryBytes]
		noSlot(entry[atPosition:])
		for _, slot := range slots {
			start := int(binary.LittleEndian.Uint32(entry[slot:]))
			length := int(binary.LittleEndian.Uint32(entry[slot+4:]))
			switch {
			case start == notThere:
			case start < o.batch.base:
				binary.LittleEndian.PutUint32(entry[slot:], uint32(len(o.buffer)))
				o.buffer = append(o.buffer, o.batch.data[start:start+length]...)
			default:
				binary.LittleEndian.PutUint32(entry[slot:], uint32(start-o.batch.base+end))
			}
		}
	}
}
