# shellcheck shell=bash
# What the hooks of this folder share: configuration, time left, which disks hold a path, and a
# background holder for what must stay open between the phases. Sourced by hooks, never run.
#
# A hook sets `hook_name`, `hook_program` and the table `config` (keys with their defaults), and
# calls `read_configuration`. Nothing here may change anything before a phase is known.

runtime_directory=${HOOK_RUNTIME_DIRECTORY:-/run/strobe/hooks}
collection=${STROBE_COLLECTION-}
collection=${collection//[^A-Za-z0-9._-]/_}
config_file=${HOOK_CONFIG:-/etc/strobe/hooks/${hook_name:?}.conf}
declare -A config

say() { printf '%s: %s\n' "$hook_name" "$*"; }

fail() {
  printf '%s: %s\n' "$hook_name" "$*" >&2
  exit 1
}

# Reads KEY=value lines (blank lines and # comments aside). The file is parsed, never sourced; it
# names programs and users, so only root may be able to change it.
read_configuration() {
  local line number=0 key value
  if [[ ! -e $config_file ]]; then
    [[ -z ${HOOK_CONFIG-} ]] || fail "$config_file: no such file"
    return 0
  fi
  [[ $(stat -L -c '%u' -- "$config_file") == 0 ]] || fail "$config_file: not owned by root"
  [[ -z $(find -L "$config_file" -maxdepth 0 -perm /022) ]] \
    || fail "$config_file: others may write to it; chmod go-w"
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
    [[ $line =~ ^([A-Z_]+)=(.*)$ ]] || fail "$config_file:$number: not KEY=value"
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]] && value=${BASH_REMATCH[1]}
    [[ -v config[$key] ]] || fail "$config_file:$number: unknown key $key; known: ${!config[*]}"
    config[$key]=$value
  done <"$config_file"
}

# The phase, or what else the program was asked for. Hooks get no arguments from Strobe.
require_phase() {
  case ${STROBE_PHASE-} in
    pre-freeze | post-thaw) ;;
    *) fail "STROBE_PHASE is '${STROBE_PHASE-}'; Strobe sets it to pre-freeze or post-thaw (see --help)" ;;
  esac
}

# Milliseconds until Strobe kills this hook; a minute when it is tried by hand.
milliseconds_left() {
  local deadline=${STROBE_DEADLINE:-$((EPOCHSECONDS + 60))} fraction=000 now=${EPOCHREALTIME/[.,]/}
  [[ $deadline =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "STROBE_DEADLINE is '$deadline', not seconds"
  [[ $deadline == *.* ]] && fraction=${deadline#*.}000
  printf '%d\n' $((${deadline%.*} * 1000 + 10#${fraction:0:3} - now / 1000))
}

# --- Which disks hold a path ---------------------------------------------------------------------

declare -A disk_devices=() disk_files=()

# Fills the tables of the pass's disks: devices as MAJOR:MINOR, image files as DEVICE:INODE.
read_disks() {
  local line path kind numbers
  while IFS= read -r line; do
    [[ $line == *=* ]] || continue
    path=${line#*=}
    kind=$(stat -L -c '%F' -- "$path") || fail "disk ${line%%=*}: cannot read $path"
    if [[ $kind == 'block special file' ]]; then
      numbers=$(stat -L -c '0x%t 0x%T' -- "$path")
      disk_devices[$((${numbers% *})):$((${numbers#* }))]=1
    else
      disk_files[$(stat -L -c '%d:%i' -- "$path")]=1
    fi
  done <<<"${STROBE_DISKS-}"
  ((${#disk_devices[@]} + ${#disk_files[@]})) || fail "STROBE_DISKS names no disk"
}

# Whether all that the device MAJOR:MINOR stores lies on disks of the pass.
is_device_covered() {
  local system slave slaves=0 backing
  [[ -v disk_devices[$1] ]] && return 0
  system=$(readlink -e "/sys/dev/block/$1") || return 1
  if [[ -e $system/partition ]]; then
    is_device_covered "$(<"${system%/*}/dev")"
    return
  fi
  if [[ -e $system/loop/backing_file ]]; then
    backing=$(<"$system/loop/backing_file")
    [[ -v disk_files[$(stat -c '%d:%i' -- "$backing" 2>/dev/null || echo gone)] ]] && return 0
    is_path_covered "$backing"
    return
  fi
  for slave in "$system"/slaves/*/dev; do
    [[ -e $slave ]] || continue
    slaves=$((slaves + 1))
    is_device_covered "$(<"$slave")" || return 1
  done
  ((slaves > 0))
}

# Whether the file system that holds the path lies on disks of the pass, with all its devices.
is_path_covered() {
  local number type source options device extra
  read -r number type source options \
    < <(findmnt -nro MAJ:MIN,FSTYPE,SOURCE,OPTIONS -T "$1" | tail -n 1) || return 1
  if [[ $type == btrfs ]]; then
    source=$(readlink -e "${source%%\[*}") || return 1
    source=$(compgen -G "/sys/fs/btrfs/*/devices/${source##*/}") || return 1
    for device in "${source%/*}"/*; do
      is_device_covered "$(<"$device/dev")" || return 1
    done
    return 0
  fi
  is_device_covered "$number" || return 1
  for extra in $(grep -oE '(logdev|rtdev)=[^,]+' <<<"$options" || true); do
    device=$(lsblk -dnro MAJ:MIN "${extra#*=}") || return 1
    is_device_covered "$device" || return 1
  done
}

# Fails unless WHAT (for the message) at PATH lies on the disks of the pass.
require_coverage() {
  is_path_covered "$2" || fail "$1 ($2, on $(findmnt -nro SOURCE -T "$2" | tail -n 1)) is on no disk of this snapshot; add its disk"
  say "covered: $1 ($2)"
}

# The same for a directory and all that it leads to: symbolic links in its first two levels, and
# whatever is mounted below it.
require_tree_coverage() {
  local link target
  require_coverage "$1" "$2"
  while IFS= read -r link; do
    target=$(readlink -e "$link") || continue
    require_coverage "$1: ${link#"$2"/}" "$target"
  done < <(find "$2" -maxdepth 2 -type l)
  while IFS= read -r target; do
    [[ $target == "$2"/* ]] && require_coverage "$1: mounted below" "$target"
  done < <(findmnt -nro TARGET)
  return 0
}

# --- A background holder -------------------------------------------------------------------------
#
# Something that must stay open between the phases (a database session) is kept by a process of its
# own session: this program again, with the argument `hold`, running the function `hold`. It writes
# to the file `log` of the state directory:
#   strobe: held       once the hold is taken
#   strobe: expired    when nobody released it until the deadline + HOLD_MARGIN seconds
#   strobe: released   after it was given up in good order
#   strobe: ended      when the session ended, whyever
# and keeps a lock on the file `alive`, so that it is found without trusting a process id.

state=

open_state() {
  local key
  key=$(printf '%s' "$config_file" | cksum)
  (umask 077 && mkdir -p "$runtime_directory")
  state=$runtime_directory/$hook_name.$collection.${key% *}
  # Phases of one collection exclude each other: a guardian's late post-thaw and a new pass.
  exec {state_lock}>"$state.lock"
  flock -w $(($(milliseconds_left) / 1000 + 1)) "$state_lock" || fail "$state.lock: held by another hook"
}

logged() { grep -qsx "strobe: $1" "$state/log"; }

is_holder_alive() { [[ -e $state/alive ]] && ! flock -n "$state/alive" true; }

# Starts the holder and waits until it holds. On failure nothing is left behind.
start_holder() {
  open_state
  [[ -d $state ]] && { say "ending what an earlier pass left"; stop_holder; }
  mkdir -m 0700 "$state"
  printf '%s\n' "${STROBE_POINT-}" >"$state/point"
  mkfifo -m 0600 "$state/release"
  : >"$state/alive"
  HOOK_STATE=$state setsid --fork -- "${hook_program:?}" hold \
    </dev/null >>"$state/log" 2>&1 {state_lock}>&-
  until logged held || logged ended; do
    (($(milliseconds_left) > 300)) || break
    sleep 0.02
  done
  logged held && ! logged ended && { print_log; return 0; }
  print_log >&2
  stop_holder
  fail "the hold was not taken in time; nothing is held"
}

# Runs in the holder: waits for post-thaw, at most until the deadline + HOLD_MARGIN.
wait_for_release() {
  local limit
  limit=$(($(milliseconds_left) + config[HOLD_MARGIN] * 1000))
  read -r -t "$((limit / 1000)).$(printf '%03d' $((limit % 1000)))" <>"$state/release" \
    || printf 'strobe: expired\n' >>"$state/log"
}

print_log() { sed '/^strobe: /d' "$state/log"; }

# Lets the holder give up in good order, else ends it, and removes the state.
stop_holder() {
  if is_holder_alive; then
    printf 'release\n' 1<>"$state/release"
    if ! flock -w "$(($(milliseconds_left) / 2000 + 1))" "$state/alive" true; then
      say "the holder does not answer; it is killed"
      kill -KILL -- "-$(<"$state/pid")" 2>/dev/null || true
    fi
  fi
  rm -rf -- "$state"
}

# post-thaw: ends what this pass holds, and fails if it was not held all the time. `undo` runs when
# the holder could not give up in good order.
release_holder() {
  local problem=
  open_state
  [[ -d $state ]] || { say "nothing is held"; return 0; }
  if [[ $(cat "$state/point" 2>/dev/null) != "${STROBE_POINT-}" ]]; then
    say "what is held belongs to another pass; left alone"
    return 0
  fi
  logged held || { stop_holder; undo; say "pre-freeze had not got hold of anything"; return 0; }
  if is_holder_alive; then
    printf 'release\n' 1<>"$state/release"
    flock -w "$(($(milliseconds_left) / 2000 + 1))" "$state/alive" true || true
  fi
  logged released || problem="the session was lost"
  logged expired && problem="nobody released it in time"
  print_log
  [[ -z $problem ]] || undo
  stop_holder
  [[ -z $problem ]] || fail "not held until the thaw: $problem; the point is no better than crash-consistent"
  say "released"
}

undo() { :; }

# The whole life of a hook that needs a holder. The hook defines `hold`.
run_with_holder() {
  if [[ ${1-} == hold && -n ${HOOK_STATE-} ]]; then
    state=$HOOK_STATE
    exec {alive}<"$state/alive"
    flock "$alive"
    printf '%s\n' "$$" >"$state/pid"
    hold || true
    printf 'strobe: ended\n' >>"$state/log"
    exit 0
  fi
  require_phase
  case $STROBE_PHASE in
    pre-freeze)
      prepare
      start_holder
      ;;
    post-thaw) release_holder ;;
  esac
}
