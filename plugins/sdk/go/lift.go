//go:build wasip1

package towpath

import (
	"encoding/binary"
	"strings"
	"unsafe"
)

// The canonical ABI by hand: what the host has written is read here, and what it will read is written. Places in memory are 32
// bits for it. What it is to read, and what it has had allocated, is held so that it is not collected in between.

// Memory that the host reads. The addresses of what is in it stand in it, which the collector does not see.
type given struct {
	blocks [][]uint64
	texts  []string
}

// Zeroed memory, and its address.
func (g *given) block(size int) ([]byte, uint32) {
	if size == 0 {
		return nil, 8
	}
	words := make([]uint64, (size+7)/8)
	g.blocks = append(g.blocks, words)
	at := unsafe.Pointer(unsafe.SliceData(words))
	return unsafe.Slice((*byte)(at), size), addressOf(at)
}

func addressOf(at unsafe.Pointer) uint32 { return uint32(uintptr(at)) }

// What was allocated is held until it is taken.
func pointerTo(at uint32) unsafe.Pointer { return unsafe.Add(nil, at) }

func put32(to []byte, value uint32) { binary.LittleEndian.PutUint32(to, value) }

func put64(to []byte, value uint64) { binary.LittleEndian.PutUint64(to, value) }

// The place and the length of bytes.
func putBytes(to []byte, bytes []byte) {
	put32(to, addressOf(unsafe.Pointer(unsafe.SliceData(bytes))))
	put32(to[4:], uint32(len(bytes)))
}

// A text: what is no UTF-8 in it becomes `?`.
func (g *given) text(to []byte, text string) {
	text = strings.ToValidUTF8(text, "?")
	g.texts = append(g.texts, text)
	putBytes(to, bytesOf(text))
}

// A text that may be missing.
func (g *given) option(to []byte, text string, there bool) {
	if there {
		to[0] = 1
		g.text(to[4:], text)
	}
}

// A list, each of whose elements is so large.
func list[T any](g *given, to []byte, elements []T, size int, write func(to []byte, element *T)) {
	block, at := g.block(len(elements) * size)
	for index := range elements {
		write(block[index*size:][:size], &elements[index])
	}
	put32(to, at)
	put32(to[4:], uint32(len(elements)))
}

func (g *given) pairs(to []byte, pairs []Pair) {
	list(g, to, pairs, 16, func(to []byte, pair *Pair) {
		g.text(to, pair.Name)
		g.text(to[8:], pair.Value)
	})
}

func (g *given) fields(to []byte, fields []Field) {
	list(g, to, fields, 72, func(to []byte, field *Field) {
		g.text(to, field.Name)
		to[8], to[9], to[10] = byte(field.Type), field.Dimensions, byte(BoolValue(field.Nullable).bits)
		g.option(to[12:], field.SourceType, field.SourceType != "")
		g.option(to[24:], field.RenamedFrom, field.RenamedFrom != "")
		if field.Initial != nil {
			g.option(to[36:], *field.Initial, true)
		}
		if field.ID != nil {
			to[48] = 1
			put64(to[56:], field.ID.Table)
			put32(to[64:], field.ID.Column)
		}
	})
}

// What the host has written.
type taken struct {
	at unsafe.Pointer
}

func (t taken) behind(offset int) taken { return taken{unsafe.Add(t.at, offset)} }

func (t taken) byte(offset int) byte { return *(*byte)(unsafe.Add(t.at, offset)) }

func (t taken) uint32(offset int) uint32 { return *(*uint32)(unsafe.Add(t.at, offset)) }

func (t taken) uint64(offset int) uint64 { return *(*uint64)(unsafe.Add(t.at, offset)) }

// Bytes whose place and length stand there, as they stand.
func bytesAt(at, length uint32) []byte {
	if length == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(pointerTo(at)), length)
}

// A copy of a text.
func (t taken) text(offset int) string { return string(bytesAt(t.uint32(offset), t.uint32(offset+4))) }

func (t taken) option(offset int) (string, bool) {
	if t.byte(offset) == 0 {
		return "", false
	}
	return t.text(offset + 4), true
}

func elements[T any](t taken, offset, size int, read func(element taken) T) []T {
	at, count := pointerTo(t.uint32(offset)), int(t.uint32(offset+4))
	all := make([]T, count)
	for index := range all {
		all[index] = read(taken{unsafe.Add(at, index*size)})
	}
	return all
}

func (t taken) pairs(offset int) []Pair {
	return elements(t, offset, 16, func(it taken) Pair { return Pair{it.text(0), it.text(8)} })
}

func (t taken) fields(offset int) []Field {
	return elements(t, offset, 72, func(it taken) Field {
		field := Field{Name: it.text(0), Type: Type(it.byte(8)), Dimensions: it.byte(9), Nullable: it.byte(10) != 0}
		field.SourceType, _ = it.option(12)
		field.RenamedFrom, _ = it.option(24)
		if initial, there := it.option(36); there {
			field.Initial = &initial
		}
		if it.byte(48) != 0 {
			field.ID = &ColumnID{it.uint64(56), it.uint32(64)}
		}
		return field
	})
}

func (t taken) schema() *Schema {
	schema := &Schema{Name: t.text(0), Variables: t.pairs(8), Value: t.fields(28)}
	if t.byte(16) != 0 {
		schema.Key = t.fields(20)
	}
	schema.Computed = elements(t, 36, 24, func(it taken) Computed { return Computed{it.text(0), it.text(8), it.text(16)} })
	if t.byte(44) != 0 {
		schema.Source = &SourceBlock{t.pairs(48), t.fields(56)}
	}
	return schema
}
