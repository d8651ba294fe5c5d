#!/usr/bin/env bash
# Measures what the README claims of the mathematics and keeps the raw figures:
#   bench/run.sh            writes bench/runs/DATE-shaping.txt
set -euo pipefail
cd "$(dirname "$0")/.."
file=bench/runs/$(date -u +%F)-shaping.txt
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cargo build --release --locked --quiet
python3 - >"$work/rewards.jsonl" <<'PY'
import json, random
random.seed(1)
for i in range(100_000):
    print(json.dumps({"id": i, "rewards": [random.gauss(0, 1) for _ in range(10)]}))
PY
{
  echo "command: bench/run.sh"
  echo "commit:  $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ' with changes')"
  echo "machine: $(nproc) x $(lscpu | sed -n 's/^Model name: *//p'), $(rustc --version)"
  echo
  echo "shape, 100,000 lines of 10 rewards, wall seconds of five runs:"
  for args in "" "--summary" "--kl-budget 0.5 --shaping hard" "--kl-budget 0.5 --shaping srs"; do
    printf '  %-34s' "shape $args"
    for _ in 1 2 3 4 5; do
      began=$(date +%s%N)
      # shellcheck disable=SC2086
      target/release/stackelberg shape "$work/rewards.jsonl" $args --out "$work/out.jsonl"
      awk -v t=$(($(date +%s%N) - began)) 'BEGIN { printf " %.2f", t / 1e9 }'
    done
    echo
  done
  echo
  cargo bench --locked --quiet -p stackelberg-shaping --bench threshold -- --warm-up-time 1 --measurement-time 3 2>/dev/null |
    grep 'time:'
} | tee "$file"
