// Does what each record's text says; a plugin in Go that does everything wrong, and asks for everything that there is.
package main

import (
	"bytes"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"towpath"
)

var plugin = towpath.Plugin{
	Name: "hostile_go", Version: "0.1.0", Summary: "Does everything wrong",
	Options: []towpath.Option{
		{Name: "text", Doc: "T.", Element: towpath.Text(), DefaultJSON: `"x"`},
		{Name: "number", Doc: "N.", Element: towpath.Integer(-5, 5), Required: true},
		{Name: "flag", Doc: "F.", Element: towpath.Boolean()},
		{Name: "list", Doc: "L.", Element: towpath.OneOf(towpath.Choice{Name: "a", Doc: "A."},
			towpath.Choice{Name: "b", Doc: "B."}), Shape: towpath.Many},
		{Name: "map", Doc: "M.", Element: towpath.Anything(), Shape: towpath.ByKey},
		{Name: "url", Doc: "U.", Element: towpath.URL("http", "https")},
		{Name: "wait", Doc: "W.", Element: towpath.Duration()},
		{Name: "size", Doc: "S.", Element: towpath.ByteSize()},
		{Name: "token", Doc: "K.", Element: towpath.Text(), Secret: true},
		{Name: "at_open", Doc: "O.", Element: towpath.Text()},
	},
	Open: open,
}

func init() { towpath.Export(plugin) }

func main() {}

type hostile struct {
	config towpath.Config
	calls  int
	// Makes background goroutines work.
	work chan struct{}
	done int
}

func open(config towpath.Config) (towpath.Transform, error) {
	switch how, _ := config.Text("at_open"); how {
	case "operator":
		return nil, towpath.NeedsOperator("HOSTILE_OPEN", "somebody has to act")
	case "retry":
		return nil, fmt.Errorf("around: %w", towpath.Retry(7*time.Second, "HOSTILE_OPEN", "later"))
	case "plain":
		return nil, errors.New("plain")
	}
	return &hostile{config: config, work: make(chan struct{})}, nil
}

var depth int

func deeper(by int) int {
	var room [1024]byte
	room[by%len(room)] = byte(by)
	depth = by
	return deeper(by+1) + int(room[(by+1)%len(room)])
}

// What is told of the options.
func (it *hostile) options() string {
	text, _ := it.config.Text("text")
	number, _ := it.config.Int("number")
	flag, _ := it.config.Bool("flag")
	list := it.config.Texts("list")
	byKey, _ := it.config.JSON("map")
	url, _ := it.config.Text("url")
	wait, _ := it.config.Duration("wait")
	if _, given := it.config.Int("size"); given {
		panic("there is one option too many")
	}
	return fmt.Sprintf("%s %d %v %v %s %s %v", text, number, flag, list, byKey, url, wait)
}

// Whether the world is as it should be: time, chance, and nothing of a system.
func world() string {
	var one, other [100_000]byte
	crand.Read(one[:])
	crand.Read(other[:])
	begun := time.Now()
	time.Sleep(20 * time.Millisecond)
	fmt.Print("one line in ", "two parts\n")
	fmt.Fprintln(os.Stderr, "no UTF-8: \xff\xed\xa0\x80 \xf0\x9f\x98")
	println("printed", 7)
	towpath.Infof("logged %s", "\xff")
	_, file := os.ReadFile("/etc/passwd")
	_, folder := os.ReadDir("/")
	_, connection := net.Dial("tcp", "127.0.0.1:80")
	switch slept := time.Since(begun); {
	case bytes.Equal(one[:], other[:]) || bytes.Count(one[:], []byte{0}) > 1000:
		return "no chance"
	case time.Now().Unix() < 1_700_000_000 || slept < 20*time.Millisecond || slept > 10*time.Second:
		return "no time"
	case file == nil || folder == nil || connection == nil:
		return "a system"
	case len(os.Args) > 0 || len(os.Environ()) > 0:
		return fmt.Sprint(os.Args, os.Environ())
	}
	return "right"
}

// Goroutines that go on between the calls: they log, print, ask for the time, allocate.
func (it *hostile) background() {
	for range 4 {
		go func() {
			for range it.work {
				for range 100 {
					time.Sleep(time.Microsecond)
					towpath.Debugf("%v", time.Now())
					fmt.Println("from behind", string(bytes.Repeat([]byte("ü"), it.done%7)))
					it.done++
				}
			}
		}()
	}
}

func (it *hostile) one(record towpath.Record, how string, out *towpath.Output) {
	set := func(text string) {
		out.Rewrite(record).SetAt(0, towpath.TextValue(text)).Finish()
	}
	switch how {
	case "panic":
		panic("on purpose")
	case "nil":
		var none map[string]int
		none[how] = 1
	case "index":
		_ = it.config.Texts("list")[it.calls+7]
	case "exit":
		os.Exit(0)
	case "stack":
		depth = deeper(0)
	case "loop":
		for {
			depth++
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "stderr":
		fmt.Fprint(os.Stderr, "panic: 1 \xff 2 ü€𝄞 3 \xed\xa0\x80 4 \xc0\x80 5 \xe2\x82x 6 \xf4\x90\x80\x80 7 \xf0\x9f\x98\n")
		fmt.Fprintln(os.Stderr, "what follows is no error")
		os.Exit(1)
	case "long":
		fmt.Fprintln(os.Stderr, "panic: "+strings.Repeat("€", 5000))
		os.Exit(1)
	case "deadlock":
		select {}
	case "elsewhere":
		go panic("in another goroutine")
		time.Sleep(time.Millisecond)
	case "hog":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
			depth = len(all)
		}
	case "type":
		out.Rewrite(record).SetAt(0, towpath.IntValue(7))
	case "twice":
		out.Keep(record)
		out.Keep(record)
	case "utf-8":
		set("ü"[:1])
	case "cut":
		out.Reject(record, towpath.Rejection{Code: "HOSTILE_RECORD", Message: "a" + "ü"[:1] + "ü", Hint: "h", Path: "text"})
	case "calls":
		it.calls++
		set(fmt.Sprint(it.calls))
	case "options":
		set(it.options())
	case "world":
		set(world())
	case "background":
		it.background()
		set("begun")
	case "work":
		for range 4 {
			it.work <- struct{}{}
		}
		set("given")
	case "done":
		set(fmt.Sprint(it.done))
	default:
		out.Keep(record)
	}
}

func (it *hostile) Process(batch *towpath.Batch, out *towpath.Output) error {
	for record := range batch.Records() {
		how, _ := record.After().At(0).Text()
		if how == "terminal" {
			return towpath.Terminal("HOSTILE_END", "no more of %d", batch.Len())
		}
		it.one(record, how, out)
	}
	return nil
}
