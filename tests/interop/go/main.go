// The suite with two Go clients, franz-go (kgo, kadm) and sarama: suite HOST:PORT. SUITE_CASES names a file with the
// cases to run, one a line.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"
)

const deadline = 60 * time.Second

var server string

type testCase struct {
	name string
	run  func(t *T)
}

// T is one running case: its context ends with its time.
type T struct {
	context.Context
	closers []func()
}

type failure struct{ text string }

func (t *T) fail(format string, arguments ...any) {
	panic(failure{fmt.Sprintf(format, arguments...)})
}

func (t *T) must(err error) {
	if err != nil {
		t.fail("%v\n%s", err, debug.Stack())
	}
}

func (t *T) equal(expected, seen any) {
	if !reflect.DeepEqual(expected, seen) {
		t.fail("%s instead of %s\n%s", clip(seen), clip(expected), debug.Stack())
	}
}

func (t *T) later(f func()) { t.closers = append(t.closers, f) }

// eventually asks until the answer is the expected one: metadata travels to the broker that answers.
func (t *T) eventually(expected any, ask func() any) {
	end := time.Now().Add(deadline)
	for {
		seen := ask()
		if reflect.DeepEqual(expected, seen) {
			return
		}
		if time.Now().After(end) {
			t.fail("not within %v: %s instead of %s\n%s", deadline, clip(seen), clip(expected), debug.Stack())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func value[V any](t *T) func(V, error) V {
	return func(v V, err error) V {
		t.must(err)
		return v
	}
}

func clip(v any) string {
	text := fmt.Sprintf("%v", v)
	if len(text) > 600 {
		text = text[:600] + "…"
	}
	return text
}

func name(what string) string {
	var id [6]byte
	_, _ = rand.Read(id[:])
	return what + "-" + hex.EncodeToString(id[:])
}

func numbers(from, until int) []string {
	made := []string{}
	for i := from; i < until; i++ {
		made = append(made, fmt.Sprint(i))
	}
	return made
}

func wanted() map[string]bool {
	path, there := os.LookupEnv("SUITE_CASES")
	if !there {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	found := map[string]bool{}
	for _, line := range bytes.Split(text, []byte("\n")) {
		found[string(bytes.TrimSpace(line))] = true
	}
	return found
}

func one(c testCase) (result error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	defer cancel()
	t := &T{Context: ctx}
	done := make(chan error, 1)
	go func() {
		defer func() {
			for _, closer := range t.closers {
				closer()
			}
			if told := recover(); told == nil {
				done <- nil
			} else if f, ok := told.(failure); ok {
				done <- fmt.Errorf("%s", f.text)
			} else {
				done <- fmt.Errorf("%v\n%s", told, debug.Stack())
			}
		}()
		c.run(t)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(3*deadline + 10*time.Second):
		return fmt.Errorf("does not end")
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: suite HOST:PORT")
		os.Exit(2)
	}
	server = os.Args[1]
	log.SetOutput(io.Discard)
	only := wanted()
	passed, failed := 0, 0
	for _, c := range append(franzCases(), saramaCases()...) {
		if only != nil && !only[c.name] {
			continue
		}
		begin := time.Now()
		err := one(c)
		seconds := time.Since(begin).Seconds()
		if err == nil {
			passed++
			fmt.Printf("ok %s (%.2f s)\n", c.name, seconds)
			continue
		}
		failed++
		fmt.Fprintln(os.Stderr, err)
		text, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Printf("FAILED %s (%.2f s): %s\n", c.name, seconds, clip(text))
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
