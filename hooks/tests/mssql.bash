# shellcheck shell=bash disable=SC2034,SC2154
# Against a stand-in for sqlcmd: shows the arguments, the order of what is sent, and that nothing is
# left. That SQL Server understands the batches, it cannot show.

cat >"$folder/sqlcmd" <<'TEXT'
#!/usr/bin/env bash
# Knows the three kinds of batches by a word in each.
here=$(dirname "$0")
printf '%s\n' "$*" "password=${SQLCMDPASSWORD-}" >>"$here/calls"
case "$*" in
  *sp_getapplock*)
    touch "$here/release"
    for ((i = 0; i < 200; i++)); do [[ -e $here/suspended ]] || exit 0; sleep 0.05; done ;;
  *'SNAPSHOT_BACKUP = ON'*)
    [[ ! -e $here/fail ]] || { echo 'Msg 3017'; exit 1; }
    date +%s%3N >"$here/suspended"
    trap 'rm -f "$here/suspended" "$here/release"' EXIT
    echo $$ >"$here/session"
    for ((i = 0; i < 400; i++)); do [[ ! -e $here/release ]] || exit 0; sleep 0.05; done ;;
  *dm_server_suspend_status*)
    [[ -e $here/suspended ]] || { echo '  0 '; exit 0; }
    echo "55 55 2 $(($(date +%s%3N) - $(<"$here/suspended")))" ;;
esac
TEXT
chmod 755 "$folder/sqlcmd"

sent() { grep -qF -- "$1" "$folder/calls"; }
suspended() { [[ -e $folder/suspended ]]; }
resumed() { [[ ! -e $folder/suspended ]]; }

printf 'SQLCMD=%s/sqlcmd\nDATABASES=sales, stock\n' "$folder" >"$folder/config"
passes "pre-freeze succeeds" hook pre-freeze
passes "the databases are suspended" suspended
passes "as a group, without touching the differential base" \
  sent 'SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (GROUP=([sales],[stock]),MODE=COPY_ONLY);'
passes "integrated authentication is the default" sent '-S localhost -d master -b -h -1 -W -l 10 -t'
passes "post-thaw succeeds" hook post-thaw
passes "the databases are resumed" resumed
passes "by the group" sent 'SET SUSPEND_FOR_SNAPSHOT_BACKUP = OFF (GROUP=([sales],[stock]));'
passes "post-thaw again succeeds" hook post-thaw
passes "nothing is left" leaves_no_state

hook pre-freeze
kill -KILL "$(<"$folder/session")"
rm -f "$folder/suspended"
refuses "a session that was lost makes post-thaw fail" 'session was lost' hook post-thaw
rm -f "$folder/release"
touch "$folder/fail"
refuses "a refused suspension makes pre-freeze fail" 'Msg 3017' hook pre-freeze 5
passes "post-thaw after it succeeds" hook post-thaw
passes "nothing is left of it" leaves_no_state
rm "$folder/fail" "$folder/calls"

(umask 077 && echo 'not on a command line' >"$folder/password")
printf '%s\n' "SQLCMD=$folder/sqlcmd" USER=strobe "PASSWORD_FILE=$folder/password" \
  TRUST_CERTIFICATE=yes METADATA_DIRECTORY=/var/opt/mssql/strobe >"$folder/config"
passes "with a login and metadata, pre-freeze succeeds" hook pre-freeze
passes "the whole server is suspended" sent 'SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON;'
passes "the password is in the environment" sent 'password=not on a command line'
passes "post-thaw succeeds with metadata" hook post-thaw
passes "the metadata is written by the session" \
  sent "BACKUP SERVER TO DISK = N'/var/opt/mssql/strobe/test-$point.bkm' WITH METADATA_ONLY, FORMAT;"
printf '%s\n' "SQLCMD=$folder/sqlcmd" "DATABASES=x]; DROP DATABASE y" >"$folder/config"
refuses "a database name that is none is refused" 'no plain name' hook pre-freeze
