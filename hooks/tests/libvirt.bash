# shellcheck shell=bash disable=SC2034,SC2154
# Against a stand-in for virsh, whose answers are those of virsh 9.0 with its test driver (which
# forgets a freeze when virsh ends, so it cannot serve itself).

cat >"$folder/virsh" <<'TEXT'
#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case $3 in
  domfsfreeze)
    [ ! -e "$here/fail" ] || { touch "$here/frozen"; echo 'error: Guest agent is not responding'; exit 1; }
    [ ! -e "$here/frozen" ] || { echo 'error: already frozen'; exit 1; }
    touch "$here/frozen"; echo 'Froze 2 filesystem(s)'; echo ;;
  domfsthaw)
    if [ -e "$here/frozen" ]; then rm "$here/frozen"; echo 'Thawed 2 filesystem(s)'; else echo 'Thawed 0 filesystem(s)'; fi ;;
esac
TEXT
chmod 755 "$folder/virsh"
frozen() { [[ -e $folder/frozen ]]; }
thawed() { [[ ! -e $folder/frozen ]]; }

printf 'VIRSH=%s/virsh\n' "$folder" >"$folder/config"
refuses "a domain is required" 'DOMAIN is not set' hook pre-freeze
printf 'VIRSH=%s/virsh\nDOMAIN=web\nHOLD_MARGIN=1\n' "$folder" >"$folder/config"
passes "pre-freeze succeeds" hook pre-freeze
passes "the guest is frozen" frozen
passes "by its name" grep -qx -- '-c qemu:///system domfsfreeze web' "$folder/calls"
passes "post-thaw succeeds" hook post-thaw
passes "the guest is thawed" thawed
passes "post-thaw again succeeds" hook post-thaw
passes "nothing is left" leaves_no_state

hook pre-freeze
kill -KILL -- "-$(<"$(find "$folder/state" -name pid)")"
passes "a holder that was killed leaves the guest frozen" frozen
refuses "post-thaw says so" 'session was lost' hook post-thaw
passes "and thaws it" thawed

hook pre-freeze 2
passes "a lost post-thaw is made good after deadline and margin" eventually 20 thawed
refuses "a late post-thaw fails" 'nobody released it' hook post-thaw

hook pre-freeze
rm "$folder/frozen"
refuses "a guest that somebody else thawed makes post-thaw fail" 'session was lost' hook post-thaw
touch "$folder/fail"
refuses "a freeze that fails halfway makes pre-freeze fail" 'not responding' hook pre-freeze 5
passes "and leaves nothing frozen" thawed
passes "post-thaw after it succeeds" hook post-thaw
