package towpath

import "errors"

// Type is what a value is when it is no array.
type Type uint8

const (
	TypeBoolean Type = iota
	TypeInt16
	TypeInt32
	TypeInt64
	TypeFloat32
	TypeFloat64
	TypeDecimal
	TypeText
	TypeBytes
	TypeDate
	TypeTime
	TypeTimeTZ
	TypeTimestamp
	TypeTimestampTZ
	TypeInterval
	TypeUUID
	TypeJSON
)

// ColumnID is what a column is known by, whatever it is called.
type ColumnID struct {
	Table  uint64
	Column uint32
}

// Field is one field of a row.
type Field struct {
	Name string
	Type Type
	// Dimensions is 0 for the type itself; else it is an array of so many dimensions, which is carried as JSON text.
	Dimensions uint8
	Nullable   bool
	// SourceType is the type as the source's system writes it, with the dialect in front, or empty.
	SourceType string
	// RenamedFrom is the name before it was renamed, or empty.
	RenamedFrom string
	// Initial is what rows have in it that were there before the column was added, or nil.
	Initial *string
	// ID is nil where the column has none.
	ID *ColumnID
}

// Kind is what the field's values are, where they are there.
func (f *Field) Kind() Kind {
	if f.Dimensions > 0 {
		return KindText
	}
	switch f.Type {
	case TypeBoolean:
		return KindBool
	case TypeInt16, TypeInt32, TypeInt64:
		return KindInt
	case TypeFloat32:
		return KindFloat32
	case TypeFloat64:
		return KindFloat64
	case TypeBytes:
		return KindBytes
	default:
		return KindText
	}
}

// Pair is a name and a value.
type Pair struct {
	Name, Value string
}

// Computed is a column that its database computes: records do not carry it.
type Computed struct {
	Name, SourceType, Expression string
}

// SourceBlock is Debezium's `source` block: constant entries, and fields of each record.
type SourceBlock struct {
	Constants []Pair
	Fields    []Field
}

// Schema is the schema of the records of one table, file or stream.
type Schema struct {
	// Name is `public.orders`.
	Name string
	// Variables are what `{…}` stands for in templates.
	Variables []Pair
	// Key is nil where there is none.
	Key []Field
	// Value is the fields of a row.
	Value    []Field
	Computed []Computed
	// Source is nil where there is none.
	Source *SourceBlock
}

// ErrSchema is returned by [Output.Define] where there are too many schemas, or one is too large.
var ErrSchema = errors.New("there are too many schemas, or one is too large")

// Fields, and what is looked up of them for every record.
type shape struct {
	fields []Field
	kinds  []Kind
	index  map[string]int
}

func shapeOf(fields []Field) *shape {
	made := &shape{fields, make([]Kind, len(fields)), make(map[string]int, len(fields))}
	for at := len(fields) - 1; at >= 0; at-- {
		made.kinds[at] = fields[at].Kind()
		made.index[fields[at].Name] = at
	}
	return made
}

// A schema that has a number. Key and source are nil where it has none.
type known struct {
	number             uint32
	schema             *Schema
	key, value, source *shape
}

func knownOf(number uint32, schema *Schema) *known {
	made := &known{number: number, schema: schema, value: shapeOf(schema.Value)}
	if schema.Key != nil {
		made.key = shapeOf(schema.Key)
	}
	if schema.Source != nil {
		made.source = shapeOf(schema.Source.Fields)
	}
	return made
}

// Where schemas come from.
type schemaSource interface {
	get(number uint32) *Schema
	define(schema *Schema) (uint32, bool)
}

// The schemas that an instance knows by number: each is asked for once.
type schemas struct {
	source schemaSource
	known  map[uint32]*known
	last   *known
}

func schemasOf(source schemaSource) *schemas {
	return &schemas{source: source, known: make(map[uint32]*known)}
}

// The schema of a number; nil where nobody knows it.
func (s *schemas) get(number uint32) *known {
	if s.last != nil && s.last.number == number {
		return s.last
	}
	found := s.known[number]
	if found == nil {
		schema := s.source.get(number)
		if schema == nil {
			return nil
		}
		found = knownOf(number, schema)
		s.known[number] = found
	}
	s.last = found
	return found
}
