//go:build !wasip1

package towpath

import (
	"fmt"
	"os"
)

// Outside of Towpath, as in tests, its log is the standard error.
func hostLog(level level, message string) {
	fmt.Fprintln(os.Stderr, [...]string{"DEBUG", "INFO", "WARN", "ERROR"}[level], message)
}
