package towpath

import (
	"fmt"
	"time"
)

type level uint8

const (
	levelDebug level = iota
	levelInfo
	levelWarn
	levelError
)

// Debugf writes a line into Towpath's log.
func Debugf(format string, arguments ...any) { hostLog(levelDebug, fmt.Sprintf(format, arguments...)) }

// Infof writes a line into Towpath's log.
func Infof(format string, arguments ...any) { hostLog(levelInfo, fmt.Sprintf(format, arguments...)) }

// Warnf writes a line into Towpath's log.
func Warnf(format string, arguments ...any) { hostLog(levelWarn, fmt.Sprintf(format, arguments...)) }

// Errorf writes a line into Towpath's log.
func Errorf(format string, arguments ...any) { hostLog(levelError, fmt.Sprintf(format, arguments...)) }

// Where options come from.
type optionSource interface {
	text(name string) (string, bool)
	integer(name string) (int64, bool)
	flag(name string) (bool, bool)
	texts(name string) []string
	json(name string) (string, bool)
}

// Config is the options of this instance, as they were validated, with defaults filled in. What is not given is false.
type Config struct {
	source optionSource
}

// Text is an option that is a text.
func (c Config) Text(name string) (string, bool) { return c.source.text(name) }

// Int is a number, a duration in milliseconds, or a size in bytes.
func (c Config) Int(name string) (int64, bool) { return c.source.integer(name) }

// Duration is an option that is a duration.
func (c Config) Duration(name string) (time.Duration, bool) {
	milliseconds, given := c.source.integer(name)
	return time.Duration(milliseconds) * time.Millisecond, given
}

// Bool is an option that is a boolean.
func (c Config) Bool(name string) (value, given bool) { return c.source.flag(name) }

// Texts is the texts of a list.
func (c Config) Texts(name string) []string { return c.source.texts(name) }

// JSON is any option, for [encoding/json].
func (c Config) JSON(name string) ([]byte, bool) {
	text, given := c.source.json(name)
	return []byte(text), given
}
