package main

import (
	"testing"

	"towpath"
)

func TestAddresses(t *testing.T) {
	for text, expected := range map[string]string{
		"192.0.2.77":             "192.0.2.0",
		" 192.0.2.77:8080":       "192.0.2.0",
		"192.0.2.77/32":          "192.0.2.0",
		"::ffff:192.0.2.77":      "192.0.2.0",
		"2001:db8:1:2::7":        "2001:db8:1::",
		"[2001:db8:1:2::7]:443":  "2001:db8:1::",
		"fe80::1%eth0":           "fe80::",
		"2001:DB8:1:2::7/64":     "2001:db8:1::",
		"192.0.2":                "",
		"192.0.2.256":            "",
		"example.org":            "",
		"":                       "",
		"1.2.3.4.5":              "",
		"192.0.2.77, 192.0.2.78": "",
	} {
		address, ok := addressIn(text)
		if shown := prefixOf(address, 24, 48).String(); ok != (expected != "") || ok && shown != expected {
			t.Errorf("%q: %v %v", text, shown, ok)
		}
	}
	all, _ := addressIn("192.0.2.77")
	if shown := prefixOf(all, 32, 128).String() + " " + prefixOf(all, 0, 0).String(); shown != "192.0.2.77 0.0.0.0" {
		t.Error(shown)
	}
}

func options(invalid string) map[string]any {
	return map[string]any{
		"field": "ip", "ipv4_bits": 24, "ipv6_bits": 48, "into": "network", "invalid": invalid,
		"networks": map[string]string{"ours": "10.0.0.0/8, fd00::/8", "office": "10.1.0.0/16"},
	}
}

func TestNetworksAreNamed(t *testing.T) {
	schema := towpath.Schema{Name: "visits", Value: []towpath.Field{
		{Name: "ip", Type: towpath.TypeText, Nullable: true}, {Name: "n", Type: towpath.TypeInt32},
	}}
	var rows []map[string]towpath.Value
	for n, ip := range []string{"10.1.2.3", "10.2.2.3:80", "fd00::1", "192.0.2.1", "nobody"} {
		rows = append(rows, map[string]towpath.Value{"ip": towpath.TextValue(ip), "n": towpath.IntValue(int64(n))})
	}
	rows = append(rows, map[string]towpath.Value{"ip": towpath.NullValue()}, nil)
	tried, err := towpath.Try(plugin, options("reject"), schema, rows...)
	if err != nil {
		t.Fatal(err)
	}
	expected := []string{
		"10.1.2.0 0 office", "10.2.2.0 1 ours", "fd00:: 2 ours", "192.0.2.0 3 null", "null absent null", "absent absent absent",
	}
	for at, passed := range tried.Passed {
		row := passed.After()
		shown := row.Get("ip").String() + " " + row.Get("n").String() + " " + row.Get("network").String()
		if at >= len(expected) || shown != expected[at] {
			t.Errorf("%d: %s", at, shown)
		}
	}
	if len(tried.Passed) != len(expected) || len(tried.Rejected) != 1 || tried.Rejected[4].Code != "IP_PREFIX_ADDRESS" {
		t.Errorf("%d passed, rejected: %v", len(tried.Passed), tried.Rejected)
	}
	tried, err = towpath.Try(plugin, options("null"), schema, rows[4])
	if err != nil || !tried.Passed[0].After().Get("ip").IsNull() {
		t.Error(tried, err)
	}
}

func TestProblems(t *testing.T) {
	given := options("null")
	given["networks"] = map[string]string{"a": "10.0.0.0", "b": "::ffff:10.0.0.0/104"}
	given["into"] = "ip"
	if problems := check(towpath.TestConfig(given)); len(problems) != 3 || problems[0].Path != "networks.a" {
		t.Error(problems)
	}
}
