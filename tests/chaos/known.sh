#!/bin/sh
# A task with a known answer: sh known.sh KIND NAME NUMBER
# It keeps a book of its own executions beside itself, so that nobody needs to believe what the pilot says of them:
#     start|end|failing|overlap  RANK ATTEMPT EPOCH TIME
kind=$1 name=$2 number=$3
rank=${OMPI_COMM_WORLD_RANK:-0}
book=${0%/*}/book
say() { printf '%s %s %s %s %s\n' "$1" "$rank" "$PILOT_ATTEMPT" "$PILOT_EPOCH" "$(date +%s.%N)" >>"$book/$name"; }

# held by this process and all that it starts: two executions of one task must never meet
exec 9>>"$book/.$name.$rank.lock"
flock -n 9 || say overlap
say start

sum() {
    total=0 i=0
    while [ "$i" -lt "$number" ]; do i=$((i + 1)) total=$((total + i)); done
    echo "answer $PILOT_ATTEMPT $total"
}

case $kind in
sum) sleep 1; sum ;;
mpi) sleep 1; sum ;;
slow) sleep 6; sum ;;
flaky)
    if [ "$(grep -c '^failing' "$book/$name")" -lt "$number" ]; then say failing; exit 3; fi
    sum ;;
fails) say failing; echo "it always fails" >&2; exit 1 ;;
hang) sleep 600 ;;
stubborn) trap '' TERM INT HUP; sleep 2; sleep 2; sum ;;
stubborn-hang) trap '' TERM INT HUP; while :; do sleep 5; done ;;
flees) setsid sleep 900 9>&- >/dev/null 2>&1 & sleep 0.5; sum ;;
cancelled) sleep 900 ;;
*) exit 127 ;;
esac
say end
