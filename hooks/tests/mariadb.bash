# shellcheck shell=bash disable=SC2034,SC2154
# A server of its own on ext4, with its own socket and no network.

if ! command -v mariadbd >/dev/null; then
  skip "no mariadbd"
  return
fi

socket=$folder/socket/server
sql() { timeout 10 mariadb -NB -S "$socket" -e "$1" 2>"$folder/output"; }
commits() { sql "SET SESSION lock_wait_timeout = 1; INSERT INTO test.numbers VALUES (NULL)"; }
is_blocked() { ! commits; }

make_disk data 400M
disks=data=$device
install -d -o mysql -m 700 "$folder/data/files" "$folder/socket"
chmod 711 "$folder/socket"
mariadb-install-db --no-defaults --user=mysql --datadir="$folder/data/files" --skip-test-db >/dev/null 2>&1
runuser -u mysql -- mariadbd --no-defaults --datadir="$folder/data/files" --socket="$socket" \
  --skip-networking --pid-file="$folder/socket/pid" --log-bin >"$folder/server.log" 2>&1 &
disown
# By the file that the server wrote; waits until it is gone.
stop_server() {
  local number
  number=$(<"$folder/socket/pid") || return 0
  kill "$number"
  eventually 30 test ! -e "/proc/$number" || kill -KILL "$number"
}
undo+=(stop_server)
eventually 60 sql 'SELECT 1' >/dev/null || { broken "the test's server started"; return; }
sql 'CREATE DATABASE test; CREATE TABLE test.numbers (n INT AUTO_INCREMENT PRIMARY KEY)'

state_file() { find "$folder/state" -name "$1" | head -n 1; }

for kind in stage read-lock; do
  printf 'SOCKET=%s\nLOCK=%s\nHOLD_MARGIN=1\n' "$socket" "$kind" >"$folder/config"
  passes "$kind: commits work" commits
  passes "$kind: pre-freeze succeeds" hook pre-freeze
  passes "$kind: commits are blocked" is_blocked
  point=aaaaaaaaaaaaaaaaaaaaaaaa
  passes "$kind: post-thaw of another pass succeeds" hook post-thaw
  point=0123456789abcdef01234567
  passes "$kind: and leaves them blocked" is_blocked
  passes "$kind: post-thaw succeeds" hook post-thaw
  passes "$kind: commits work again" commits
  passes "$kind: post-thaw again succeeds" hook post-thaw
  passes "$kind: nothing is left" leaves_no_state

  hook pre-freeze
  sql "KILL $(sql "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND command = 'Sleep' AND user = 'root'")"
  passes "$kind: commits work when the session was killed" eventually 10 commits
  refuses "$kind: post-thaw says that the lock was lost" 'session was lost' hook post-thaw

  hook pre-freeze
  kill -KILL -- "-$(<"$(state_file pid)")"
  passes "$kind: commits work when the holder was killed" eventually 10 commits
  refuses "$kind: post-thaw says so" 'session was lost' hook post-thaw
  passes "$kind: nothing is left of it" leaves_no_state

  hook pre-freeze 3
  passes "$kind: commits are blocked by a pass that dies" is_blocked
  passes "$kind: a lost post-thaw blocks them until deadline and margin" eventually 20 commits
  refuses "$kind: a late post-thaw says that it was too late" 'nobody released it' hook post-thaw

  hook pre-freeze
  passes "$kind: a new pre-freeze ends what an earlier pass left" hook pre-freeze
  passes "$kind: its post-thaw succeeds" hook post-thaw
  passes "$kind: commits work after all that" commits
done

# Another session in the way: the lock cannot be had.
{ echo 'LOCK TABLES test.numbers WRITE;'; sleep 8; } | mariadb -S "$socket" >/dev/null 2>&1 &
blocker=$!
in_the_way() { is_blocked; }
eventually 5 in_the_way
refuses "a lock that cannot be had in time is an error" 'not taken in time' hook pre-freeze 4
passes "nothing is left of the attempt" leaves_no_state
wait "$blocker"
passes "commits work after it" eventually 10 commits

# Killed in the middle: only post-thaw runs after that, as Strobe promises.
setsid "$BASH" -c "$(declare -f hook); $(declare -p environment hooks hook folder point disks); hook pre-freeze" &
attempt=$!
has_started() { [[ -n $(state_file pid) ]]; }
eventually 5 has_started
kill -KILL -- "-$attempt" 2>/dev/null
wait "$attempt" 2>/dev/null
passes "post-thaw after a pre-freeze that was killed succeeds" hook post-thaw
passes "and commits work" eventually 10 commits
disks=other=/dev/null
refuses "a data directory on no disk of the snapshot is refused" 'no disk' hook pre-freeze
passes "and commits work" commits
stop_server
refuses "a server that is down is an error" "Can't connect" hook pre-freeze
passes "post-thaw does not mind" hook post-thaw
