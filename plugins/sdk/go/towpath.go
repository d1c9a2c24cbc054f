// Package towpath is for plugins of Towpath in Go. A plugin fills in one [Plugin] and exports it:
//
//	func init() { towpath.Export(plugin) }
//
//	func main() {}
//
// It runs outside of Towpath too, as in tests: see [Try].
package towpath

// Transform changes records on their way. It may keep state (counts, caches), but no records: after a crash it is given them
// again, in a new instance.
type Transform interface {
	// Process transforms one batch, which may be empty: what is to go on is written to out, in the order in which it came. A
	// record of which nothing is said is dropped; one that cannot be handled is rejected. An error fails the whole batch: see
	// [Error]. The batch and the output are not to be used once it has returned.
	Process(batch *Batch, out *Output) error
}

// Plugin is what a component brings.
type Plugin struct {
	Name, Version string
	// Summary is one line.
	Summary string
	Options []Option
	// Check tells what is wrong with options that fit their types; all of it at once. It may be nil.
	Check func(config Config) []Problem
	// Open opens an instance.
	Open func(config Config) (Transform, error)
}

// What the component exports.
var exported *Plugin

// Export exports a plugin: once, in an init function. (A component has no main that would run.)
func Export(plugin Plugin) {
	if exported != nil {
		panic("a component exports one plugin")
	}
	if plugin.Open == nil {
		panic("the plugin has no Open")
	}
	exported = &plugin
}
