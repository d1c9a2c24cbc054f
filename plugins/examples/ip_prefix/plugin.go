// Leaves of IP addresses what does not tell whose they are, and says which network they belong to.
package main

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"

	"towpath"
)

var plugin = towpath.Plugin{
	Name:    "ip_prefix",
	Version: "0.1.0",
	Summary: "Shortens IP addresses to their prefixes, and names their networks",
	Options: []towpath.Option{
		{Name: "field", Element: towpath.NonEmptyText(), Required: true,
			Doc: "The field with the address, a text; a port or a length behind it is left out."},
		{Name: "ipv4_bits", Element: towpath.Integer(0, 32), DefaultJSON: "24",
			Doc: "How many bits of an IPv4 address stay: 32 are all."},
		{Name: "ipv6_bits", Element: towpath.Integer(0, 128), DefaultJSON: "48",
			Doc: "How many bits of an IPv6 address stay: 128 are all."},
		{Name: "networks", Element: towpath.NonEmptyText(), Shape: towpath.ByKey,
			Doc: "Networks by their names, each as prefixes separated by commas. The narrowest that holds the whole address counts."},
		{Name: "into", Element: towpath.NonEmptyText(), DefaultJSON: `"network"`,
			Doc: "The field for the network's name, null where it is in none. Where rows have it already, it must be text."},
		{Name: "invalid", DefaultJSON: `"reject"`, Doc: "What becomes of a record whose address is none.",
			Element: towpath.OneOf(
				towpath.Choice{Name: "reject", Doc: "The record goes to the dead-letter topic."},
				towpath.Choice{Name: "null", Doc: "The field is null."},
			)},
	},
	Check: check,
	Open:  open,
}

func init() { towpath.Export(plugin) }

// Towpath calls what was exported, and never this.
func main() {}

type ipPrefix struct {
	field, into  string
	bits4, bits6 int
	networks     []network
	rejects      bool
	plans        map[uint32]plan
}

// What becomes of the records of one schema.
type plan struct {
	what what
	// The indices of the address, and of the network's name; -1 for none.
	field, into int
	// The schema with that field added.
	target uint32
}

type what uint8

const (
	keep what = iota
	rewrite
	add
	refuse
)

// The networks of the options, and what is wrong with them.
func networksIn(config towpath.Config) (networks []network, problems []towpath.Problem) {
	text, given := config.JSON("networks")
	if !given {
		return nil, nil
	}
	var byName map[string]string
	if err := json.Unmarshal(text, &byName); err != nil {
		return nil, []towpath.Problem{{Path: "networks", Message: err.Error()}}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		found, err := networksOf(name, byName[name])
		if err != nil {
			problems = append(problems, towpath.Problem{
				Path: "networks." + name, Message: err.Error(), Hint: "write `10.0.0.0/8` or `2001:db8::/32`",
			})
		}
		networks = append(networks, found...)
	}
	narrowestFirst(networks)
	return networks, problems
}

func check(config towpath.Config) []towpath.Problem {
	_, problems := networksIn(config)
	field, _ := config.Text("field")
	if into, _ := config.Text("into"); into == field {
		problems = append(problems, towpath.Problem{Path: "into", Message: "`" + into + "` is the address"})
	}
	return problems
}

func open(config towpath.Config) (towpath.Transform, error) {
	it := &ipPrefix{plans: make(map[uint32]plan)}
	it.field, _ = config.Text("field")
	it.into, _ = config.Text("into")
	bits4, _ := config.Int("ipv4_bits")
	bits6, _ := config.Int("ipv6_bits")
	it.bits4, it.bits6 = int(bits4), int(bits6)
	invalid, _ := config.Text("invalid")
	it.rejects = invalid == "reject"
	networks, problems := networksIn(config)
	if len(problems) > 0 {
		return nil, towpath.Terminal("IP_PREFIX_OPTIONS", "%s", problems[0].Message)
	}
	it.networks = networks
	return it, nil
}

// What becomes of a record's schema: found once for each.
func (it *ipPrefix) planOf(record towpath.Record, out *towpath.Output) (plan, error) {
	if found, known := it.plans[record.SchemaNumber()]; known {
		return found, nil
	}
	schema := record.Schema()
	index := func(name string) int {
		return slices.IndexFunc(schema.Value, func(field towpath.Field) bool { return field.Name == name })
	}
	isText := func(index int) bool { return schema.Value[index].Kind() == towpath.KindText }
	made := plan{what: rewrite, field: index(it.field), into: -1}
	switch into := index(it.into); {
	case made.field < 0:
		made.what = keep
	case !isText(made.field):
		made.what = refuse
	case len(it.networks) == 0:
	case into < 0:
		added := *schema
		added.Value = append(slices.Clone(schema.Value),
			towpath.Field{Name: it.into, Type: towpath.TypeText, Nullable: true})
		target, err := out.Define(&added)
		if err != nil {
			return plan{}, towpath.Terminal("IP_PREFIX_SCHEMAS", "%v", err)
		}
		made.what, made.into, made.target = add, len(schema.Value), target
	case isText(into):
		made.into = into
	default:
		made.what = refuse
	}
	it.plans[record.SchemaNumber()] = made
	return made, nil
}

// What becomes of an address, and its network.
type found struct {
	address netip.Addr
	valid   bool
	// Instead of an address.
	other, network towpath.Value
}

func (it *ipPrefix) look(value towpath.Value) found {
	text, ok := value.Text()
	if !ok {
		// What the source did not tell of its address, nobody can tell of its network.
		return found{other: value, network: value}
	}
	address, ok := addressIn(text)
	if !ok {
		return found{other: towpath.NullValue(), network: towpath.NullValue()}
	}
	network := towpath.NullValue()
	for at := range it.networks {
		if it.networks[at].prefix.Contains(address) {
			network = towpath.TextValue(it.networks[at].name)
			break
		}
	}
	return found{address: prefixOf(address, it.bits4, it.bits6), valid: true, network: network}
}

func (found *found) write(row *towpath.RowWriter, plan plan, from towpath.Row) {
	for index := range from.Len() {
		switch {
		case index == plan.into:
			row.Value(found.network)
		case index != plan.field:
			row.Copy(from, index)
		case found.valid:
			row.AppendText(found.address.AppendTo)
		default:
			row.Value(found.other)
		}
	}
	if plan.what == add {
		row.Value(found.network)
	}
}

func (it *ipPrefix) one(record towpath.Record, plan plan, out *towpath.Output) {
	before, after := record.Before(), record.After()
	now := it.look(after.At(plan.field))
	if _, isText := after.At(plan.field).Text(); isText && !now.valid && it.rejects {
		out.Reject(record, towpath.Rejection{
			Code: "IP_PREFIX_ADDRESS", Message: "`" + it.field + "` is no IP address",
			Hint: "with `invalid: null` such records go on without one",
		})
		return
	}
	to := out.Rewrite(record)
	if plan.what == add {
		to = out.RewriteAs(record, plan.target)
	}
	if before.Exists() {
		// One that is none was let in once; what counts is what it is now.
		was := it.look(before.At(plan.field))
		to.Before(func(row *towpath.RowWriter) { was.write(row, plan, before) })
	}
	if after.Exists() {
		to.After(func(row *towpath.RowWriter) { now.write(row, plan, after) })
	}
	to.Finish()
}

// Process shortens the addresses of a batch.
func (it *ipPrefix) Process(batch *towpath.Batch, out *towpath.Output) error {
	for record := range batch.Records() {
		plan, err := it.planOf(record, out)
		if err != nil {
			return err
		}
		switch plan.what {
		case keep:
			out.Keep(record)
		case refuse:
			out.Reject(record, towpath.Rejection{
				Code: "IP_PREFIX_FIELD", Message: "`" + it.field + "` or `" + it.into + "` is there, and is no text",
			})
		default:
			it.one(record, plan, out)
		}
	}
	return nil
}
