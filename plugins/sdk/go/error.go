package towpath

import (
	"errors"
	"fmt"
	"time"
)

// ErrorKind is what kind of failure it is. Only Towpath decides when to try again.
type ErrorKind uint8

const (
	// KindRetry means that the world may heal by itself.
	KindRetry ErrorKind = iota
	// KindNeedsOperator means that somebody has to change something outside.
	KindNeedsOperator
	// KindTerminal means that going on would lose or falsify data, or can never work.
	KindTerminal
)

// Error is why a call failed. Any other error is taken for one of [KindRetry], with the code PLUGIN_ERROR.
type Error struct {
	Kind ErrorKind
	// Delay is how long to wait at the least, where it may be tried again.
	Delay time.Duration
	// Code is a stable word in upper snake case, which users look up and alert on.
	Code string
	// Message is one sentence, without secrets.
	Message string
	// Hint is what the user can do, or empty.
	Hint string
	// Path is the option at fault, as a path below the connector (`fields[1]`), or empty.
	Path string
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Retry is an error for what may heal by itself, to be tried again after delay at the earliest.
func Retry(delay time.Duration, code, format string, arguments ...any) *Error {
	return &Error{Kind: KindRetry, Delay: delay, Code: code, Message: fmt.Sprintf(format, arguments...)}
}

// NeedsOperator is an error for what somebody has to change outside.
func NeedsOperator(code, format string, arguments ...any) *Error {
	return &Error{Kind: KindNeedsOperator, Code: code, Message: fmt.Sprintf(format, arguments...)}
}

// Terminal is an error for what can never work.
func Terminal(code, format string, arguments ...any) *Error {
	return &Error{Kind: KindTerminal, Code: code, Message: fmt.Sprintf(format, arguments...)}
}

// The error as the contract has it, with the message that is told of whatever is around it.
func errorOf(err error) Error {
	var found *Error
	if !errors.As(err, &found) {
		return Error{Kind: KindRetry, Delay: time.Second, Code: "PLUGIN_ERROR", Message: err.Error()}
	}
	told := *found
	told.Message = err.Error()
	return told
}

// Rejection is why a record cannot be handled, now or ever.
type Rejection struct {
	// Code is a stable word in upper snake case.
	Code string
	// Message is one sentence, without secrets.
	Message string
	// Hint is what the user can do, or empty.
	Hint string
	// Path is the option at fault, or empty.
	Path string
}

// Problem is something wrong with the options that their types do not show.
type Problem struct {
	// Path is the option, as a path below the connector (`fields[1]`); empty for the connector itself.
	Path    string
	Message string
	// Hint is what the user can do, or empty.
	Hint string
}
