package towpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// The form of the buffer in which records cross; the contract's README describes it.
const (
	magic      = "TPB1"
	headBytes  = 16
	entryBytes = 96
	notThere   = 1<<32 - 1

	atPartition = 4
	atOp        = 8
	atFlat      = 9
	atOrigin    = 12
	atTimestamp = 16
	atOffset    = 24
	atKey       = 40
	atBefore    = 48
	atAfter     = 56
	atSource    = 64
	atHeaders   = 72
	atPosition  = 80
	atTopic     = 88
)

// Op is what became of a row.
type Op uint8

const (
	// OpNone is a plain record.
	OpNone Op = iota
	OpCreate
	// OpRead is a row read by a snapshot.
	OpRead
	OpUpdate
	OpDelete
	// OpTruncate means that the whole table was truncated.
	OpTruncate
	// OpTombstone is a null value that lets compaction forget the key.
	OpTombstone
)

// Batch is records as they came.
type Batch struct {
	data []byte
	// Where the entries begin; what is before them is the arena.
	base, count int
	schemas     *schemas
}

func batchOf(data []byte, schemas *schemas) (*Batch, error) {
	if len(data) < headBytes {
		return nil, errors.New("it is shorter than its head")
	}
	if string(data[:4]) != magic {
		return nil, errors.New("it does not begin with " + magic)
	}
	count, base := binary.LittleEndian.Uint32(data[4:]), binary.LittleEndian.Uint32(data[8:])
	if base < headBytes || uint64(base)+uint64(count)*entryBytes != uint64(len(data)) {
		return nil, errors.New("its entries are at a wrong place")
	}
	return &Batch{data, int(base), int(count), schemas}, nil
}

// Len is how many records there are.
func (b *Batch) Len() int { return b.count }

// Record is a record by its index, which must be below the length.
func (b *Batch) Record(index int) Record {
	if index < 0 || index >= b.count {
		panic(fmt.Sprintf("the batch has no record %d", index))
	}
	entry := b.data[b.base+index*entryBytes:][:entryBytes:entryBytes]
	number := binary.LittleEndian.Uint32(entry)
	known := b.schemas.get(number)
	if known == nil {
		panic(fmt.Sprintf("nobody knows the schema %d", number))
	}
	return Record{b, known, entry, uint32(index)}
}

// Records is the records, in their order.
func (b *Batch) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for index := range b.count {
			if !yield(b.Record(index)) {
				return
			}
		}
	}
}

// Record is one record of a batch; it lasts as long as the batch.
type Record struct {
	batch *Batch
	known *known
	entry []byte
	index uint32
}

// Index is its place in the batch.
func (r Record) Index() int { return int(r.index) }

// Schema is what it came with; it must not be changed.
func (r Record) Schema() *Schema { return r.known.schema }

// SchemaNumber stands for its schema as long as the instance lives.
func (r Record) SchemaNumber() uint32 { return r.known.number }

// Op is what became of the row.
func (r Record) Op() Op {
	if op := Op(r.entry[atOp]); op <= OpTombstone {
		return op
	}
	return OpNone
}

// IsFlat says whether formats write the row alone instead of the envelope.
func (r Record) IsFlat() bool { return r.entry[atFlat] == 1 }

// TimestampMs is milliseconds since 1970 UTC.
func (r Record) TimestampMs() int64 { return int64(binary.LittleEndian.Uint64(r.entry[atTimestamp:])) }

// Offset is the offset in the partition it was read from; -1 on the way into a topic.
func (r Record) Offset() int64 { return int64(binary.LittleEndian.Uint64(r.entry[atOffset:])) }

// Partition is the partition chosen for it.
func (r Record) Partition() (int32, bool) {
	partition := int32(binary.LittleEndian.Uint32(r.entry[atPartition:]))
	return partition, partition >= 0
}

// A part of it.
func (r Record) slot(at int) ([]byte, bool) {
	start, length := binary.LittleEndian.Uint32(r.entry[at:]), binary.LittleEndian.Uint32(r.entry[at+4:])
	if start == notThere {
		return nil, false
	}
	end := uint64(start) + uint64(length)
	if start < headBytes || end > uint64(r.batch.base) {
		panic("a slot is outside of the arena")
	}
	return r.batch.data[start:end:end], true
}

func (r Record) row(at int, shape *shape) Row {
	if shape != nil {
		if data, there := r.slot(at); there {
			return rowOf(shape, data)
		}
	}
	return Row{}
}

// Key is the row of its key.
func (r Record) Key() Row { return r.row(atKey, r.known.key) }

// Before is the row before the change.
func (r Record) Before() Row { return r.row(atBefore, r.known.value) }

// After is the row after the change, or a plain record's row.
func (r Record) After() Row { return r.row(atAfter, r.known.value) }

// Source is the row of the source block.
func (r Record) Source() Row { return r.row(atSource, r.known.source) }

// Topic is the topic chosen for it.
func (r Record) Topic() (string, bool) {
	data, there := r.slot(atTopic)
	return textOf(data), there
}

// Header is one header; its value may be nil, which is null.
type Header struct {
	Name  string
	Value []byte
}

// Headers are its headers. Their values must not be changed.
func (r Record) Headers() []Header {
	data, _ := r.slot(atHeaders)
	var all []Header
	for len(data) > 0 {
		var name, value []byte
		name, data = headerPart(data)
		if name == nil {
			panic("a header has no name")
		}
		value, data = headerPart(data)
		all = append(all, Header{textOf(name), value})
	}
	return all
}

// A part of a header, nil where it is null, and what follows.
func headerPart(data []byte) (part, rest []byte) {
	if len(data) < 4 {
		panic("a header is outside of its record")
	}
	length, data := binary.LittleEndian.Uint32(data), data[4:]
	if length == notThere {
		return nil, data
	}
	if uint64(length) > uint64(len(data)) {
		panic("a header is outside of its record")
	}
	return data[:length:length], data[length:]
}
