package towpath

type elementKind uint8

const (
	elementBoolean elementKind = iota
	elementInteger
	elementText
	elementNonEmptyText
	elementURL
	elementPath
	elementDuration
	elementByteSize
	elementOneOf
	elementScalar
	elementAny
)

// Element is what a single value of an option is.
type Element struct {
	kind     elementKind
	min, max int64
	schemes  []string
	choices  []Choice
}

// Choice is one word of a choice, and what it means.
type Choice struct {
	Name, Doc string
}

// Boolean is true or false.
func Boolean() Element { return Element{kind: elementBoolean} }

// Integer is a whole number from min to max, both included.
func Integer(min, max int64) Element { return Element{kind: elementInteger, min: min, max: max} }

// Text is any text.
func Text() Element { return Element{kind: elementText} }

// NonEmptyText is a text with something in it.
func NonEmptyText() Element { return Element{kind: elementNonEmptyText} }

// URL is a URL with one of these schemes, each without `://`.
func URL(schemes ...string) Element { return Element{kind: elementURL, schemes: schemes} }

// Path is the path of a file.
func Path() Element { return Element{kind: elementPath} }

// Duration is `10s`; read as milliseconds, or by [Config.Duration].
func Duration() Element { return Element{kind: elementDuration} }

// ByteSize is `64KiB`; read as bytes.
func ByteSize() Element { return Element{kind: elementByteSize} }

// OneOf is one of these words.
func OneOf(choices ...Choice) Element { return Element{kind: elementOneOf, choices: choices} }

// AnyScalar is a text, a number, a boolean or null.
func AnyScalar() Element { return Element{kind: elementScalar} }

// Anything is any YAML.
func Anything() Element { return Element{kind: elementAny} }

// Shape is whether an option takes one value, several, or several by name.
type Shape uint8

const (
	// One value.
	One Shape = iota
	// Many values: a list.
	Many
	// ByKey is a map.
	ByKey
)

// Option is one option in the YAML. Towpath validates it, with line and column, before the plugin sees it.
type Option struct {
	Name string
	// Doc is what it does, in a sentence or two.
	Doc      string
	Element  Element
	Shape    Shape
	Required bool
	// Secret says that its value must never be shown.
	Secret bool
	// DefaultJSON is what counts when it is not given: JSON in normal form (`4`, `"hash"`). Empty for none.
	DefaultJSON string
}
