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
# Between two batches there is a time that is later than the first and not later than the second.
sleep 0.05
between=$(date +%s%3N)
sleep 0.05
k -P -t "$topic" -p 0 < <(head -15 "$work/lines")
equal "$(k -Q -t "$topic:0:$between" | tr -d ' ')" "$topic[0]offset10" "the first offset since a time between"
equal "$(k -C -t "$topic" -p 0 -o "s@$between" -e -q | wc -l)" 15 "records since a time between"
equal "$(k -C -t "$topic" -p 0 -o s@1000 -o "e@$between" -e -q | wc -l)" 10 "records before that time"
ok

begin group
# kcat makes no topics with partitions of a chosen number: whoever runs this may have made one.
topic="${KCAT_TOPIC:-$run-group}"
create "$topic"
partitions=$(k -L -t "$topic" | grep -c '^    partition ')
# produce_all LINES: LINES lines altogether, as many into each partition
produce_all() {
    local p
    for p in $(seq 0 $((partitions - 1))); do
        k -P -t "$topic" -p "$p" < <(head -$(($1 / partitions)) "$work/lines")
    done
}
produce_all 2000
member() {
    kcat -b "$server" -G "$run-g" -X auto.offset.reset=earliest -X session.timeout.ms=10000 \
        -X heartbeat.interval.ms=300 -X auto.commit.interval.ms=200 -u -f '%p %o\n' "$topic" \
        > "$work/member-$1" 2> "$work/log-$1" < /dev/null &
    members+=("$!")
}
has() { [ "$(sort -u "$work"/member-* | wc -l)" -ge "$1" ]; }
# owned MEMBER: how many partitions it was given last
owned() { { grep "assigned" "$work/log-$1" || true; } | tail -1 | { grep -o "$topic \[[0-9]*\]" || true; } | wc -l; }
owns() { [ "$(owned "$1")" = "$2" ]; }
member 1
until_ok "the first member to read all" has 2000
owns 1 "$partitions" || fail "the first member has $(owned 1) of $partitions partitions"
member 2
until_ok "the second member to join" grep -q "assigned" "$work/log-2"
if [ "$partitions" -gt 1 ]; then
    until_ok "the first member to give half away" owns 1 $((partitions / 2))
    until_ok "the second member to get half" owns 2 $((partitions / 2))
fi
produce_all 1000
until_ok "both members to read the rest between them" has 3000
if [ "$partitions" -gt 1 ]; then
    for n in 1 2; do [ -s "$work/member-$n" ] || fail "member $n read nothing"; done
fi
kill -INT "${members[0]}"
wait "${members[0]}" || fail "the first member ended with $?: $(tail -3 "$work/log-1")"
until_ok "the second member to get all partitions" owns 2 "$partitions"
produce_all 500
until_ok "the second member to read the rest" has 3500
kill -INT "${members[1]}"
wait "${members[1]}" || fail "the second member ended with $?: $(tail -3 "$work/log-2")"
members=()
equal "$(cat "$work"/member-* | wc -l)" 3500 "records read, none twice"
# What was committed is not read again.
produce_all 8
equal "$(k -G "$run-g" -X auto.offset.reset=earliest -e -q -f '%p %o\n' "$topic" | wc -l)" 8 \
    "records after resuming"
ok

trap cleanup EXIT
echo "$passed passed, 0 failed"
