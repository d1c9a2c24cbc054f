#!/usr/bin/env bash
# kcat (librdkafka 2.0, older than confluent-kafka's) against a broker: interop.sh HOST:PORT
# Topics are made by their first use; everything else that kcat can do is done.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 HOST:PORT" >&2; exit 2; }
server=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/towpath-kcat-XXXXXX")
run=$(basename "$work")
members=()
cleanup() {
    for pid in "${members[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
passed=0
case_name=start
case_start=$(date +%s%N)

fail() { echo "FAILED $case_name: $*"; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
begin() { case_name=$1; case_start=$(date +%s%N); }
ok() { passed=$((passed + 1)); printf 'ok %s (%d ms)\n' "$case_name" $((($(date +%s%N) - case_start) / 1000000)); }
equal() { [ "$1" = "$2" ] || fail "$3: '$1' instead of '$2'"; }
k() { timeout 60 kcat -b "$server" -X socket.timeout.ms=30000 -X message.timeout.ms=30000 "$@"; }
# until WHAT COMMAND…: asks again until it succeeds
until_ok() {
    local what=$1 end=$((SECONDS + 60)); shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "not within 60 s: $what"
        sleep 0.02
    done
}
create() {
    # The first metadata request for a topic makes it, where the broker makes topics by itself.
    k -L -t "$1" > /dev/null
    until_ok "topic $1" topic_is_there "$1"
}
topic_is_there() { k -L -J | grep -q "\"topic\":\"$1\",\"partitions\":\[{"; }

begin metadata
k -L > "$work/all"
grep -q "1 brokers" "$work/all"
topic="$run-made"
create "$topic"
k -L -J -t "$topic" | grep -q '"isrs":\[{"id":'
ok

seq 1 2000 | sed 's/^/record number /' > "$work/lines"
for codec in none gzip snappy lz4 zstd; do
    begin "compression_$codec"
    topic="$run-$codec"
    create "$topic"
    k -P -t "$topic" -p 0 -z "$codec" < "$work/lines"
    k -C -t "$topic" -p 0 -o beginning -e -q -X check.crcs=true > "$work/back"
    cmp "$work/lines" "$work/back" || fail "the records are not what was sent"
    equal "$(k -C -t "$topic" -p 0 -o 1990 -e -q -f '%o\n' | head -1)" 1990 "the offset read from"
    equal "$(k -C -t "$topic" -p 0 -o -5 -e -q | wc -l)" 5 "the last five records"
    ok
done

begin keys_headers_nulls
topic="$run-keys"
create "$topic"
printf 'a:1\nb:\n:3\n' | k -P -t "$topic" -p 0 -K : -Z -H 'h=1' -H 'h=2' -H 'none='
equal "$(k -C -t "$topic" -p 0 -e -q -f '%k|%K|%s|%S|%h;')" \
    "a|1|1|1|h=1,h=2,none=;b|1||-1|h=1,h=2,none=;|-1|3|1|h=1,h=2,none=;" "keys, values and headers"
head -c 300000 /dev/urandom > "$work/big"
k -P -t "$topic" -p 0 -k big "$work/big"
k -C -t "$topic" -p 0 -o -1 -e -q -D '' > "$work/big-back"
cmp "$work/big" "$work/big-back" || fail "a file of 300 kB is not what was sent"
ok

for acks in 0 1 all; do
    begin "acks_$acks"
    topic="$run-acks-$acks"
    create "$topic"
    k -P -t "$topic" -p 0 -X acks="$acks" < "$work/lines"
    all_there() { [ "$(k -C -t "$topic" -p 0 -o beginning -e -q | wc -l)" = 2000 ]; }
    until_ok "2000 records" all_there
    ok
done

begin idempotent
topic="$run-idempotent"
create "$topic"
k -P -t "$topic" -p 0 -X enable.idempotence=true -X batch.num.messages=50 < "$work/lines"
k -C -t "$topic" -p 0 -o beginning -e -q > "$work/back"
cmp "$work/lines" "$work/back" || fail "the records are not what was sent"
ok

begin time_lookup
topic="$run-time"
create "$topic"
k -P -t "$topic" -p 0 < <(head -10 "$work/lines")
# All times are of now: a query for the past gives the first offset, one for the future the end.
equal "$(k -Q -t "$topic:0:1000" | tr -d ' ')" "$topic[0]offset0" "the first offset by time"
k -Q -t "$topic:0:-1" | grep -q 'offset 10$'
k -Q -t "$topic:0:-2" | grep -q 'offset 0$'
equal "$(k -C -t "$topic" -p 0 -o s@1000 -e -q | wc -l)" 10 "records since a time"
ok

begin group
topic="$run-group"
create "$topic"
k -P -t "$topic" -p 0 < "$work/lines"
partitions=$(k -L -t "$topic" | grep -c '^    partition ')
member() {
    kcat -b "$server" -G "$run-g" -X auto.offset.reset=earliest -X session.timeout.ms=10000 \
        -X heartbeat.interval.ms=300 -X auto.commit.interval.ms=200 -u -f '%p %o\n' "$topic" \
        > "$work/member-$1" 2> "$work/log-$1" < /dev/null &
    members+=("$!")
}
has() { [ "$(sort -u "$work"/member-* | wc -l)" -ge "$1" ]; }
member 1
until_ok "the first member to read all" has 2000
member 2
until_ok "the second member to join" grep -q "assigned" "$work/log-2"
kill -INT "${members[0]}"
wait "${members[0]}" || fail "the first member ended with $?: $(tail -3 "$work/log-1")"
gets_it() { [ "$(grep -o "$topic \[[0-9]*\]" <(grep assigned "$work/log-2" | tail -1) | wc -l)" = "$partitions" ]; }
until_ok "the second member to get all partitions" gets_it
k -P -t "$topic" -p 0 < <(head -500 "$work/lines")
until_ok "the second member to read the rest" has 2500
kill -INT "${members[1]}"
wait "${members[1]}" || fail "the second member ended with $?: $(tail -3 "$work/log-2")"
members=()
equal "$(cat "$work"/member-* | wc -l)" 2500 "records read, none twice"
# What was committed is not read again.
k -P -t "$topic" -p 0 < <(head -7 "$work/lines")
equal "$(k -G "$run-g" -X auto.offset.reset=earliest -e -q -f '%p %o\n' "$topic" | wc -l)" 7 \
    "records after resuming"
ok

trap cleanup EXIT
echo "$passed passed, 0 failed"
