# shellcheck shell=bash disable=SC2034,SC2154
# A server on three ext4 file systems: data, WAL and a tablespace.

programs=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
if [[ -z $programs ]]; then
  skip "no PostgreSQL server"
  return
fi

as_postgres() { (cd / && runuser -u postgres -- "$@"); }
sql() { as_postgres psql -XqAt -h "$folder/sockets" -c "$1" postgres 2>"$folder/output"; }
redo() { sql 'SELECT redo_lsn FROM pg_control_checkpoint()'; }

for name in data wal space; do
  make_disk "$name" 200M
  eval "disk_$name=$name=$device"
  install -d -o postgres -m 700 "$folder/$name/files"
done
all_disks=$disk_data$'\n'$disk_wal$'\n'$disk_space
install -d -o postgres "$folder/sockets"
as_postgres "$programs/initdb" -D "$folder/data/files" -X "$folder/wal/files" -A trust --no-sync >/dev/null
undo+=("as_postgres $programs/pg_ctl -D $folder/data/files -m immediate stop")
as_postgres "$programs/pg_ctl" -D "$folder/data/files" -w -l "$folder/sockets/log" \
  -o "-k $folder/sockets -c listen_addresses=''" start >/dev/null
sql "CREATE TABLESPACE space LOCATION '$folder/space/files'"
echo "SOCKET_DIRECTORY=$folder/sockets" >"$folder/config"

disks=$all_disks
before=$(redo)
passes "pre-freeze succeeds when all disks are in the snapshot" hook pre-freeze
passes "it names the WAL and the tablespace" output_has 'covered: .*pg_wal'
passes "it ran a checkpoint" test "$before" != "$(redo)"
passes "post-thaw succeeds" hook post-thaw
passes "post-thaw succeeds again" hook post-thaw
disks=$disk_data$'\n'$disk_space
refuses "a WAL on no disk of the snapshot is refused" 'pg_wal.*is on no disk' hook pre-freeze
disks=$disk_data$'\n'$disk_wal
refuses "a tablespace on no disk of the snapshot is refused" 'pg_tblspc.*is on no disk' hook pre-freeze
disks=$disk_wal$'\n'$disk_space
refuses "a data directory on no disk of the snapshot is refused" 'data directory.*is on no disk' hook pre-freeze
disks=
refuses "no disk at all is refused" 'names no disk' hook pre-freeze
disks=data=$folder/data.raw$'\n'$disk_wal$'\n'space=$folder/space.raw
passes "an image file below a loop device counts as its disk" hook pre-freeze
disks=$all_disks
for name in fsync full_page_writes; do
  sql "ALTER SYSTEM SET $name = off"
  sql 'SELECT pg_reload_conf()' >/dev/null
  off() { [[ $(sql "SHOW $name") == off ]]; }
  eventually 10 off
  refuses "$name = off is refused" "$name is off" hook pre-freeze
  sql "ALTER SYSTEM RESET $name"
  sql 'SELECT pg_reload_conf()' >/dev/null
done
on() { [[ $(sql "SHOW full_page_writes") == on ]]; }
eventually 10 on

server=$(head -n 1 "$folder/data/files/postmaster.pid")
kill -STOP "$server"
started=$EPOCHSECONDS
refuses "a server that does not answer is given up" '' hook pre-freeze 3
passes "before the deadline, or hardly after it" test $((EPOCHSECONDS - started)) -le 5
kill -CONT "$server"
passes "and works again later" eventually 20 hook pre-freeze
as_postgres "$programs/pg_ctl" -D "$folder/data/files" -m fast -w stop >/dev/null
refuses "a server that is down is an error" 'psql: error' hook pre-freeze
passes "post-thaw does not mind" hook post-thaw
