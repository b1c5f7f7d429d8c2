#!/usr/bin/env bash
# Everything that a GPU has to show, in at most six minutes, as one JSON:
#
#     bash research/gpu.sh gpu.json DRIVE      # the unpacked DRIVE; without it, drawn eyes, whose F1 says nothing
#
# Default training of a fold to the end with its time and F1; the 31 M network for its 30 epochs, killed with SIGKILL
# and resumed; torchrun with one process (nccl on a GPU); predict.py with its photographs a second and the share of the
# time that the GPU waits; its masks beside those of a CPU. What fails or takes longer than LIMIT seconds is told in the
# JSON, which grows with each stage, and the rest goes on. The variables below make it small, to be rehearsed on a CPU;
# STAGES chooses what is done, and in which order.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: $0 OUT.json [DRIVE]" >&2; exit 2; }
out=$(realpath -m "$1") drive=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."
python=${PYTHON:-python} device=${DEVICE:-cuda}
train=${TRAIN:-} large=${LARGE:---width 64 --depth 4 --epochs 30} group=${GROUP:---epochs 1}
size=${SIZE:-4240x2830} photographs=${PHOTOGRAPHS:-16} compared=${COMPARED:-2}
stages=${STAGES:-predict training torchrun 31M} limit=${LIMIT:-150}
work=$(mktemp -d) && trap 'kill -9 ${pid:-} 2>/dev/null; rm -rf "$work"' EXIT
echo '{}' >"$work/facts.json"

note() { # NAME VALUE ...: into the facts, numbers as numbers, and into the JSON with what predict.py found
  "$python" - "$out" "$work" "$@" <<'PY'
import json, pathlib, sys
out, work = map(pathlib.Path, sys.argv[1:3])
facts = json.loads((work / "facts.json").read_text())
for name, value in zip(sys.argv[3::2], sys.argv[4::2]):
    try:
        facts[name] = float(value)
    except ValueError:
        facts[name] = value
(work / "facts.json").write_text(json.dumps(facts))
made = work / "predict.json"
out.write_text(json.dumps(facts | (json.loads(made.read_text()) if made.exists() else {}), indent=1) + "\n")
PY
}
last() { grep -oE "$1" "$2" | tail -1 | grep -oE '[0-9.]+$'; } # the number at the end of a log's last match
stage() { # NAME COMMAND ...: runs it, with its log, seconds and exit status
  local name=$1 start=$EPOCHREALTIME; shift
  echo "$name: $*"
  timeout -k 10 "$limit" "$@" >"$work/$name.log" 2>&1
  local status=$?
  note "$name seconds" "$(awk "BEGIN { print $EPOCHREALTIME - $start }")" "$name status" "$status"
  [ $status = 0 ] || { tail -5 "$work/$name.log" >&2; note "$name error" "$(tail -1 "$work/$name.log" | tr '\r' '\n' | tail -1)"; }
  return $status
}
data=${DATA:-$work/new_data}
if [ -z "${DATA:-}" ]; then
  [ -n "$drive" ] || { "$python" -c "import demo, sys; demo.write_drive(demo.Path(sys.argv[1]), train=20, test=4)" \
    "$work/DRIVE" && drive=$work/DRIVE; }
  stage augment "$python" augment.py --drive "$drive" --out "$data"
fi
how=(--data "$data" --device "$device")

training() {
  stage training "$python" train.py "${how[@]}" --files "$work/default" --folds 4 --fold 3 $train &&
    note "training F1 of fold 3" "$(last 'fold 3: F1 [0-9.]+' "$work/training.log")"
}
31M() {
  "$python" train.py "${how[@]}" --files "$work/large" $large >"$work/large.log" 2>&1 & pid=$!
  local start=$EPOCHREALTIME
  until [ -e "$work/large/last.pth" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
  kill -9 $pid 2>/dev/null && note "31M killed after seconds" "$(awk "BEGIN { print $EPOCHREALTIME - $start }")"
  wait $pid 2>/dev/null; pid=
  stage 31M "$python" train.py "${how[@]}" --files "$work/large" --resume
}
torchrun() {
  stage torchrun "$python" -m torch.distributed.run --nproc-per-node=1 train.py "${how[@]}" --files "$work/group" $group
}
predict() {
  stage predict "$python" -m research.gpu_predictions "$device" "$size" "$photographs" "$compared" "$work/predict.json"
  note
}
for each in $stages; do "$each"; done
cat "$out"
! grep -qE ' status": ([1-9]|"-)' "$out"
