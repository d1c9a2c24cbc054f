package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The address in a text: alone (`192.0.2.7`, `2001:db8::7`), with a port (`[2001:db8::7]:443`), or with a length, as PostgreSQL
// writes them (`192.0.2.7/32`). One of IPv4 that is written as one of IPv6 is one of IPv4.
func addressIn(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	address, err := netip.ParseAddr(text)
	if err != nil {
		if port, portErr := netip.ParseAddrPort(text); portErr == nil {
			address = port.Addr()
		} else if prefix, prefixErr := netip.ParsePrefix(text); prefixErr == nil {
			address = prefix.Addr()
		} else {
			return netip.Addr{}, false
		}
	}
	return address.Unmap().WithZone(""), true
}

// The address with its first bits alone.
func prefixOf(address netip.Addr, bits4, bits6 int) netip.Addr {
	bits := bits6
	if address.Is4() {
		bits = bits4
	}
	prefix, err := address.Prefix(bits)
	if err != nil {
		return address
	}
	return prefix.Addr()
}

// A network and what it is called.
type network struct {
	prefix netip.Prefix
	name   string
}

// The networks of a list of prefixes, separated by commas.
func networksOf(name, list string) ([]network, error) {
	var all []network
	for _, text := range strings.Split(list, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("`%s` is no network", strings.TrimSpace(text))
		}
		if prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("`%v` is a network of IPv4 that is written as one of IPv6", prefix)
		}
		all = append(all, network{prefix.Masked(), name})
	}
	return all, nil
}

// The narrowest first: the first that holds an address is the one that counts.
func narrowestFirst(networks []network) {
	slices.SortFunc(networks, func(one, other network) int {
		return cmp.Or(cmp.Compare(other.prefix.Bits(), one.prefix.Bits()), cmp.Compare(one.name, other.name))
	})
}
